"""How a parent follows a child that it started: its exit code, signals to it, and its answer.

    StartedPopen: pack -> _begin (by start method) -> poll / wait / signals -> returncode

One class holds what `spawn` and `template` share. It never blocks on a child except in `wait` and
`await_answer`, and reports every death, whatever killed the child and whenever.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from multiprocessing import context, popen_fork, process
from multiprocessing import util as _util

from bequest.errors import CarryError
from bequest.launch import exiting, handoff, pidfd, tracker
from bequest.launch.watched import watching

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from bequest.carry.start import Parcel

util: Any = _util  # private names of it are used: the same in all versions


class StartedPopen(popen_fork.Popen):
    """A child that was given a parcel. One instance belongs to the process that made it; thread-safe.

    Attributes:
        pid: Process id.
        sentinel: Readable exactly when the child has ended; owned by this object.
        returncode: None until the end has been seen by `poll` or `wait`.
    """

    method: ClassVar[str]
    DupFd: ClassVar[Any]

    def __init__(self, process_obj: Any, *, strict: bool = False, main: str = "replay") -> None:
        self._strict, self._main = strict, main
        self._owner_pid = os.getpid()
        # One reader at a time of what the child and its reaper say; and a signal handler may ask meanwhile.
        self._lock = threading.RLock()
        self._gifts: list[int] = []  # duplicates that travel; ours until the child has been started
        self._keep: list[object] | None = None
        self._pidfd: int | None = None
        try:
            super().__init__(process_obj)
        except CarryError as error:
            # From here on it says all: how the message was being packed tells the user nothing.
            raise error.with_traceback(None) from error.__cause__

    # What the pickler asks for while this start is in force

    def duplicate_for_child(self, fd: int) -> int:
        """Take a duplicate of `fd` along and return what `DupFd` needs to find it in the child.

        `fd` stays the caller's and may be closed at once.
        """
        self._gifts.append(os.dup(fd))
        return self._name_of_gift()

    def count_gifts(self) -> int:
        """Return how many duplicates have been taken along so far."""
        return len(self._gifts)

    def give_up_gifts(self, first: int = 0) -> None:
        """Close the duplicates taken along from the one at `first` on.

        The message that they belong to is packed anew, or has failed; or the start is over.
        """
        util.close_fds(*self._gifts[first:])
        del self._gifts[first:]

    def _name_of_gift(self) -> int:
        raise NotImplementedError

    # Start

    def _launch(self, process_obj: Any) -> None:
        tracker.hush()
        exiting.ensure()
        try:
            watcher = watching.watcher
            observer = None if watcher is None else watcher.starting(process_obj, self)
            parcel = self._pack(process_obj, observer)
            notes = self._notes(parcel)
            if watcher is not None:
                watcher.packed(process_obj, self, parcel)
            self._begin(parcel, notes)
            if watcher is not None:
                head = handoff.encode(parcel.header, notes, b"")
                watcher.started(process_obj, self, parcel, sum(memoryview(part).nbytes for part in head))
        finally:
            self.give_up_gifts()
        if parcel.keep:
            self._keep = parcel.keep
        process_obj.left_behind = parcel.left_behind

    def _notes(self, parcel: Parcel) -> dict[str, Any]:
        return {"method": self.method, "defaults": _default_methods(), "answer": bool(parcel.keep)}

    @classmethod
    def rehearse(
        cls, process_obj: Any, *, strict: bool, main: str, observer: Any
    ) -> tuple[Parcel, dict[str, Any]]:
        """Pack as a start would, and start nothing; return the parcel and the notes beside it.

        Args:
            process_obj: Not started yet.
            strict: As of a context.
            main: As of a context.
            observer: As in `carry.pickler.pack`.

        Raises:
            CarryError: As a start would. Nothing is left open in any case.
        """
        popen = cls.__new__(cls)
        popen._strict, popen._main, popen._gifts = strict, main, []
        try:
            parcel = popen._pack(process_obj, observer)
            return parcel, popen._notes(parcel)
        finally:
            popen.give_up_gifts()

    def _pack(self, process_obj: Any, observer: Any = None) -> Parcel:
        from bequest.carry import start

        if getattr(process.current_process(), "_inheriting", False):
            from multiprocessing import spawn

            spawn._check_not_importing_main()  # type: ignore[attr-defined]  # raises the usual explanation
        outer = context.get_spawning_popen()
        context.set_spawning_popen(self)  # type: ignore[arg-type]  # any object with DupFd will do
        try:
            options = start.StartOptions(self.method, self._strict, self._main)
            return start.pack(process_obj, context=options, observer=observer)
        finally:
            context.set_spawning_popen(outer)

    def _begin(self, parcel: Parcel, notes: dict[str, Any]) -> None:
        """Start the child; set `pid`, `sentinel` and `finalizer`. Leaves nothing behind where it raises."""
        raise NotImplementedError

    # The end

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, or None while the child runs; with flag 0, wait for its end."""
        if self.returncode is None:
            if os.getpid() != self._owner_pid:
                return self._poll_from_elsewhere()
            if flag != os.WNOHANG:
                return self.wait()
            with self._lock:
                self._look()
            if self.returncode is not None:
                self._keep = None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code once the child has ended, or None when `timeout` seconds have passed.

        None at once in a forked child of the owner where there are no pidfds: nothing tells it of the end.
        """
        _end_of_starts()
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            news = self._news_fd() if os.getpid() == self._owner_pid else self._pidfd
            if news is None:
                return None
            pidfd.is_ready(news, left)
        return code

    def await_answer(self, timeout: float | None = None) -> None:
        """Wait until the child holds all that was kept for it or has ended, at most `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._keep is not None and self.poll() is None and self._keep is not None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            self._await_news(left)

    def _look(self) -> None:
        """Take in, without waiting, what has become known; set `returncode` at the end. Holds the lock."""
        raise NotImplementedError

    def _news_fd(self) -> int:
        """The descriptor that is readable when `_look` has something new about the child's end."""
        return self.sentinel

    def _await_news(self, timeout_s: float | None) -> None:
        """Wait until `_look` may find an answer or an end."""
        pidfd.is_ready(self._news_fd(), timeout_s)

    def _poll_from_elsewhere(self) -> int | None:
        # In a forked child of the owner. What the child and its reaper say is the owner's to read: reading
        # here would take it away. A pidfd tells everyone.
        if self._pidfd is None or not pidfd.is_ready(self._pidfd):
            return None
        return pidfd.exit_code(self._pidfd)

    def _send_signal(self, sig: int) -> None:
        if self.returncode is not None:
            return
        if self._pidfd is not None:
            pidfd.send_signal(self._pidfd, sig)
        else:
            super()._send_signal(sig)  # type: ignore[misc]  # private: by number

    def interrupt(self) -> None:
        """Send SIGINT (the standard class has this from 3.14 on)."""
        import signal

        self._send_signal(signal.SIGINT)


def _end_of_starts() -> None:
    """Give up what was kept for further starts: who waits for a child has started the others."""
    copies = sys.modules.get("bequest.carry.copies")
    if copies is not None:
        copies.between_starts.forget()
    template = sys.modules.get("bequest.launch.template")
    if template is not None:
        template.templates.rest()


def _default_methods() -> dict[str, str | None]:
    """The start methods set in this process, by module; a child takes them over as its own defaults."""
    standard = context._default_context.get_start_method(allow_none=True)
    return {"multiprocessing": standard, "bequest": handoff.chosen.method}
