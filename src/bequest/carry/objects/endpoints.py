"""How the ends of connections, of other programs and of mapped files are carried.

    socket   -> its descriptor, shared, with its class, its timeout and its attributes
    multiprocessing's Connection -> the same
    Popen    -> a handle: the process is the sender's child; its pipes are shared
    mmap     -> the same file mapped again; private memory is copied
    SSLSocket and its kind -> a refusal

The functions that rebuild are at the end.
"""

from __future__ import annotations

import os

from bequest.carry.objects.descriptors import Descriptor, OwningDescriptor
from bequest.carry.objects.parts import require
from bequest.carry.registry import NotCarriedError, carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced


# -- sockets -------------------------------------------------------------------------------------------------


@carries("socket.socket", "_socket.socket", subclasses=True)
def reduce_socket(sock: Any, packing: Packing) -> Reduced:
    """Reduce a socket to its shared descriptor; a closed one stays closed."""
    from bequest.carry.instances import read_slots

    fd = sock.fileno()
    slots = read_slots(sock)
    slots.pop("_io_refs", None)  # how many files are made of it: those that come along count themselves
    attributes = (dict(getattr(sock, "__dict__", None) or {}), slots, None)
    about = (sock.family, sock.type, sock.proto, sock.gettimeout() if fd >= 0 else None)
    state = (Descriptor(fd) if fd >= 0 else None, about, attributes)
    return make_socket, (type(sock),), state, None, None, set_socket


@carries("socket.SocketIO", subclasses=True)
def reduce_socket_file(file: Any, packing: Packing) -> Reduced:
    """Reduce the raw file that `socket.makefile` puts below the others, which its socket counts."""
    require(vars(file).get("_sock"), packing)
    return make_socket, (type(file),), dict(vars(file)), None, None, set_socket_file


@carries("ssl.SSLSocket", "ssl.SSLObject", "_ssl._SSLSocket", subclasses=True)
def reduce_tls(sock: Any, packing: Packing) -> Reduced:
    """Refuse a TLS connection."""
    raise NotCarriedError("the keys of its session are this process's own", "Connect in the child")


# -- connections of multiprocessing --------------------------------------------------------------------------


@carries("multiprocessing.connection.Connection", subclasses=True)
def reduce_connection(connection: Any, packing: Packing) -> Reduced:
    """Reduce a connection to its shared descriptor and that of its side channel; a closed one stays closed.

    The registered reducers duplicate the descriptors as soon as they are asked. A message that could only be
    read in part (`_stalled`) is for who has read it.
    """
    from bequest.carry.instances import reduce_by_state

    replace: dict[str, Any] = {}
    if not connection.closed:
        replace["_handle"] = Descriptor(connection.fileno())
    beside = getattr(connection, "_beside", None)
    if beside is not None:
        replace["_beside"] = OwningDescriptor(beside.fd)
    return reduce_by_state(connection, replace=replace, drop=("_stalled",))


# -- other programs ------------------------------------------------------------------------------------------


@carries("subprocess.Popen", subclasses=True)
def reduce_popen(popen: Any, packing: Packing) -> Reduced:
    """Reduce a started program to a handle of it, with its pipes.

    The receiver is not its parent: it can see whether the program runs, wait for its end and signal it, and
    then has 0 for its exit code, as a forked child has for every one that it asks about.
    """
    from bequest.carry.instances import reduce_by_state

    drop = ("_waitpid_lock", "_handle", "_devnull", "_fileobj2output", "_try_wait", "_internal_poll")
    make, args, state, *_ = reduce_by_state(popen, replace={"_child_created": False}, drop=drop)
    return make, args, state, None, None, set_popen


# -- maps ----------------------------------------------------------------------------------------------------


@carries("mmap.mmap", subclasses=True)
def reduce_map(mapped: Any, packing: Packing) -> Reduced:
    """Reduce a map to the descriptor of its file, found by the address; private memory to its content."""
    from bequest.carry.objects import maps

    if mapped.closed:
        raise NotCarriedError("it is closed", "Leave it out")
    found = maps.find(mapped)
    if found is None:
        raise NotCarriedError(
            "it is memory without a file", "Use multiprocessing.shared_memory, or map a file, to share memory"
        )
    attributes = dict(getattr(mapped, "__dict__", None) or {})
    descriptor = Descriptor(found.fd, is_owned=found.is_opened) if found.fd is not None else -1
    content = bytes(memoryview(mapped)) if found.is_private else None
    place = (descriptor, len(mapped), found.offset)
    args = (type(mapped), place, found.is_private, found.can_write, content)
    return make_map, args, (mapped.tell(), attributes), None, None, set_map


# -- rebuilding ----------------------------------------------------------------------------------------------


def make_socket(kind: Any) -> Any:
    """Make a socket without a descriptor; no `__init__` of its class runs."""
    return kind.__new__(kind)


def set_socket(sock: Any, state: tuple[int | None, tuple[Any, Any, int, float | None], Any]) -> None:
    """Give a socket its descriptor, or leave it closed."""
    import _socket
    import socket

    from bequest.carry.instances import fill

    fd, (family, kind, proto, timeout), attributes = state
    base: Any = socket.socket if isinstance(sock, socket.socket) else _socket.socket
    files = getattr(sock, "_io_refs", 0)
    base.__init__(sock, family, kind, proto, fd)
    if files:
        sock._io_refs = files
    if fd is None:
        base.close(sock)
    else:
        base.settimeout(sock, timeout)
    fill(sock, attributes)


def set_socket_file(file: Any, state: dict[str, Any]) -> None:
    """Give the file of a socket its attributes, and have its socket count it."""
    file.__dict__.update(state)
    sock = state.get("_sock")
    if sock is not None:  # a closed one has none
        sock._io_refs = getattr(sock, "_io_refs", 0) + 1


def set_popen(popen: Any, state: Any) -> None:
    """Make a handle of a program that this process did not start."""
    import threading

    from bequest.carry.instances import fill

    fill(popen, state)
    popen._waitpid_lock = threading.Lock()
    popen._try_wait = _Watch(popen.pid)
    popen._internal_poll = _Poll(popen)


class _Watch:
    """Says in the place of `os.waitpid` how a process is that is not this one's child."""

    __slots__ = ("_pid",)

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __call__(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags & os.WNOHANG:
            return (0, 0) if _runs(self._pid, timeout_ms=0) else (self._pid, 0)
        while _runs(self._pid, timeout_ms=None):
            pass
        return self._pid, 0


class _Poll:
    """Serves `Popen.poll` by the same means."""

    __slots__ = ("_popen",)

    def __init__(self, popen: Any) -> None:
        self._popen = popen

    def __call__(self, *_: Any, **__: Any) -> int | None:
        if self._popen.returncode is None and not _runs(self._popen.pid, timeout_ms=0):
            self._popen.returncode = 0
        code: int | None = self._popen.returncode
        return code


def _runs(pid: int, *, timeout_ms: int | None) -> bool:
    """Tell whether a process runs, after waiting for its end for the time given; a zombie does not run."""
    import select

    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        poller = select.poll()
        poller.register(watched, select.POLLIN)
        return not poller.poll(timeout_ms)
    finally:
        os.close(watched)


def make_map(
    kind: Any, place: tuple[int, int, int], is_private: bool, can_write: bool, content: bytes | None
) -> Any:
    """Map a (descriptor, size, offset) and close the descriptor; private memory where that is -1."""
    import mmap

    fd, size, offset = place
    flags = mmap.MAP_PRIVATE if is_private else mmap.MAP_SHARED
    access = mmap.PROT_READ | (mmap.PROT_WRITE if can_write or is_private else 0)
    try:
        mapped = kind(fd, size, flags | (mmap.MAP_ANONYMOUS if fd < 0 else 0), access, offset=max(offset, 0))
    finally:
        if fd >= 0:
            os.close(fd)
    if content is not None and mapped[:] != content:
        mapped[:] = content
    return mapped


def set_map(mapped: Any, state: tuple[int, dict[str, Any]]) -> None:
    """Put a map at its position, and give it its attributes."""
    position, attributes = state
    mapped.seek(position)
    if attributes:
        mapped.__dict__.update(attributes)
