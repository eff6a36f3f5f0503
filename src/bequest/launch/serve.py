"""The template process itself: a clean interpreter that imports what children will need, and forks them.

    channel -> prepare | fork | retire;   fork -> child: "P" pid, then its work;   child ends -> "S" exit code

It holds one thread, checked with the kernel before each fork, and no state of the program but imported
modules. It leaves when its parent does. The parent's side is `template`.
"""

from __future__ import annotations

import atexit
import importlib
import marshal
import os
import select
import signal
import socket
import sys
import warnings
from array import array

# the tracker: children will need it
from multiprocessing import process, resource_tracker  # noqa: F401
from multiprocessing import util as _util
from struct import Struct

from bequest.launch import child, handoff
from bequest.launch.pidfd import open_pidfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

util: Any = _util  # private names of it are used: the same in all versions

BEGUN = Struct("<cq")
"""`P` and pid, with a pidfd beside it: the child itself says so, before anything of the program runs."""

ENDED = Struct("<cqq")
"""`S`, pid and exit code: the template has reaped the child."""

MOST_DESCRIPTORS = 250  # in one message; Linux takes 253 (SCM_MAX_FD)
MOST_BYTES = 1 << 17
INLINE_BYTES = 1 << 16
"""The largest message that travels within the request; a larger one is in a file of its own."""

_STANDARD = 3  # stdin, stdout, stderr


def main(channel_fd: int, watch_fd: int) -> NoReturn:
    """Be a template process; does not return. `watch_fd` becomes readable when the parent ends."""
    for fd in range(_STANDARD):
        _ensure_open(fd)
    for fd in (channel_fd, watch_fd):
        os.set_inheritable(fd, False)
    _Server(socket.socket(fileno=channel_fd), watch_fd).serve()


def _ensure_open(fd: int) -> None:
    # A descriptor that arrives must not get one of these numbers: it would be overwritten in the child.
    try:
        os.fstat(fd)
    except OSError:
        while os.open(os.devnull, os.O_RDWR) < fd:
            pass


class _Server:
    """The template's loop and all its state; a child takes what it needs from it and forgets the rest."""

    def __init__(self, channel: socket.socket, watch_fd: int) -> None:
        self._channel, self._watch_fd = channel, watch_fd
        self._status: dict[int, int] = {}  # of each living child: where its exit code goes
        self._retired = False
        self._unfit: tuple[str | None] | None = None  # why no child can be forked, and from what module on
        self._extra: list[int] = []  # descriptors that came ahead of the request that they belong to
        self._buffer = bytearray(MOST_BYTES)
        self._wake_r, self._wake_w = os.pipe()
        for fd in (self._wake_r, self._wake_w):
            os.set_blocking(fd, False)

    def serve(self) -> NoReturn:
        """Serve requests until the parent's end of the channel closes, or it has ended."""
        util._close_stdin()
        self._handlers: dict[int, Any] = {
            signal.SIGCHLD: signal.signal(signal.SIGCHLD, _wake_up),
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),  # ^C is for the program, not for us
        }
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        # The parent blocked it until here, or ^C could end us before we could ignore it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        poller = select.poll()
        for fd in (self._wake_r, self._watch_fd, self._channel.fileno()):
            poller.register(fd, select.POLLIN)
        while not (self._retired and not self._status):
            ready = {fd for fd, _ in poller.poll()}
            if self._wake_r in ready:
                self._reap()
            if self._watch_fd in ready or (self._channel.fileno() in ready and not self._receive()):
                break
        util._flush_std_streams()
        os._exit(0)  # no exit callbacks: those of preloaded modules are the program's, not ours

    def _reap(self) -> None:
        try:
            while os.read(self._wake_r, 4096):
                pass
        except BlockingIOError:
            pass
        while self._status:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._status:
                code = os.waitstatus_to_exitcode(status)
                _say(self._status.pop(pid), ENDED.pack(b"S", pid, code))

    # Requests

    def _receive(self) -> bool:
        """Handle one message; return whether the channel is still open."""
        room = socket.CMSG_SPACE(MOST_DESCRIPTORS * array("i").itemsize)
        size, ancillary, _, _ = self._channel.recvmsg_into([self._buffer], room, socket.MSG_CMSG_CLOEXEC)
        fds = _descriptors(ancillary)
        if size == 0:
            return False
        header, notes, body = handoff.decode(memoryview(self._buffer)[:size])
        kind = notes["request"]
        if kind == "more":
            self._extra += fds
        elif kind == "retire":
            self._retired = True
        elif kind == "prepare":
            if notes["stored"]:
                header, _, _ = handoff.decode(handoff.load(fds[0]))
            self._prepare(header)
        else:
            self._fork(header, notes, body, fds)
        return True

    def _prepare(self, template: dict[str, Any]) -> None:
        from bequest.carry import start

        try:
            with _Inheriting():
                start.prepare_template(template)
        # A child that does the same meets the same, and reports it where it belongs: in its own start.
        except BaseException:  # noqa: BLE001
            self._unfit = (None,)
        else:
            self._check_threads(None)
        util._flush_std_streams()  # what the main module printed is not the children's

    def _import(self, names: list[str], on_error: str) -> None:
        for name in names:
            if self._unfit is not None:
                return
            try:
                with _Inheriting():
                    importlib.import_module(name)
            except BaseException as error:  # a hint that cannot be followed; see `on_error`
                if on_error == "fail":
                    raise
                if on_error == "warn":
                    warnings.warn(f"Failed to preload module {name!r}: {error}", ImportWarning, stacklevel=1)
            self._check_threads(name)

    def _check_threads(self, culprit: str | None) -> None:
        if _thread_count() > 1:
            _end_threads_that_prepare_for_forks()
            if _thread_count() > 1:
                self._unfit = (culprit,)

    # Children

    def _fork(self, header: dict[str, Any], notes: dict[str, Any], body: memoryview, fds: list[int]) -> None:
        fds, self._extra = fds + self._extra, []
        status = fds[0]
        self._import(notes["imports"], "ignore")
        self._import(notes["preload"], notes["on_error"])
        if self._unfit is None and notes["imports"]:
            util._flush_std_streams()  # what an import printed is not the child's
        if self._unfit is None and _thread_count() > 1:
            self._unfit = (None,)
        if self._unfit is not None:
            _say(status, b"T" + marshal.dumps(self._unfit[0]))
            util.close_fds(*fds[1:])
            return
        try:
            pid = os.fork()
        except OSError as error:  # no more processes, no more memory: the starter is told
            _say(status, b"E" + marshal.dumps((error.errno, error.strerror)))
            util.close_fds(*fds[1:])
            return
        if pid == 0:
            self._be_child(header, notes, body, fds)
        self._status[pid] = status
        util.close_fds(*fds[1:])

    def _be_child(
        self, header: dict[str, Any], notes: dict[str, Any], body: memoryview, fds: list[int]
    ) -> NoReturn:
        code = 1
        try:
            status = self._settle_in(notes, fds)
            gifts = fds[notes["before_gifts"] :]
            message = gifts.pop(0) if notes["stored"] else None
            child.ReceivedFd.received = gifts

            def read() -> tuple[dict[str, Any], dict[str, Any], Any]:
                return (header, notes, body) if message is None else handoff.decode(handoff.load(message))

            def answer(learned: list[str]) -> None:
                with status:
                    if learned or notes["answer"]:
                        _tell(status, b"A" + marshal.dumps(learned))

            code = child.begin(read, self._watch_fd, answer)
        # The boundary of this process: the frames below are the template's.
        except BaseException:  # noqa: BLE001
            sys.excepthook(*sys.exc_info())
            util._flush_std_streams()
        finally:
            if child.FORKED_CHILDREN_RUN_ATEXIT:
                atexit._run_exitfuncs()
            os._exit(code)

    def _settle_in(self, notes: dict[str, Any], fds: list[int]) -> socket.socket:
        """Give up all that is the template's, take what is the child's, and say that the child is there."""
        status = socket.socket(fileno=fds[0])
        _say_begun(status)
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._channel.close()
        util.close_fds(self._wake_r, self._wake_w, *self._status.values())
        if child.FORKED_CHILDREN_RUN_ATEXIT:
            atexit._clear()
            atexit.register(util._exit_function)
        # Before the message is opened: what it brings has not seen a fork, and must not be told of one.
        util._finalizer_registry.clear()
        util._run_after_forkers()
        for number in range(_STANDARD):
            _take_standard(number, notes["standard"], fds[2:])
        child.share_tracker(fds[1])
        return status


class _Inheriting:
    """While it lasts, starting a process raises: the standard check on modules that do so when imported."""

    def __enter__(self) -> None:
        vars(process.current_process())["_inheriting"] = True

    def __exit__(self, *_exc: object) -> None:
        del vars(process.current_process())["_inheriting"]


def _wake_up(_number: int, _frame: object) -> None:
    """Let SIGCHLD reach the wakeup descriptor, which an ignored signal does not."""


def _say_begun(status: socket.socket) -> None:
    pidfd = open_pidfd(os.getpid())
    beside = [] if pidfd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [pidfd]))]
    try:
        status.sendmsg([BEGUN.pack(b"P", os.getpid())], beside)
    except OSError:  # start() was abandoned (^C): nobody will ever know of this child
        os._exit(1)
    if pidfd is not None:
        os.close(pidfd)


def _say(fd: int, message: bytes) -> None:
    with socket.socket(fileno=fd) as status:
        _tell(status, message)


def _tell(status: socket.socket, message: bytes) -> None:
    try:
        status.send(message)
    except OSError:  # the parent has closed its end: it gave the child up, or has ended
        pass


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def _take_standard(number: int, given: list[int], fds: list[int]) -> None:
    if number in given:
        fd = fds[given.index(number)]
        os.dup2(fd, number)
        os.close(fd)
    else:  # closed in the parent
        os.close(number)


def _thread_count() -> int:
    """Return the kernel's count of this process's threads, which knows of those that Python did not start."""
    try:
        return os.stat("/proc/self/task").st_nlink - 2  # a directory has one link for each entry, and two
    except OSError:  # no /proc: Python's own count has to do
        return len(sys._current_frames())


def _end_threads_that_prepare_for_forks() -> None:
    """Fork once for nothing: a library with a fork handler (OpenBLAS) ends its threads in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: "use of fork() may lead to deadlocks"
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
