"""Big data beside a message: copied once into sealed memory, which each receiver maps for itself.

    pickler -> Stream(parts, buffers) -> store -> Stored(segments, places) -> message and descriptors
    descriptors -> load -> private maps of the same memory -> pickle's buffers -> the object

Buffers of pickle protocol 5 (numpy, pandas, Arrow), and the pickle itself where it is large (bytes, texts,
many objects), go into anonymous files that nobody can change any more. They have no name; the kernel frees
them with the last descriptor and the last map, whoever is killed. A map is copied on write: it is the
receiver's own. How the descriptors travel is for others to know (`bequest.passing`, `carry.start`); which
buffers have been copied already, for `copies`.

A receiver imports this module: it stays light.
"""

from __future__ import annotations

import os
import sys
from struct import Struct
from weakref import WeakSet, WeakValueDictionary

from bequest.errors import LostBuffersError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from mmap import mmap
    from pickle import PickleBuffer
    from typing import Any

    from typing_extensions import Buffer

    from bequest.carry.copies import Copies

    Place = tuple[int, int, int]  # segment by its index, offset, size in bytes

IS_AVAILABLE = hasattr(os, "memfd_create")
"""Whether this system has anonymous files that can be sealed: Linux."""

THRESHOLD_BYTES = 1 << 18
"""What is smaller travels within the message.

A pipe or a socket holds 64 to 200 KiB: up to there one system call on either side is faster than a map; from
here on, where the writer has to wait for the reader again and again, a map is three times as fast and more.
"""

MOST_SEGMENTS = 128
"""Bound on the descriptors of one message; the system's is 253 (SCM_MAX_FD)."""

_ALIGNMENT = 1 << 16  # of what can be mapped: the largest page size of any common system
_SMALL_SHARE = 16  # a buffer shares its segment where it is less than one part in so many of the message
_MOST_FOUND = 64  # segments of earlier messages that one message refers to; beyond that it copies
_SHARE_OF_DESCRIPTORS = 4  # of those that this process may have, how small a part waiting segments may take
_TOKEN_BYTES = 16

# MFD_NOEXEC_SEAL of Linux 6.3, in `os` from 3.15 on: without it some systems refuse, and others complain.
_NOEXEC_SEAL = 0x0008
_MAP_FIXED = 0x10  # Linux, on all architectures


class OwnedFd:
    """A descriptor that is closed with this object."""

    __slots__ = ("__weakref__", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        _owned.add(self)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)

    def __reduce__(self) -> Any:
        raise TypeError("a number of a descriptor means nothing to another process")


_owned: WeakSet[OwnedFd] = WeakSet()


class Stream:
    """What a pickler writes: a pickle in parts, and the buffers that are kept out of it.

    Attributes:
        parts: The pickle, one part after the other; large `bytes` objects as they are, not copied.
        buffers: Bytes of the buffers, in order; they stay exported (not resizable) while this object lives.
        callback: What the pickler asks about each buffer, or None where everything goes in band.
    """

    __slots__ = ("buffers", "callback", "parts")

    def __init__(self, *, beside: bool = False) -> None:
        self.parts: list[bytes | memoryview] = []
        self.buffers: list[memoryview] = []
        self.callback = self._set_aside if beside else None

    def write(self, data: Buffer) -> None:
        """Take the next part."""
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
    writer = _Writer(sum(view.nbytes for view in stream.buffers) + size)
    places = []
    for view in stream.buffers:
        found = copies.find(view) if copies is not None and len(writer.segments) < _MOST_FOUND else None
        if found is not None:
            places.append((writer.index(found[0]), found[1], view.nbytes))
            continue
        place = writer.add([view])
        places.append(place)
        if copies is not None:
            copies.note(view, writer.segments[place[0]], place[1])
    pickle = stream.joined() if size < THRESHOLD_BYTES else writer.add(stream.parts)
    writer.seal()
    return Stored(writer.segments, pickle, places)


class _Writer:
    """Puts buffers into segments: each into its own, but those that are a small part of the message.

    A segment lives as long as any part of it is used, so a small array must not keep a large one in memory.
    """

    def __init__(self, total_bytes: int) -> None:
        self.segments: list[OwnedFd] = []
        self._most_bytes = total_bytes // _SMALL_SHARE
        self._open: OwnedFd | None = None
        self._end = 0
        self._new: list[OwnedFd] = []

    def index(self, segment: OwnedFd) -> int:
        """Return the index of a segment that exists already."""
        if segment not in self.segments:
            self.segments.append(segment)
        return self.segments.index(segment)

    def add(self, parts: Sequence[bytes | memoryview]) -> Place:
        """Write `parts`, one after the other, and return where they are."""
        size = sum(_size(part) for part in parts)
        begin = -(-self._end // _ALIGNMENT) * _ALIGNMENT
        if self._open is None or begin + size > self._most_bytes:
            self._open, begin = self._begin(), 0
        self._end = begin
        for part in parts:
            view = memoryview(part).cast("B")
            while view:
                done = os.pwrite(self._open.fd, view, self._end)
                self._end += done
                view = view[done:]
        return self.segments.index(self._open), begin, size

    def _begin(self) -> OwnedFd:
        import errno

        fd = _create()
        if len(_owned) >= _most_descriptors():
            os.close(fd)
            raise OSError(errno.EMFILE, "too many large messages are waiting in this process")
        segment = OwnedFd(fd)
        self.segments.append(segment)
        self._new.append(segment)
        return segment

    def seal(self) -> None:
        """See to it that nobody can change or truncate what has been written."""
        import fcntl

        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        for segment in self._new:
            fcntl.fcntl(segment.fd, fcntl.F_ADD_SEALS, seals)


def _most_descriptors() -> int:
    """Return how many segments may be open at once, so that the program's own files find room."""
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_SEGMENTS + (most if most > 0 else 1 << 20) // _SHARE_OF_DESCRIPTORS


def _create() -> int:
    import errno

    if not IS_AVAILABLE:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("bequest", flags | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.memfd_create("bequest", flags)  # a kernel that does not know the flag


# -- the receiver --------------------------------------------------------------------------------------------


def load(pickle: Any, places: Sequence[Place], fds: Sequence[int]) -> Any:
    """Rebuild the object of a stored message.

    Args:
        pickle: `Stored.pickle`.
        places: `Stored.places`.
        fds: Descriptors of its segments, which stay the caller's and may be closed afterwards.

    Raises:
        Exception: Whatever a user's class raises while it is rebuilt.
    """
    import _pickle

    # What was one memory in the sender is one here: two arrays that show it go on sharing it.
    maps = {place: _map(fds[place[0]], *place[1:]) for place in dict.fromkeys(places)}
    data = pickle if isinstance(pickle, bytes) else _map(fds[pickle[0]], *pickle[1:])
    return _pickle.loads(data, buffers=[memoryview(maps[place]) for place in places])


def _map(fd: int, offset: int, size: int) -> Buffer:
    """Return memory of this process's own with what stands there in `fd`: mapped, or else copied."""
    try:
        return map_privately(fd, offset, size)
    except OSError:  # too many maps
        content = bytearray(size)
        view = memoryview(content)
        while view:
            done = os.preadv(fd, [view], offset)
            offset += done
            view = view[done:]
        return content


def map_privately(fd: int, offset: int, size: int) -> mmap:
    """Map a part of `fd`, copied on write; the map does not keep a descriptor.

    Raises:
        OSError: There is no room for a map.
    """
    import mmap

    access = mmap.PROT_READ | mmap.PROT_WRITE
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, mmap.MAP_PRIVATE, access, offset=offset, trackfd=False)
    # Until 3.12 a map holds a duplicate of its descriptor, and a program with a thousand arrays would have
    # none left: so it is laid over a map without one.
    room = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, access)
    _lay_over(room, fd, offset)
    return room


def _lay_over(room: mmap, fd: int, offset: int) -> None:
    import ctypes
    import mmap

    system = ctypes.CDLL(None, use_errno=True)
    system.mmap.restype = ctypes.c_void_p
    system.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    access, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | _MAP_FIXED
    if system.mmap(address, len(room), access, flags, fd, offset) != address:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


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
        return _message(store(stream, copies.for_message(stream)))
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
    return load(pickle, places, [segment.fd for segment in held.segments])


# -- receivers without descriptors ---------------------------------------------------------------------------


def inline(stream: Stream) -> list[Buffer]:
    """Return the parts of one plain pickle that has everything in it; its large parts are not copied."""
    return _inlined(stream.joined(), stream.buffers, range(len(stream.buffers)))


def inline_message(sent: Message) -> list[Buffer]:
    """Return the parts of a plain pickle that has in it what `sent` refers to."""
    import pickle as plain

    _, pickle, places = plain.loads(b"\x80\x03" + sent[len(_PREFIX) : -len(_CALL)] + b".")
    fds = [segment.fd for segment in sent.held.segments]
    order = list(dict.fromkeys(places))
    contents = [_map(fds[place[0]], *place[1:]) for place in order]
    data = pickle if isinstance(pickle, bytes) else _map(fds[pickle[0]], *pickle[1:])
    return _inlined(data, contents, [order.index(place) for place in places])


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
