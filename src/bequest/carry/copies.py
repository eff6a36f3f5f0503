"""Which buffers have been copied already, and are still what was copied.

    starts one after another: find(buffer) -> compared with its copy -> the copy, or None where it has changed
    one_snapshot():           find(buffer) -> the copy, for what one call sends to many

Nobody can know of memory that may be written whether it has been: not of a numpy array, nor of a read-only
view of one. So a copy is used again where the bytes under the array are those of a `bytes` object, which
never changes; where the two have just been compared; or where the caller has said that one moment's content
is what everybody is to get. A comparison only reads, so it costs less than half of what a copy does; and
children that share a copy share its memory.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from functools import partial

from bequest.carry.segments import for_each, map_privately

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Protocol

    from bequest.carry.segments import OwnedFd

    Key = tuple[int, int]  # address and size in bytes
    Found = Sequence[tuple[OwnedFd, int, int]]  # pieces: segment, offset in it, size in bytes

    class Copies(Protocol):
        """What `buffers.store` asks."""

        def find(self, view: memoryview) -> Found | None:
            """Return where the content of `view` is already; None where it must be copied."""

        def note(self, view: memoryview, copy: Found) -> None:
            """Remember that `view` has just been copied."""


class _OneSnapshot:
    """The copies of a block in which each buffer is copied once, whatever happens to it meanwhile."""

    def __init__(self) -> None:
        self._found: dict[Key, tuple[Found, memoryview]] = {}

    def find(self, view: memoryview) -> Found | None:
        """Return where `view` was copied to in this block."""
        found = self._found.get(key(view))
        return None if found is None else found[0]

    def note(self, view: memoryview, copy: Found) -> None:
        """Remember a copy; the view is held too, or its address could become another buffer's."""
        self._found[key(view)] = copy, view


class _Copy:
    """A copy that outlives the message that it was made for.

    Attributes:
        owner: Whose memory was copied; it may be gone.
    """

    __slots__ = ("_mapped", "owner", "pieces")

    def __init__(self, pieces: Found, owner: weakref.ref[Any]) -> None:
        self.pieces, self.owner = pieces, owner
        self._mapped: Any = None

    def is_equal(self, view: memoryview) -> bool:
        """Compare with what `view` shows now; reads as far as the first difference."""
        if self._mapped is None:
            place = tuple((index, *piece[1:]) for index, piece in enumerate(self.pieces))
            self._mapped = map_privately(place, [piece[0].fd for piece in self.pieces])
        try:
            for_each(_compare, self._ranges(view), len(self.pieces))
        except _DifferentError:
            return False
        return True

    def _ranges(self, view: memoryview) -> list[tuple[int, int, int]]:
        """Return the pairs of addresses, with the size, that are to be equal; a thread for each piece."""
        here, there = key(view)[0], key(memoryview(self._mapped))[0]
        ranges = []
        for _, _, size in self.pieces:
            ranges.append((here, there, size))
            here, there = here + size, there + size
        return ranges


class _DifferentError(Exception):
    """Two ranges are not equal."""


def _compare(ranges: tuple[int, int, int]) -> None:
    import ctypes

    compare = ctypes.CDLL(None).memcmp  # gives up the interpreter's lock meanwhile
    compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    if compare(*ranges) != 0:
        raise _DifferentError


class _BetweenStarts:
    """The copies made for the last start. Thread-safe.

    One is kept until a start does not use it, until its owner is gone, or until `forget`.
    """

    def __init__(self) -> None:
        self._known: dict[Key, _Copy] = {}

    def find(self, view: memoryview) -> Found | None:
        """Return where `view` has been copied to, if that is its content still."""
        block = in_block()
        found = None if block is None else block.find(view)
        if found is not None:
            return found
        known_as = key(view)
        copy = self._known.get(known_as)
        if copy is None:
            return None
        owner, is_constant = _trace(view)
        if copy.owner() is not owner or not (is_constant or copy.is_equal(view)):
            self._known.pop(known_as, None)
            return None
        if block is not None:
            block.note(view, copy.pieces)
        return copy.pieces

    def note(self, view: memoryview, copy: Found) -> None:
        """Remember that `view` has just been copied."""
        block = in_block()
        if block is not None:
            block.note(view, copy)
        known_as, (owner, _) = key(view), _trace(view)
        if owner is not None:
            gone = partial(_drop, self._known, known_as)
            self._known[known_as] = _Copy(copy, weakref.ref(owner, gone))

    def keep_only(self, segments: list[OwnedFd]) -> None:
        """Give up all copies but those in `segments`, which the present start uses."""
        for known_as, copy in list(self._known.items()):
            if copy.pieces[0][0] not in segments:
                self._known.pop(known_as, None)

    def forget(self) -> None:
        """Give up all copies."""
        self._known.clear()


def _drop(known: dict[Key, _Copy], known_as: Key, owner: weakref.ref[Any]) -> None:
    copy = known.get(known_as)
    if copy is not None and copy.owner is owner:
        known.pop(known_as, None)


between_starts = _BetweenStarts()


class _Block(threading.local):
    """The block of `one_snapshot` that this thread is in."""

    copies: _OneSnapshot | None = None


_block = _Block()


def in_block() -> _OneSnapshot | None:
    """Return the copies of the `one_snapshot` block that this thread is in, if any."""
    return _block.copies


@contextmanager
def one_snapshot() -> Iterator[None]:
    """Let all that this thread sends or starts in the block share one copy of each large buffer.

    For who hands the same data to many: they get what it was when the first of them was served, and whatever
    is written to it meanwhile they do not see. Within another such block it does nothing. The copies are
    given up at its end.
    """
    if _block.copies is not None:
        yield
        return
    _block.copies = _OneSnapshot()
    try:
        yield
    finally:
        _block.copies = None


def are_equal(first: memoryview, second: memoryview) -> bool:
    """Tell whether two views of bytes show the same; reads as far as the first difference."""
    if first.nbytes != second.nbytes:
        return False
    try:
        _compare((key(first)[0], key(second)[0], first.nbytes))
    except _DifferentError:
        return False
    return True


def key(view: memoryview) -> Key:
    """Return the address and the size of what `view` shows."""
    from bequest.carry.objects.memory import address

    return address(view), view.nbytes


def _trace(view: memoryview) -> tuple[Any, bool]:
    """Return the object that `view` is a part of, as far as it can be followed, and whether it is constant.

    None where the object cannot be referred to weakly: nobody would say when its address is another's.
    """
    owner: Any = None
    below: Any = view.obj
    while below is not None:
        if type(below) is bytes:
            return owner, True
        owner = below if type(below).__weakrefoffset__ else None
        if isinstance(below, memoryview):
            below = below.obj
        else:
            kind = type(below)
            is_array = (kind.__module__, kind.__qualname__) == ("numpy", "ndarray")
            below = below.base if is_array else None
    return owner, False
