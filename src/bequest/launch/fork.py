"""Start a child by forking this very process: the standard library's way.

    os.fork -> Process._bootstrap

Nothing is packed, so nothing is left behind.
"""

from __future__ import annotations

import os
import threading
from multiprocessing import popen_fork

from bequest.launch import handoff
from bequest.launch.watched import watching

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Popen(popen_fork.Popen):
    """A forked child, which has this process's resource tracker.

    A child that made shared memory before its parent had a tracker would start its own, which removes the
    memory when the child ends, though the parent uses it (python/cpython#82300).

    Any thread may wait for the child. In the standard library one that finds it reaped by another thread,
    which has not noted the exit code yet, takes it for one that runs.
    """

    def __init__(self, process_obj: Any) -> None:
        self._reaping = threading.RLock()  # a signal handler may ask meanwhile
        super().__init__(process_obj)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, or None while the child runs; with flag 0, wait for its end."""
        if flag != os.WNOHANG and self.returncode is None:
            self._await_end(flag)
        with self._reaping:
            return super().poll()

    def _await_end(self, flag: int) -> None:
        """Wait for the end without reaping, where the system can: whoever reaps has the lock."""
        if not hasattr(os, "waitid"):
            super().poll(flag)
            return
        try:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:  # it has been reaped, here or by other code
            return

    def _launch(self, process_obj: Any) -> None:
        handoff.tracker_fd()
        super()._launch(process_obj)  # type: ignore[misc]  # private, the same in all versions
        if watching.watcher is not None:
            watching.watcher.forked(process_obj, self)
