"""Sealed memory: anonymous files that are written once and mapped by whoever has a descriptor.

    Writer.add(views) -> Place, Writer.write() -> segments       descriptors, Place -> map_privately -> memory

A segment has no name; the kernel frees it with the last descriptor and the last map. Nobody can change it
once it is sealed. A map is copied on write. What is in a segment is for others to know (`buffers`).

Writing into new memory is bound by what one processor can do (its pages must be found and entered one by one,
under the lock of their file), so several processors write several files.
"""

from __future__ import annotations

import os
from weakref import WeakSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from mmap import mmap
    from typing import Any

    from typing_extensions import Buffer

    Piece = tuple[int, int, int]  # index of the segment, offset, size in bytes
    Place = tuple[Piece, ...]  # one after the other

IS_AVAILABLE = hasattr(os, "memfd_create")
"""Whether this system has anonymous files that can be sealed: Linux."""

MOST_SEGMENTS = 128
"""Bound on the descriptors of one message; the system's is 253 (SCM_MAX_FD)."""

_ALIGNMENT = 1 << 16  # of what can be mapped: the largest page size of any common system
_SMALL_SHARE = 16  # a buffer shares its segment where it is less than one part in so many of the message
_LARGE_SHARE = 4  # it is divided where it is more than one part in so many
_MOST_WRITERS = 4
_LEAST_BYTES_OF_WRITER = 8 << 20  # less is written before another thread would have begun
_SHARE_OF_DESCRIPTORS = 4  # of those that this process may have, how small a part waiting segments may take

# MFD_NOEXEC_SEAL of Linux 6.3, in `os` from 3.15 on: without it some systems refuse, and others complain.
_NOEXEC_SEAL = 0x0008
_MAP_FIXED = 0x10  # Linux, on all architectures


class OwnedFd:
    """A descriptor that is closed with this object."""

    __slots__ = ("__weakref__", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)

    def __reduce__(self) -> Any:
        raise TypeError("a number of a descriptor means nothing to another process")


_written: WeakSet[OwnedFd] = WeakSet()  # the segments that this process has made and still has open


# -- writing -------------------------------------------------------------------------------------------------


class _Draft:
    """A segment that is being filled, with what goes where."""

    def __init__(self, segment: OwnedFd) -> None:
        self.segment = segment
        self.end = 0
        self._content: list[tuple[memoryview, int]] = []

    def add(self, views: Sequence[memoryview], begin: int) -> None:
        """Plan `views`, one after the other, from offset `begin` on."""
        self.end = begin
        for view in views:
            self._content.append((view, self.end))
            self.end += view.nbytes

    def write(self) -> None:
        """Write all that is planned, and seal the segment."""
        import fcntl

        for view, offset in self._content:
            write_at(self.segment.fd, view, offset)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(self.segment.fd, fcntl.F_ADD_SEALS, seals)


def write_at(fd: int, view: memoryview, offset: int) -> None:
    """Write all of `view`, which is of bytes; one system call takes 2 GiB at most."""
    while view:
        done = os.pwrite(fd, view, offset)
        offset += done
        view = view[done:]


class Writer:
    """Puts what one message has into segments, some of which may exist already.

    A segment lives as long as any part of it is used, so what is large has one of its own: a small array must
    not keep a large one in memory.

    Attributes:
        segments: All that the message needs.
    """

    def __init__(self, total_bytes: int) -> None:
        self.segments: list[OwnedFd] = []
        self._total_bytes = total_bytes
        self._drafts: list[_Draft] = []
        self._processors = _processors() if total_bytes >= 2 * _LEAST_BYTES_OF_WRITER else 1

    def refer(self, pieces: Sequence[tuple[OwnedFd, int, int]]) -> Place:
        """Return the place of what is in segments that exist."""
        for segment, _, _ in pieces:
            if segment not in self.segments:
                self.segments.append(segment)
        return tuple((self.segments.index(segment), offset, size) for segment, offset, size in pieces)

    def pieces(self, place: Place) -> list[tuple[OwnedFd, int, int]]:
        """Return a place in a form that does not depend on this message."""
        return [(self.segments[index], offset, size) for index, offset, size in place]

    def add(self, views: Sequence[memoryview]) -> Place:
        """Plan `views` (of bytes), to be read as one.

        Raises:
            OSError: There is no descriptor for them.
        """
        size = sum(view.nbytes for view in views)
        last = self._drafts[-1] if self._drafts else None
        if last is not None and last.end + _ALIGNMENT + size <= self._total_bytes // _SMALL_SHARE:
            begin = -(-last.end // _ALIGNMENT) * _ALIGNMENT
            last.add(views, begin)
            return ((self.segments.index(last.segment), begin, size),)
        return tuple(self._add_new(part) for part in self._divided(views, size))

    def _divided(self, views: Sequence[memoryview], size: int) -> list[Sequence[memoryview]]:
        """Divide what is large into parts for several processors to write."""
        count = min(self._processors, size // _LEAST_BYTES_OF_WRITER)
        if len(views) > 1 or count < 2 or size * _LARGE_SHARE < self._total_bytes:
            return [views]
        step = -(-size // count // _ALIGNMENT) * _ALIGNMENT
        return [[views[0][begin : begin + step]] for begin in range(0, size, step)]

    def _add_new(self, views: Sequence[memoryview]) -> Piece:
        draft = _Draft(OwnedFd(_create()))
        _written.add(draft.segment)
        draft.add(views, 0)
        self._drafts.append(draft)
        self.segments.append(draft.segment)
        return len(self.segments) - 1, 0, draft.end

    def write(self) -> None:
        """Write what has been planned, after which it can no longer be changed by anybody.

        Raises:
            OSError: There is no memory for it.
        """
        for_each(_Draft.write, self._drafts, self._processors)


def _processors() -> int:
    """Return how many processors may write at once."""
    try:
        return min(_MOST_WRITERS, len(os.sched_getaffinity(0)))
    except OSError:  # a sandbox
        return 1


def for_each(work: Callable[[Any], object], items: Sequence[Any], threads: int) -> None:
    """Call `work` with each item, in this thread and up to `threads - 1` more; return when all is done.

    Raises:
        BaseException: The first that a call has raised.
    """
    waiting = list(reversed(items))
    errors: list[BaseException] = []

    def run() -> None:
        while waiting and not errors:
            try:
                item = waiting.pop()
            except IndexError:  # another thread has taken the last
                return
            try:
                work(item)
            # It belongs to the thread that waits, which raises it.
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

    working: list[Any] = []
    try:
        _start(run, min(threads, len(items)) - 1, working)
        run()
    except BaseException as interrupt:  # noqa: BLE001 - raised below
        errors.append(interrupt)
    # They work in memory that the caller may free as soon as this returns. One that begins now finds nothing.
    place = 0
    while place < len(working):
        try:
            working[place].wait()
            place += 1
        except BaseException as interrupt:  # noqa: BLE001 - raised below
            errors.append(interrupt)
    if errors:
        raise errors[0]


def _start(run: Callable[[], None], count: int, working: list[Any]) -> None:
    """Run `run` in up to `count` threads more; each adds to `working` an event that is set when it is done.

    Not joined: up to 3.12 an interrupted `join` takes the thread for one that has ended.
    """
    if count < 1:
        return
    import threading

    def work() -> None:
        done = threading.Event()
        working.append(done)
        try:
            run()
        finally:
            done.set()

    for _ in range(count):
        try:
            threading.Thread(target=work, name="bequest-copy", daemon=True).start()
        except RuntimeError:  # no more threads, or the interpreter is about to end
            break


def _create() -> int:
    """Return a new anonymous file, owned by the caller.

    Raises:
        OSError: There are no descriptors or no such files; or segments that wait to be received take so many
            of this process's descriptors that the program's own files would find none.
    """
    import errno

    if not IS_AVAILABLE:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if len(_written) >= _most_waiting():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("bequest", flags | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.memfd_create("bequest", flags)  # a kernel that does not know the flag


def _most_waiting() -> int:
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most // _SHARE_OF_DESCRIPTORS if most > 0 else MOST_SEGMENTS * _SHARE_OF_DESCRIPTORS


# -- reading -------------------------------------------------------------------------------------------------


def map_privately(place: Place, fds: Sequence[int]) -> Buffer:
    """Return memory of this process's own with what is at `place`: mapped, or copied where it cannot be.

    Args:
        place: Where it is.
        fds: The segments' descriptors, which stay the caller's and may be closed afterwards.
    """
    import mmap

    size = sum(piece[2] for piece in place)
    try:
        # A map of a file keeps a duplicate of its descriptor (in 3.13 that can be prevented), and a program
        # with a thousand arrays would have none left: so the file is laid over a map without one.
        room = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE)
        _lay_over(room, place, fds)
        return room
    except (OSError, ImportError):  # too many maps; no ctypes
        return _copied(place, fds, size)


def _lay_over(room: mmap, place: Place, fds: Sequence[int]) -> None:
    import ctypes
    import mmap

    system = ctypes.CDLL(None, use_errno=True)
    system.mmap.restype = ctypes.c_void_p
    system.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    access, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | _MAP_FIXED
    for index, offset, size in place:
        if system.mmap(address, size, access, flags, fds[index], offset) != address:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        address += size


def _copied(place: Place, fds: Sequence[int], size: int) -> bytearray:
    content = bytearray(size)
    view = memoryview(content)
    for index, offset, length in place:
        end = offset + length
        while offset < end:
            done = os.preadv(fds[index], [view[: end - offset]], offset)
            offset += done
            view = view[done:]
    return content


def map_for_reading(piece: Piece, fds: Sequence[int]) -> Buffer:
    """Return what is at `piece`, to be read at once and dropped."""
    import mmap

    index, offset, size = piece
    try:
        return mmap.mmap(fds[index], size, mmap.MAP_PRIVATE, mmap.PROT_READ, offset=offset)
    except OSError:  # no descriptor for it, or too many maps
        return _copied((piece,), fds, size)
