"""Big data beside a message: copied once into sealed memory, which each receiver maps for itself.

    pickler -> Stream(parts, buffers) -> store -> Stored(segments, places) -> message and descriptors
    descriptors -> load -> private maps of the same memory -> pickle's buffers -> the object

Buffers of pickle protocol 5 (numpy, pandas, Arrow), and the pickle itself where it is large (bytes, texts,
many objects), go into `segments`, whose maps are the receiver's own: writeable, copied on write. How the
descriptors travel is for others to know (`bequest.passing`, `carry.start`); which buffers have been copied
already, for `copies`.

A receiver imports this module: it stays light.
"""

from __future__ import annotations

import os
from _pickle import PickleBuffer  # pickle itself costs a child some milliseconds
from struct import Struct
from weakref import WeakValueDictionary

from bequest.carry.segments import OwnedFd, Writer, map_for_reading, map_privately
from bequest.errors import LostBuffersError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from typing_extensions import Buffer

    from bequest.carry.copies import Copies
    from bequest.carry.segments import Place

THRESHOLD_BYTES = 1 << 18
"""What is smaller travels within the message.

A pipe or a socket holds 64 to 200 KiB: up to there one system call on either side is faster than a map; from
here on, where the writer has to wait for the reader again and again, a map is three times as fast and more.
"""

_MOST_FOUND = 32  # segments of earlier messages that one message refers to; beyond that it copies
_TOKEN_BYTES = 16


class Stream:
    """What a pickler writes: a pickle in parts, and the buffers that are kept out of it.

    Attributes:
        parts: The pickle, one part after the other; large `bytes` objects as they are, not copied.
        buffers: Bytes of the buffers, in order; they stay exported (not resizable) while this object lives.
    """

    __slots__ = ("_beside", "buffers", "parts")

    def __init__(self, *, beside: bool = False) -> None:
        self.parts: list[bytes | memoryview] = []
        self.buffers: list[memoryview] = []
        self._beside = beside

    @property
    def callback(self) -> Callable[[PickleBuffer], bool] | None:
        """Return what the pickler asks about each buffer, or None where everything goes in band."""
        return self._set_aside if self._beside else None

    def write(self, data: Buffer) -> None:
        """Take the next part."""
        if type(data) is PickleBuffer:
            self.parts.append(data.raw())
        else:
            self.parts.append(data if type(data) is bytes else memoryview(data))

    def _set_aside(self, buffer: PickleBuffer) -> bool:
        """Take a buffer that is worth it; return whether it must go in band."""
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous: pickle says what it thinks of that
            return True
        if view.nbytes < THRESHOLD_BYTES:
            return True
        self.buffers.append(view)
        return False

    @property
    def size_bytes(self) -> int:
        """Return the size of the pickle, without the buffers."""
        return sum(_size(part) for part in self.parts)

    @property
    def is_large(self) -> bool:
        """Whether any of it is worth being stored."""
        return bool(self.buffers) or self.size_bytes >= THRESHOLD_BYTES

    def joined(self) -> bytes:
        """Return the pickle in one piece."""
        only = self.parts[0] if len(self.parts) == 1 else b""
        return only if only and type(only) is bytes else b"".join(self.parts)


def _size(part: bytes | memoryview) -> int:
    return part.nbytes if isinstance(part, memoryview) else len(part)


class Stored:
    """A message whose large parts are in sealed memory.

    Attributes:
        segments: The files; the message needs them open until its receiver has them.
        pickle: The pickle, or where it is.
        places: Where each buffer is.
    """

    __slots__ = ("pickle", "places", "segments")

    def __init__(self, segments: list[OwnedFd], pickle: bytes | Place, places: list[Place]) -> None:
        self.segments, self.pickle, self.places = segments, pickle, places


def store(stream: Stream, copies: Copies | None) -> Stored:
    """Copy what is large in `stream` into sealed memory.

    Args:
        stream: Not changed.
        copies: Where buffers may be found that have been copied before, and are noted.

    Raises:
        OSError: There is no memory, or no descriptor, for it. Nothing is left behind.
    """
    size = stream.size_bytes
    writer = Writer(sum(view.nbytes for view in stream.buffers) + size)
    places, fresh = _plan(stream.buffers, writer, copies)
    if size < THRESHOLD_BYTES:
        pickle: bytes | Place = stream.joined()
    else:
        pickle = writer.add([memoryview(part).cast("B") for part in stream.parts])
    writer.write()
    if copies is not None:
        for view, place in fresh:
            copies.note(view, writer.pieces(place))
    return Stored(writer.segments, pickle, places)


def _plan(
    buffers: list[memoryview], writer: Writer, copies: Copies | None
) -> tuple[list[Place], list[tuple[memoryview, Place]]]:
    """Find a place for each buffer; return them all, and those that are to be written with theirs.

    What is one memory is copied once, so that arrays which share it go on doing so.
    """
    places: dict[Any, Place] = {}
    fresh = []
    keys = [_key(view) for view in buffers] if len(buffers) > 1 else [None]
    for key, view in zip(keys, buffers, strict=False):
        if key in places:
            continue
        found = copies.find(view) if copies is not None and len(writer.segments) < _MOST_FOUND else None
        if found is None:
            places[key] = writer.add([view])
            fresh.append((view, places[key]))
        else:
            places[key] = writer.refer(found)
    return [places[key] for key in keys[: len(buffers)]], fresh


def _key(view: memoryview) -> Any:
    from bequest.carry.copies import key

    return key(view)


def load(pickle: bytes | Place, places: Sequence[Place], segments: Sequence[OwnedFd]) -> Any:
    """Rebuild the object of a stored message, of which the arguments are the attributes.

    Raises:
        Exception: Whatever a user's class raises while it is rebuilt.
    """
    import _pickle

    fds = [segment.fd for segment in segments]
    maps = {place: map_privately(place, fds) for place in dict.fromkeys(places)}
    data = pickle if isinstance(pickle, bytes) else map_for_reading(pickle[0], fds)
    return _pickle.loads(data, buffers=[memoryview(maps[place]) for place in places])


# -- messages to running processes ---------------------------------------------------------------------------


class Message(bytes):
    """A small pickle that refers to descriptors by a token; they must reach whoever loads it.

    `pickle.loads` reads it as long as this object, or in the receiver the one that it became there, lives.

    Attributes:
        held: The descriptors.
    """

    held: Held

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Reduce as what it is to whom does not know about it: `bytes` that can be loaded anywhere."""
        return bytes, (b"".join(inline_message(self)),)


class Held:
    """The descriptors of one message, which its loading finds by the token."""

    __slots__ = ("__weakref__", "segments", "token")

    def __init__(self, token: bytes, segments: list[OwnedFd]) -> None:
        self.token, self.segments = token, segments
        _held[token] = self


_held: WeakValueDictionary[bytes, Held] = WeakValueDictionary()

# A pickle of a call: protocol, function, arguments, call. The token is the first argument; before it stand
# its opcode and its length.
_PREFIX = b"\x80\x05cbequest.carry.buffers\narrive\n"
_INLINE_PREFIX = b"\x80\x05cbequest.carry.buffers\narrive_inline\n("
_CALL = b"R."
_TOKEN_AT = len(_PREFIX) + 2
_SIZE = Struct("<Q")


def message_of(stream: Stream) -> bytes:
    """Return what to send of `stream`: a `Message`, or a plain pickle where nothing in it is large.

    Where the system has no memory or descriptor to spare for it, all of it is in the pickle.
    """
    if not stream.is_large:
        return stream.joined()
    from bequest.carry import copies

    try:
        return _message(store(stream, copies.in_block()))
    except OSError:
        return b"".join(inline(stream))


def _message(stored: Stored) -> Message:
    token = os.urandom(_TOKEN_BYTES)
    made = Message(_PREFIX + _pickled_argument((token, stored.pickle, stored.places)) + _CALL)
    made.held = Held(token, stored.segments)
    return made


def token_of(data: Buffer) -> bytes | None:
    """Return the token of a message that refers to descriptors; None for any other."""
    view = memoryview(data)
    if view[: len(_PREFIX)] != _PREFIX:
        return None
    return bytes(view[_TOKEN_AT : _TOKEN_AT + _TOKEN_BYTES])


def arrive(token: bytes, pickle: Any, places: Sequence[Place]) -> Any:
    """Rebuild a message's object; what its pickle calls.

    Raises:
        LostBuffersError: Its descriptors are not in this process.
    """
    held = _held.get(token)
    if held is None:
        raise LostBuffersError(
            "a message has come without its large data, which went beside it: it was read or forwarded by "
            "other means than a connection or queue of bequest"
        )
    return load(pickle, places, held.segments)


# -- receivers without descriptors ---------------------------------------------------------------------------


def inline(stream: Stream) -> list[Buffer]:
    """Return the parts of one plain pickle that has everything in it; its large parts are not copied."""
    return _inlined(stream.joined(), stream.buffers, range(len(stream.buffers)))


def inline_message(sent: Message) -> list[Buffer]:
    """Return the parts of a plain pickle that has in it what `sent` refers to."""
    return _inlined(*_content_of(sent))


def _content_of(sent: Message) -> tuple[Buffer, list[Buffer], list[int]]:
    """Return the pickle of a message, each memory that its buffers show, and which of those each one does."""
    import pickle as plain

    _, pickle, places = plain.loads(b"\x80\x03" + sent[len(_PREFIX) : -len(_CALL)] + b".")
    fds = [segment.fd for segment in sent.held.segments]
    order = list(dict.fromkeys(places))
    contents = [map_privately(place, fds) for place in order]
    data = pickle if isinstance(pickle, bytes) else map_for_reading(pickle[0], fds)
    return data, contents, [order.index(place) for place in places]


def is_made_of(sent: Message, stream: Stream) -> bool:
    """Tell whether a message of `stream` would be the same as `sent` to whoever loads it."""
    from bequest.carry.copies import are_equal

    pickle, contents, numbers = _content_of(sent)
    keys = [_key(view) for view in stream.buffers]
    order = list(dict.fromkeys(keys))
    if numbers != [order.index(key) for key in keys] or memoryview(pickle).nbytes != stream.size_bytes:
        return False
    left = memoryview(pickle)
    for part in stream.parts:
        view = memoryview(part).cast("B")
        if not are_equal(view, left[: view.nbytes]):
            return False
        left = left[view.nbytes :]
    pairs = zip(stream.buffers, numbers, strict=True)
    return all(are_equal(view, memoryview(contents[number])) for view, number in pairs)


def _inlined(pickle: Buffer, contents: Sequence[Buffer], numbers: Sequence[int]) -> list[Buffer]:
    """Write a pickle by hand: the call of `arrive_inline` with (pickle, *contents, numbers)."""
    import pickle as plain

    parts: list[Buffer] = [_INLINE_PREFIX, plain.BINBYTES8, _SIZE.pack(memoryview(pickle).nbytes), pickle]
    for content in contents:
        parts += [plain.BYTEARRAY8, _SIZE.pack(memoryview(content).nbytes), content]
    return [*parts, _pickled_argument(list(numbers)), plain.TUPLE + _CALL]


def _pickled_argument(value: Any) -> bytes:
    """Return the opcodes that put `value` on the stack; protocol 3 writes no frames."""
    import pickle as plain

    return plain.dumps(value, 3)[2:-1]


def arrive_inline(pickle: bytes, *contents: Any) -> Any:
    """Rebuild the object of a message that `inline` made: its pickle, buffers, and the buffers' order."""
    import _pickle

    *buffers, numbers = contents
    return _pickle.loads(pickle, buffers=[memoryview(buffers[number]) for number in numbers])
