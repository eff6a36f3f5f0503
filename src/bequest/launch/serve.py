"""The template process itself: a clean interpreter that imports what children will need, and forks them.

    channel -> prepare | fork | retire;   fork -> child, on its line (`forked`);   child ends -> "S" exit code

It holds one thread, checked with the kernel before each fork, and no state of the program but imported
modules. Children may be forked ahead of their start, when there is nothing else to do. It leaves when its
parent does. The parent's side is `template`, the words are those of `lines`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed does not know it; `signal`'s enums are dear
import importlib
import itertools
import marshal
import mmap
import os
import select
import signal
import socket
import sys
import warnings

# the tracker: children will need it
from multiprocessing import process, resource_tracker  # noqa: F401
from multiprocessing import util as _util

from bequest.carry import rehearsal
from bequest.launch import forked, lines
from bequest.launch.pidfd import open_pidfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

util: Any = _util  # private names of it are used: the same in all versions

_LEISURE_MS = 5
"""A child is forked ahead when nothing has been asked for so long, or another one has ended."""


def main(channel_fd: int, watch_fd: int) -> NoReturn:
    """Be a template process; does not return. `watch_fd` becomes readable when the parent ends."""
    for fd in range(lines.STANDARD):
        _ensure_open(fd)
    for fd in (channel_fd, watch_fd):
        os.set_inheritable(fd, False)
    _raise_descriptor_limit()
    server = _Server(socket.socket(fileno=channel_fd), watch_fd)
    rehearsal.rehearse()
    server.serve()


def _raise_descriptor_limit() -> None:
    """Have room for a line to every child, however small the program's own limit is: a start brings that."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # more than the system gives now
        pass


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
        self._own_pidfd = open_pidfd(os.getpid())
        self._lines: dict[int, int] = {}  # of each living child: where its exit code goes
        # Children forked ahead, each with its place in memory that it shares with us: 1 once it has started.
        self._started = mmap.mmap(-1, mmap.PAGESIZE)
        self._waiting: dict[int, int] = {}
        self._places = itertools.cycle(range(mmap.PAGESIZE))
        self._ahead: dict[
            int, float
        ] = {}  # lines of children to be forked ahead, and how long each will wait
        self._at_leisure = False
        self._poller = select.poll()
        self._retired = False
        self._unfit: tuple[str | None] | None = None  # why no child can be forked, and from what module on
        self._buffer = bytearray(lines.MOST_BYTES)
        self._wake_r, self._wake_w = os.pipe()
        for fd in (self._wake_r, self._wake_w):
            os.set_blocking(fd, False)

    def serve(self) -> NoReturn:
        """Serve requests until the parent's end of the channel closes, or it has ended."""
        util._close_stdin()
        self._handlers: dict[int, Any] = {
            signal.SIGCHLD: _signal.signal(signal.SIGCHLD, _wake_up),
            signal.SIGINT: _signal.signal(
                signal.SIGINT, _signal.SIG_IGN
            ),  # ^C is for the program, not for us
        }
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        # The parent blocked it until here, or ^C could end us before we could ignore it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        for fd in (self._wake_r, self._watch_fd, self._channel.fileno()):
            self._poller.register(fd, select.POLLIN)
        while not (self._retired and not self._lines):
            ready = {fd for fd, _ in self._poller.poll(self._patience_ms())}
            if self._wake_r in ready:
                self._reap()
            if self._watch_fd in ready or (self._channel.fileno() in ready and not self._receive()):
                break
            for line_fd in [line_fd for line_fd in self._ahead if line_fd in ready]:
                self._fork_ahead(line_fd)  # its start has come, or it has been given up
            self._at_leisure = not ready
            if self._ahead and (not ready or (ready == {self._wake_r} and self._is_idle())):
                self._fork_ahead(next(iter(self._ahead)))
        self._end_waiting()
        util._flush_std_streams()
        os._exit(0)  # no exit callbacks: those of preloaded modules are the program's, not ours

    def _patience_ms(self) -> int | None:
        """Return how long to wait for what is to be done; None for as long as it takes."""
        if not self._ahead:
            return None
        return 0 if self._at_leisure else _LEISURE_MS

    def _is_idle(self) -> bool:
        """Tell whether there is time for a fork when a child has ended: it was not one of several."""
        waiting = sum(not self._started[place] for place in self._waiting.values())
        return len(self._ahead) == 1 or len(self._lines) == waiting

    def _reap(self) -> None:
        os.read(self._wake_r, 4096)
        while self._lines:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._lines:
                self._waiting.pop(pid, None)
                code = os.waitstatus_to_exitcode(status)
                _say(self._lines.pop(pid), lines.ENDED.pack(b"S", pid, code))

    def _end_waiting(self) -> None:
        """End a child that waits for its start: nobody else may reap it; not every container's init does."""
        for pid, place in self._waiting.items():
            if not self._started[place]:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    # Requests

    def _receive(self) -> bool:
        """Handle one message; return whether the channel is still open."""
        received = lines.receive(self._channel, self._buffer)
        if received is None:
            return False
        header, notes, _, fds = received
        kind = notes["request"]
        if kind == "retire":
            self._retired = True
            self._drop_ahead()
        elif kind == "prepare":
            self._prepare(header)
        else:
            self._import(notes["imports"], "ignore")
            self._import(notes["preload"], notes["on_error"])
            if notes["ahead"] is None:
                self._fork(fds[0], None)
            for line_fd in fds if notes["ahead"] is not None else ():
                self._ahead[line_fd] = notes["ahead"]
                self._poller.register(line_fd, select.POLLIN)
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
            rehearsal.settle()
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
        if names:
            util._flush_std_streams()  # what an import printed is not the children's
            rehearsal.settle()

    def _check_threads(self, culprit: str | None) -> None:
        if _thread_count() > 1:
            _end_threads_that_prepare_for_forks()
            if _thread_count() > 1:
                self._unfit = (culprit,)

    # Children

    def _drop_ahead(self) -> None:
        for line_fd in self._ahead:
            self._poller.unregister(line_fd)
            os.close(line_fd)
        self._ahead.clear()

    def _fork_ahead(self, line_fd: int) -> None:
        """Fork a child that has been asked for ahead, unless its parent has given it up."""
        self._poller.unregister(line_fd)
        idle_s = self._ahead.pop(line_fd)
        if _is_hung_up(line_fd):
            os.close(line_fd)
        else:
            self._fork(line_fd, idle_s)

    def _fork(self, line_fd: int, idle_s: float | None) -> None:
        if self._unfit is None and _thread_count() > 1:
            self._unfit = (None,)
        if self._unfit is not None:
            _say(line_fd, b"T" + marshal.dumps(self._unfit[0]))
            return
        place = None if idle_s is None else self._free_place()
        try:
            pid = os.fork()
        except OSError as error:  # no more processes, no more memory: the starter is told
            _say(line_fd, b"E" + marshal.dumps((error.errno, error.strerror)))
            return
        if pid == 0:
            forked.run(line_fd, self._inherited(place), idle_s)
        self._lines[pid] = line_fd
        if place is not None:
            self._waiting[pid] = place

    def _free_place(self) -> int:
        """Return the place for one more child that waits; those that have started need theirs no longer."""
        self._waiting = {pid: place for pid, place in self._waiting.items() if not self._started[place]}
        taken = set(self._waiting.values())
        place = next(place for place in self._places if place not in taken)
        self._started[place] = 0
        return place

    def _inherited(self, place: int | None) -> forked.Inherited:
        others = (*self._lines.values(), *self._ahead)
        not_ours = (self._channel.detach(), self._wake_r, self._wake_w, *others)
        return forked.Inherited(
            handlers=self._handlers,
            buffer=self._buffer,
            not_ours=not_ours,
            parent=self._watch_fd,
            template=self._own_pidfd,
            started=self._started,
            place=place,
        )


class _Inheriting:
    """While it lasts, starting a process raises: the standard check on modules that do so when imported."""

    def __enter__(self) -> None:
        vars(process.current_process())["_inheriting"] = True

    def __exit__(self, *_exc: object) -> None:
        del vars(process.current_process())["_inheriting"]


def _wake_up(_number: int, _frame: object) -> None:
    """Let SIGCHLD reach the wakeup descriptor, which an ignored signal does not."""


def _say(line_fd: int, message: bytes) -> None:
    """Send a last word on a line, as `lines.tell` does, and close it."""
    try:
        os.write(line_fd, message)  # to make a socket object takes longer than to use it
    except OSError:
        pass
    finally:
        os.close(line_fd)


def _is_hung_up(line_fd: int) -> bool:
    poller = select.poll()
    poller.register(line_fd, 0)  # what is told without being asked for: POLLHUP
    return bool(poller.poll(0))


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
