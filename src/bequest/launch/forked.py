"""A child from its fork to its start: it says that it is there, waits for its message, and becomes the child.

    template forks -> "P" -> waits on its line -> message -> child.begin -> exit

It may wait long: a child that is forked ahead of its start, the spare, is such a one. While it waits it runs
nothing of the program, holds nothing of other children, and ignores ^C as the template does. It leaves by
itself when it has waited too long, and when the template or the parent has ended.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed does not know it; `signal`'s enums are dear
import atexit
import marshal
import os
import select
import signal
import socket
import sys
from multiprocessing import util as _util

from bequest.carry import rehearsal
from bequest.launch import child, lines
from bequest.launch.pidfd import is_ready, open_pidfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Sequence
    from typing import Any, NoReturn

util: Any = _util  # private names of it are used: the same in all versions

_LEISURE_S = 0.005  # so long without a start, and none is near: there is time to rehearse it
_LONGEST_MS = 1 << 30  # that poll() takes; twelve days are as good as for ever


class Inherited:
    """What a child has of the template at its fork.

    Attributes:
        handlers: By signal number, the handlers that the template had before it set its own.
        buffer: What the template receives into: its pages are there, unlike those of a new one.
        not_ours: Descriptors of the template and of other children.
        parent: Becomes readable when the parent ends.
        template: Becomes readable when the template ends; None where there are no pidfds.
        started: Memory shared with the template.
        place: Where a child that was forked ahead says there that it has its start; None for any other.
    """

    __slots__ = ("buffer", "handlers", "not_ours", "parent", "place", "started", "template")

    def __init__(
        self,
        *,
        handlers: dict[int, Any],
        buffer: bytearray,
        not_ours: Sequence[int],
        parent: int,
        template: int | None,
        started: mmap.mmap,
        place: int | None,
    ) -> None:
        self.handlers, self.buffer, self.not_ours = handlers, buffer, not_ours
        self.parent, self.template = parent, template
        self.started, self.place = started, place


def run(line_fd: int, inherited: Inherited, idle_s: float | None) -> NoReturn:
    """Be a child that has just been forked; does not return.

    Args:
        line_fd: The child's end of its line.
        inherited: What it has from the template.
        idle_s: After how many seconds without a message it leaves; None or infinity for never.
    """
    code = 1
    try:
        line = socket.socket(fileno=line_fd)
        _say_begun(line)
        _give_up(inherited)
        if idle_s is not None and not is_ready(line.fileno(), _LEISURE_S):
            _rehearse(inherited)
        received = _await_start(line, inherited, idle_s)
        code = _start(line, inherited, received)
    # The boundary of this process: the frames below are the template's.
    except BaseException:  # noqa: BLE001
        sys.excepthook(*sys.exc_info())
        util._flush_std_streams()
    finally:
        if child.FORKED_CHILDREN_RUN_ATEXIT:
            atexit._run_exitfuncs()
        os._exit(code)


def _say_begun(line: socket.socket) -> None:
    pidfd = open_pidfd(os.getpid())
    try:
        line.sendmsg([lines.BEGUN.pack(b"P", os.getpid())], lines.beside([] if pidfd is None else [pidfd]))
    except OSError:  # the start was abandoned (^C): nobody will ever know of this child
        os._exit(1)
    if pidfd is not None:
        os.close(pidfd)


def _give_up(inherited: Inherited) -> None:
    """Give up all that is the template's but its handlers: a signal must not end one that waits."""
    signal.set_wakeup_fd(-1)
    util.close_fds(*inherited.not_ours)
    if child.FORKED_CHILDREN_RUN_ATEXIT:
        atexit._clear()
        atexit.register(util._exit_function)
    # Before the message is opened: what it brings has not seen a fork, and must not be told of one.
    util._finalizer_registry.clear()
    util._run_after_forkers()


def _await_start(line: socket.socket, inherited: Inherited, idle_s: float | None) -> Any:
    """Return what `lines.receive` does for the start; leaves the process where none will come."""
    try:
        received = lines.receive(line, inherited.buffer, socket.MSG_DONTWAIT)
    except BlockingIOError:
        ready = _await_news(line, inherited, idle_s)
        if line.fileno() not in ready:
            # From here on nobody can send, so that a start is either here by now or goes to another child.
            line.shutdown(socket.SHUT_RD)
            if inherited.parent in ready:
                os._exit(0)
        received = lines.receive(line, inherited.buffer)
    if received is None:
        os._exit(0)
    return received


def _await_news(line: socket.socket, inherited: Inherited, idle_s: float | None) -> set[int]:
    """Wait for a start, the end of the parent or the template, or the time; return what is ready."""
    poller = select.poll()
    poller.register(line, select.POLLIN)
    for fd in (inherited.parent, inherited.template):
        if fd is not None:
            poller.register(fd, select.POLLIN)
    if idle_s is None or idle_s * 1000 > _LONGEST_MS:
        return {fd for fd, _ in poller.poll()}
    return {fd for fd, _ in poller.poll(idle_s * 1000)}


def _rehearse(inherited: Inherited) -> None:
    """Take a start that has no effect, so that the pages which the true one writes to are copied by then."""
    header, body = rehearsal.message()
    ours, theirs = lines.socket_pair()
    with ours, theirs:
        standard = lines.open_standard()
        defaults = {"multiprocessing": None, "bequest": None}
        notes = {"standard": standard, "method": "forkserver", "defaults": defaults, "answer": False}
        lines.send(ours, header, notes, body, [inherited.parent, *standard])
        received: Any = lines.receive(theirs, inherited.buffer)
    header, notes, body, fds = _take_over(received)
    os.close(fds[0])
    child.share_tracker(None)
    child._open(header, notes, body)
    rehearsal.settle()
    null = os.open(os.devnull, os.O_RDONLY)  # as a process that begins does, for its standard input
    with open(null, encoding="utf-8", closefd=False):
        os.close(null)


def _start(line: socket.socket, inherited: Inherited, received: Any) -> int:
    if inherited.place is not None:
        inherited.started[inherited.place] = 1
    inherited.started.close()
    for number, handler in inherited.handlers.items():
        _signal.signal(number, handler)
    if inherited.template is not None:
        os.close(inherited.template)
    header, notes, body, fds = _take_over(received)
    child.share_tracker(fds[0])
    child.ReceivedFd.received = fds[1:]

    def answer(learned: list[str]) -> None:
        with line:
            if learned or notes["answer"]:
                lines.tell(line, b"A" + marshal.dumps(_as_many_as_fit(learned)))

    return child.begin(lambda: (header, notes, body), inherited.parent, answer)


def _as_many_as_fit(names: list[str]) -> list[str]:
    """Return the first of the names, as many as one word to the parent may have; the rest are told later."""
    room = lines.WORD_BYTES - 64
    for count, name in enumerate(names):
        room -= len(name) + 8  # marshal's own share
        if room < 0:
            return names[:count]
    return names


def _take_over(received: Any) -> Any:
    """Make the standard streams those that came with a start; return the start with the other descriptors."""
    header, notes, body, (tracker, *fds) = received
    given = notes["standard"]
    for number in range(lines.STANDARD):
        _take_standard(number, fds.pop(0) if number in given else None)
    return header, notes, body, [tracker, *fds]


def _take_standard(number: int, given: int | None) -> None:
    if given is not None:
        os.dup2(given, number)
        os.close(given)
    else:  # closed in the parent
        os.close(number)
