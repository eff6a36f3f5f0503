"""What a parent, its template and a forked child say to each other, and on what.

    parent -> channel -> template: prepare | fork | retire, a line beside each fork
    parent -> line -> child: its start;   child -> line: "P" pid, "A";   template -> line: "S" | "T" | "E"

The channel is an inherited socket pair: nothing in the filesystem, nobody else can connect. A line is one
more pair, made by the parent for each child; template and child share its other end, of which only the child
reads. So a start never passes through the template, and a child forked ahead of its start waits for it there.
"""

from __future__ import annotations

import os
import socket
from array import array
from struct import Struct

from bequest.launch import handoff

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeAlias

    from typing_extensions import Buffer

    Message: TypeAlias = tuple[dict[str, Any], dict[str, Any], memoryview, list[int]]

BEGUN = Struct("<cq")
"""`P` and pid, with a pidfd beside it: the child itself says so, before anything of the program runs."""

ENDED = Struct("<cqq")
"""`S`, pid and exit code: the template has reaped the child."""

STANDARD = 3
"""How many standard streams there are: stdin, stdout, stderr, under the descriptors from 0 on."""

MOST_DESCRIPTORS = 250  # in one message; Linux takes 253 (SCM_MAX_FD)
MOST_BYTES = 1 << 17
INLINE_BYTES = 1 << 16
"""The largest message that travels by itself; a larger one is in a file of its own."""
WORD_BYTES = 1 << 15
"""The longest word to the parent, which makes room for one at each look."""

_ROOM = socket.CMSG_SPACE(MOST_DESCRIPTORS * array("i").itemsize)
_MORE = {"request": "more"}


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends that block, whatever `socket.setdefaulttimeout` the program has set."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if ours.gettimeout() is not None:
        ours.settimeout(None)
        theirs.settimeout(None)
    return ours, theirs


def send(
    end: socket.socket, header: dict[str, Any], notes: dict[str, Any], body: Buffer, fds: Sequence[int]
) -> None:
    """Send one message; the receiver gets duplicates of `fds`.

    Raises:
        OSError: Nobody will read it (BrokenPipeError, ConnectionResetError), or the system is at a limit.
    """
    inline = handoff.encode(header, notes, body)
    if sum(memoryview(part).nbytes for part in inline) <= INLINE_BYTES:
        _send_parts(end, inline, fds)
        return
    stored = handoff.store(inline)
    try:
        _send_parts(end, handoff.encode({}, {"stored": True}, b""), [stored, *fds])
    finally:
        os.close(stored)


def _send_parts(end: socket.socket, parts: Sequence[Buffer], fds: Sequence[int]) -> None:
    for begin in range(MOST_DESCRIPTORS, len(fds), MOST_DESCRIPTORS):  # what does not fit goes ahead
        end.sendmsg(handoff.encode({}, _MORE, b""), beside(fds[begin : begin + MOST_DESCRIPTORS]))
    end.sendmsg(parts, beside(fds[:MOST_DESCRIPTORS]))


def receive(end: socket.socket, buffer: bytearray, flags: int = 0) -> Message | None:
    """Return header, notes and body of the next message, and the descriptors beside it, now the caller's.

    The body may be a view into `buffer`. None where the other end is closed.

    Raises:
        BlockingIOError: Nothing has come yet, and `flags` say MSG_DONTWAIT.
    """
    extra: list[int] = []
    while True:
        try:
            size, ancillary, _, _ = end.recvmsg_into([buffer], _ROOM, flags | socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:  # closed, and something that we had said was never read
            return None
        fds = descriptors(ancillary)
        if size == 0:
            return None
        header, notes, body = handoff.decode(memoryview(buffer)[:size])
        if notes.get("request") == "more":
            extra += fds
            flags = 0  # the rest follows
            continue
        if notes.get("stored"):
            header, notes, body = handoff.decode(handoff.load(fds.pop(0)))
        return header, notes, body, fds + extra


def tell(end: socket.socket, message: bytes) -> None:
    """Send a word to the parent, which may have closed its end: it gave the child up, or has ended."""
    try:
        end.send(message)
    except OSError:
        pass


def open_standard() -> list[int]:
    """Return those of the descriptors 0, 1 and 2 that are open."""
    return [fd for fd in range(STANDARD) if _is_open(fd)]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def beside(fds: Sequence[int]) -> list[tuple[int, int, array[int]]]:
    """Return what `sendmsg` takes to send descriptors along."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []


def descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors in what `recvmsg` got beside a message."""
    fds = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
