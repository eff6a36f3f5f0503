"""Wait for many descriptors at once, and be woken up by other threads.

    watch(fd), watch_room(fd) -> wait(timeout) -> (fd, whether there is room to write)

epoll where there is one: what another thread changes counts at once, in the midst of a wait. Elsewhere
`poll`, which is woken up for a change.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from typing import Any

_LONG_S = 0.5
_MOST_EVENTS = 256


class Poller:
    """What one thread waits for.

    Attributes:
        sleeps_long: Whether that thread is in a wait that may be long, and has to be woken up for what is not
            told by a descriptor.
    """

    def __init__(self) -> None:
        self._has_epoll = hasattr(select, "epoll")
        self._poll: Any = select.epoll() if self._has_epoll else select.poll()
        self._in = select.EPOLLIN if self._has_epoll else select.POLLIN
        self._out = select.EPOLLOUT if self._has_epoll else select.POLLOUT
        self._wake_out, self._wake_in = _bell()
        self._poll.register(self._wake_out, self._in)
        self.sleeps_long = False
        self._is_woken = False
        self._is_closed = False

    def watch(self, fd: int) -> None:
        """Wait for `fd` to have something to read, or to end."""
        self._poll.register(fd, self._in)
        self._changed()

    def watch_room(self, fd: int, wanted: bool) -> None:
        """Wait, or no longer wait, for `fd` to have room to write as well."""
        try:
            self._poll.modify(fd, self._in | self._out if wanted else self._in)
        except (FileNotFoundError, KeyError):  # it has been forgotten: its worker has ended
            return
        self._changed()

    def forget(self, fd: int) -> None:
        """Wait for `fd` no longer; nothing happens where nobody waits for it."""
        try:
            self._poll.unregister(fd)
        except (FileNotFoundError, KeyError, ValueError, OSError):  # closed, or forgotten before
            return

    def wake(self) -> None:
        """Let `wait` return, now or when it is next called."""
        if not self._is_woken and not self._is_closed:
            self._is_woken = True
            try:
                os.write(self._wake_in, b"\1\0\0\0\0\0\0\0")
            except (BlockingIOError, OSError):  # it rings already, or nobody listens any more
                return

    def wait(self, timeout_s: float | None) -> Iterator[tuple[int, bool]]:
        """Wait at most `timeout_s` seconds; yield each descriptor with whether there is room to write.

        One that can be read and written is yielded for both.
        """
        self.sleeps_long = timeout_s is None or timeout_s > _LONG_S
        if self._is_woken:
            timeout_s = 0
        if self._has_epoll:
            events = self._poll.poll(timeout_s, _MOST_EVENTS)
        else:
            events = self._poll.poll(None if timeout_s is None else timeout_s * 1000)
        self.sleeps_long = False
        for fd, mask in events:
            if fd == self._wake_out:
                self._is_woken = False
                os.read(self._wake_out, 4096)
                continue
            if mask & self._out:
                yield fd, True
            if mask & ~self._out:
                yield fd, False

    def close(self) -> None:
        """Give the descriptors back."""
        self._is_closed = True
        if self._has_epoll:
            self._poll.close()
        os.close(self._wake_out)
        if self._wake_in != self._wake_out:
            os.close(self._wake_in)

    def _changed(self) -> None:
        if not self._has_epoll:
            self.wake()


def _bell() -> tuple[int, int]:
    """Return a descriptor to wait for and one to write to: one and the same, where the system has it."""
    if hasattr(os, "eventfd"):
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        return fd, fd
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    return reading, writing
