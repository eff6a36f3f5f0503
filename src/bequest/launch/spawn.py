"""Start a child in a new interpreter.

    code, message -> anonymous file, inherited -> a new interpreter that runs lean.spawned(...)

Portable: without pidfd, pipes tell either side that the other has ended. The parent does not wait for the
child.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed does not know it; `signal`'s enums are dear
import os
import signal
import threading
from contextlib import contextmanager
from multiprocessing import util as _util

from bequest.launch import bundle, handoff, interpreter, pidfd
from bequest.launch.child import InheritedFd
from bequest.launch.follow import StartedPopen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from bequest.carry.start import Parcel

util: Any = _util  # private names of it are used: the same in all versions


class Popen(StartedPopen):
    """A spawned child: this process's own, so it is reaped here."""

    method = "spawn"
    DupFd = InheritedFd

    def _name_of_gift(self) -> int:
        return self._gifts[-1]

    def _begin(self, parcel: Parcel, notes: dict[str, Any]) -> None:
        ours: list[int] = []  # to be closed with this object, or now where the start fails
        theirs: list[int] = []
        try:
            self._spawn(parcel, notes, ours, theirs)
            self.finalizer = util.Finalize(self, util.close_fds, ours)
        except BaseException:
            self._undo()
            util.close_fds(*ours)
            raise
        finally:
            util.close_fds(*theirs)

    def _undo(self) -> None:
        """Kill a child whose start is called off (^C), and wait for it: nobody else ever will."""
        if getattr(self, "pid", None) is None or self.returncode is not None:
            return
        self._send_signal(signal.SIGKILL)
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:  # somebody waits for all children
            pass

    def _spawn(self, parcel: Parcel, notes: dict[str, Any], ours: list[int], theirs: list[int]) -> None:
        tracker = handoff.tracker_fd()
        code = bundle.packed()
        parts = [len(code).to_bytes(8, "little"), code, *handoff.encode(parcel.header, notes, parcel.body)]
        message = handoff.store(parts)
        theirs.append(message)
        watch, held_open = handoff.watch_this_process()
        theirs.append(watch)
        if held_open is not None:
            ours.append(held_open)
        answer = None
        if notes["answer"]:
            self._answer_fd, answer = os.pipe()
            os.set_blocking(self._answer_fd, False)
            ours.append(self._answer_fd)
            theirs.append(answer)
        if held_open is not None:  # no pidfds here: the child's end of a pipe closes with the child
            self.sentinel, child_end = os.pipe()
            ours.append(self.sentinel)
            theirs.append(child_end)
        call = f"lean.spawned({message}, {tracker}, {watch}, {answer})"
        # The child has the mask too, until it sets the one that the message brings.
        with interrupts_held_back():
            self.pid = interpreter.start(call, [*theirs, tracker, *self._gifts])
            if held_open is None:
                self.sentinel = self._open_sentinel(ours)

    def _open_sentinel(self, ours: list[int]) -> int:
        try:
            self._pidfd = pidfd.open_pidfd(self.pid)
        except ProcessLookupError:  # ended and reaped already: SIGCHLD is ignored, or somebody waits for all
            self.returncode = pidfd.UNKNOWN_EXIT
        sentinel = self._pidfd
        if sentinel is None:
            sentinel, other = os.pipe()
            os.close(other)
        ours.append(sentinel)
        return sentinel

    def _look(self) -> None:
        if self.returncode is not None:
            return
        self._look_for_answer()
        try:
            pid, status = os.waitpid(self.pid, 0 if self._has_closed_sentinel() else os.WNOHANG)
        except ChildProcessError:
            # Somebody else waited for our child (os.wait, SIGCHLD ignored). Its end is still to be seen.
            if self._pidfd is None:
                self.returncode = pidfd.UNKNOWN_EXIT
            elif pidfd.is_ready(self._pidfd):
                self.returncode = pidfd.exit_code(self._pidfd)
            return
        if pid == self.pid:
            self.returncode = os.waitstatus_to_exitcode(status)

    def _has_closed_sentinel(self) -> bool:
        # A pipe closes a moment before its process can be waited for; a pidfd does not.
        return self._pidfd is None and pidfd.is_ready(self.sentinel)

    def _look_for_answer(self) -> None:
        if self._keep is None:
            return
        try:
            os.read(self._answer_fd, 1)
        except BlockingIOError:
            return
        self._keep = None  # the answer, or EOF: the child holds it all, or never will

    def _await_news(self, timeout_s: float | None) -> None:
        if self._keep is None:
            super()._await_news(timeout_s)
        else:
            pidfd.is_ready(self._answer_fd, timeout_s)  # EOF when the child ends


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Let ^C wait for the end of the block, so that a process that is started in it is known afterwards.

    The mask is what that process inherits. It alone would not do: the system then gives the signal to another
    thread (of a library, perhaps), for which Python runs the handler in the main thread all the same.
    """
    if not hasattr(_signal, "pthread_sigmask"):  # not a POSIX system
        yield
        return
    came: list[tuple[int, Any]] = []
    handler = _signal.getsignal(_signal.SIGINT)
    is_ours = callable(handler) and threading.current_thread() is threading.main_thread()
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    try:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGINT])
        if is_ours:
            _signal.signal(_signal.SIGINT, lambda number, frame: came.append((number, frame)))
        yield
    finally:
        try:
            if is_ours:
                _signal.signal(_signal.SIGINT, handler)
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)  # what has come meanwhile is handled here
    if came and callable(handler):
        handler(*came[0])
