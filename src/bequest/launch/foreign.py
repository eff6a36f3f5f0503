"""Follow a process that is not this process's child, by pidfd: what a handle of a started process has.

    pid, start time, exit code if known -> ForeignPopen -> poll / wait / signals

It starts and reaps nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing import popen_fork, util

from bequest.launch import pidfd


class ForeignPopen(popen_fork.Popen):
    """Follows a process that is not this process's child.

    `poll` returns the exit code as far as anyone can know it: the one known when the handle was packed, None
    while the process runs, and after its end what the kernel tells to all (Linux 6.15) or else 255, the
    number that the standard fork server uses for a status that is lost.
    """

    method = "foreign"

    def __init__(self, pid: int, began: int | None, code: int | None) -> None:
        self.pid, self.returncode = pid, code
        self.finalizer = None
        self._pidfd: int | None = None
        self._lock = threading.RLock()  # a signal handler may ask in the middle of an answer
        if code is None:
            self._hold_on(began)
        self.sentinel = self._open_sentinel()

    def _hold_on(self, began: int | None) -> None:
        try:
            fd = pidfd.open_pidfd(self.pid)
        except ProcessLookupError:
            fd = None
        # Asked for after the descriptor was opened: if the id had been given to another process by then, that
        # one began later; if it is given away from here on, the descriptor still means the first.
        if began is None or pidfd.started_ticks(self.pid) != began:
            if fd is not None:
                os.close(fd)
            self.returncode = pidfd.UNKNOWN_EXIT
            return
        self._pidfd = fd
        if fd is not None:
            self.finalizer = util.Finalize(self, os.close, (fd,))

    def _open_sentinel(self) -> int:
        """Return a descriptor that is readable when the process has ended; -1 where nothing tells that."""
        if self._pidfd is not None or self.returncode is None:
            return self._pidfd if self._pidfd is not None else -1
        sentinel, other = os.pipe()
        os.close(other)  # from here on the first is at its end
        self.finalizer = util.Finalize(self, os.close, (sentinel,))
        return sentinel

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, or None while the process runs; with flag 0, wait for its end."""
        if flag != os.WNOHANG:
            return self.wait()
        with self._lock:
            if self.returncode is None and self._pidfd is not None and pidfd.is_ready(self._pidfd):
                self.returncode = pidfd.exit_code(self._pidfd)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code once the process has ended, or None when `timeout` seconds have passed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None and self._pidfd is not None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            pidfd.is_ready(self._pidfd, left)
        return code

    def _send_signal(self, sig: int) -> None:
        if self.returncode is None and self._pidfd is not None:
            pidfd.send_signal(self._pidfd, sig)

    def interrupt(self) -> None:
        """Send SIGINT (the standard class has this from 3.14 on)."""
        self._send_signal(signal.SIGINT)
