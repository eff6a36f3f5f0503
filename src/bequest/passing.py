"""How bequest's connections pass large data: the methods of Connection that differ from multiprocessing's.

    send(obj) -> Message -> descriptors into the side channel, then the message into the pipe
    recv()    -> the message, then its descriptors from the side channel -> object

A pipe cannot carry descriptors, and a socket in its place holds far fewer small messages before its writer
has to wait. So each pipe that `Pipe` makes has a side channel, a socket pair, in which the kernel keeps the
descriptors: the writer may end, or be killed, before anybody reads; what is never read goes with the last end
of the channel. Whoever writes to a pipe that several share holds its lock, so the order in both is the same;
a token tells what a killed reader has left. A connection without a side channel (to a listener, over a
network), and a side channel that is full, get the data within the message.

`bequest.connection` has these methods in a subclass; `bequest.install` puts them into the standard library's
own class.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import socket
from array import array
from multiprocessing import reduction
from struct import Struct

from bequest.carry import buffers
from bequest.carry.segments import IS_AVAILABLE, MOST_SEGMENTS, OwnedFd
from bequest.reduction import pack_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

_SIZE, _LARGE_SIZE = Struct("!i"), Struct("!Q")
_MOST_BYTES = 0x7FFFFFFF
_REASONS_TO_SEND_INLINE = frozenset(
    getattr(errno, name)
    for name in ("EAGAIN", "ETOOMANYREFS", "ENOBUFS", "ENOMEM", "EPIPE", "ECONNRESET", "ENOTCONN")
    if hasattr(errno, name)
)
_TOKEN_ROOM = 64
_ROOM_BESIDE = socket.CMSG_SPACE(MOST_SEGMENTS * array("i").itemsize) if IS_AVAILABLE else 0


def methods(plain: ModuleType) -> dict[str, Any]:
    """Return what Connection has in the place of the attributes of `plain`'s, or besides them.

    Args:
        plain: multiprocessing.connection.
    """
    base, kind = plain._ConnectionBase, plain.Connection
    return {
        "_beside": None,
        "_stalled": None,
        "send": send,
        "send_bytes": _sending_messages(base.send_bytes),
        "_send_bytes": _sending_beside(kind._send_bytes),
        "_recv_bytes": _receiving_beside(kind._recv_bytes),
        "_poll": _polling(kind._poll),
        "_close": _closing(kind._close),
    }


def with_side_channel(plain_pipe: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    """Return a Pipe function whose connections have a side channel, where the system has room for it."""

    @functools.wraps(plain_pipe)
    def Pipe(duplex: bool = True) -> tuple[Any, Any]:
        """Return two connected ends; see `multiprocessing.Pipe`."""
        ends = plain_pipe(duplex)
        for end, fd in zip(ends, side_channel(), strict=False):
            end._beside = OwnedFd(fd)
        return ends

    return Pipe


def side_channel() -> tuple[int, ...]:
    """Return two connected descriptors, the caller's, for descriptors; none where the system has none."""
    if not IS_AVAILABLE:
        return ()
    try:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:  # at a limit: what the pipe carries by itself will have to do
        return ()
    return tuple(end.detach() for end in pair)


# -- sending -------------------------------------------------------------------------------------------------


def send(self: Any, obj: Any) -> None:
    """Send `obj` as it is now; raises CarryError, with nothing sent, if it cannot be carried."""
    self._check_closed()
    self._check_writable()
    self._send_bytes(pack_message(obj, self._beside is not None))


def _sending_messages(plain: Callable[..., None]) -> Callable[..., None]:
    def send_bytes(self: Any, buf: Any, offset: int = 0, size: int | None = None) -> None:
        """Send bytes as one message; a message that was packed or received goes with its large data."""
        if type(buf) is not buffers.Message or offset or size is not None:
            plain(self, buf, offset, size)
            return
        self._check_closed()
        self._check_writable()
        self._send_bytes(buf)

    return send_bytes


def _sending_beside(plain: Callable[..., None]) -> Callable[..., None]:
    def _send_bytes(self: Any, buf: Any) -> None:
        if type(buf) is not buffers.Message or send_beside(self._beside, buf.held):
            plain(self, buf)
        else:
            _send_parts(self, [memoryview(part).cast("B") for part in buffers.inline_message(buf)])

    return _send_bytes


def _send_parts(connection: Any, parts: list[memoryview]) -> None:
    """Send one message in parts, framed as the standard library does it."""
    size = sum(part.nbytes for part in parts)
    connection._send(_SIZE.pack(size) if size <= _MOST_BYTES else _SIZE.pack(-1) + _LARGE_SIZE.pack(size))
    for part in parts:
        connection._send(part)


def send_beside(channel: OwnedFd | None, held: buffers.Held) -> bool:
    """Put the descriptors of a message into the side channel; return whether there was one, and room."""
    if channel is None:
        return False
    fds = array("i", [segment.fd for segment in held.segments])
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, channel.fd)
    try:
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
        sock.sendmsg([held.token], beside, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError as error:
        # Full; or as many descriptors are on their way as this user may have open; or nobody is left to
        # read, which the pipe will say as well.
        if error.errno not in _REASONS_TO_SEND_INLINE:
            raise
        return False
    finally:
        sock.detach()
    return True


# -- receiving -----------------------------------------------------------------------------------------------


class _Arrived(io.BytesIO):
    """A message that has been read, with its descriptors."""

    held: buffers.Held

    def getvalue(self) -> bytes:
        """Return the message as one that can be loaded, or sent on."""
        made = buffers.Message(super().getvalue())
        made.held = self.held
        return made


def _receiving_beside(plain: Callable[..., Any]) -> Callable[..., Any]:
    def _recv_bytes(self: Any, maxsize: int | None = None) -> Any:
        read, self._stalled = self._stalled or plain(self, maxsize), None
        token = None if read is None or self._beside is None else buffers.token_of(read.getbuffer())
        if token is None:
            return read
        try:
            held = receive_beside(self._beside, token)
        except OSError:
            self._stalled = read  # for the next attempt: nothing is lost
            raise
        if held is None:
            return read
        arrived = _Arrived()
        arrived.write(read.getbuffer())
        arrived.held = held
        return arrived

    return _recv_bytes


def receive_beside(channel: OwnedFd, token: bytes) -> buffers.Held | None:
    """Take the descriptors of message `token`; None where there are none.

    Raises:
        OSError: This process has no descriptor to spare (EMFILE); they are still to be had.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, channel.fd)
    flags = socket.MSG_DONTWAIT | getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    try:
        while True:
            # A look first: what does not fit into this process's table would be lost with the message.
            data, beside, state, _ = sock.recvmsg(_TOKEN_ROOM, _ROOM_BESIDE, flags | socket.MSG_PEEK)
            fds = array("i")
            for _, _, content in beside:
                fds.frombytes(content)
            segments = [OwnedFd(fd) for fd in fds]
            if not data:
                return None
            if data == token and state & socket.MSG_CTRUNC:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            sock.recv(_TOKEN_ROOM, socket.MSG_DONTWAIT)
            if data == token:
                return buffers.Held(token, segments)
            # Another's, who was killed between its message and this, or before it could send the message.
    except BlockingIOError:
        return None
    finally:
        sock.detach()


def _polling(plain: Callable[..., bool]) -> Callable[..., bool]:
    def _poll(self: Any, timeout: float | None) -> bool:
        return self._stalled is not None or plain(self, timeout)

    return _poll


def _closing(plain: Callable[..., None]) -> Callable[..., None]:
    def _close(self: Any) -> None:
        self._beside = self._stalled = None
        plain(self)

    return _close


# -- to another process --------------------------------------------------------------------------------------


def reduce_connection(connection: Any) -> tuple[Any, ...]:
    """Reduce a connection to its descriptors, which are shared."""
    beside = connection._beside
    fds = reduction.DupFd(connection.fileno()), None if beside is None else reduction.DupFd(beside.fd)
    return rebuild_connection, (type(connection), *fds, connection.readable, connection.writable)


def rebuild_connection(kind: Any, fd: Any, beside: Any, *rights: bool) -> Any:
    """Make the connection of two shared descriptors, of which the second may be None."""
    connection = kind(fd.detach(), *rights)
    if beside is not None:
        connection._beside = OwnedFd(beside.detach())
    return connection
