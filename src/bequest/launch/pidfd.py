"""Hold on to one process by a descriptor, so that its number may be reused and nobody is mistaken for it.

    pid -> open_pidfd -> descriptor: readable once the process has ended; takes signals; may tell the exit
    code

Linux only at heart. Where the kernel or the platform has none of it, `open_pidfd` returns None and callers
fall back to numbers and pipes. Nothing here waits for or reaps a process.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct

# linux/pidfd.h, Linux 6.15: _IOWR(0xFF, 11, struct pidfd_info) with the first published size of that
# structure.
_INFO_BYTES = 64
_PIDFD_GET_INFO = (3 << 30) | (_INFO_BYTES << 16) | (0xFF << 8) | 11
_PIDFD_INFO_EXIT = 1 << 3
_EXIT_STATUS_OFFSET = 60

UNKNOWN_EXIT = 255
"""The exit code of a process whose status is lost; the number that the standard fork server uses."""


def open_pidfd(pid: int) -> int | None:
    """Return a descriptor of process `pid`, owned by the caller, not inheritable; None where there are none.

    Raises:
        ProcessLookupError: There is no such process.
    """
    opener = getattr(os, "pidfd_open", None)
    if opener is None:
        return None
    try:
        return int(opener(pid))
    except OSError as error:
        if error.errno in (
            errno.ENOSYS,
            errno.EPERM,
            errno.EINVAL,
        ):  # old kernel, or a sandbox that forbids it
            return None
        raise


def is_ready(fd: int, timeout_s: float | None = 0.0) -> bool:
    """Tell whether `fd` is readable or at its end, waiting at most `timeout_s` seconds (None: for ever)."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000))


def send_signal(fd: int, number: int) -> None:
    """Send signal `number` to the process of `fd`; nothing happens where it has ended."""
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        pass


def exit_code(fd: int) -> int:
    """Return how the ended and reaped process of `fd` exited, as `Process.exitcode` says it.

    Anyone may ask, not only the parent; Linux 6.15 or later. `UNKNOWN_EXIT` where the kernel does not tell.
    """
    import fcntl

    info = bytearray(struct.pack("<Q", _PIDFD_INFO_EXIT).ljust(_INFO_BYTES, b"\0"))
    try:
        fcntl.ioctl(fd, _PIDFD_GET_INFO, info)
    except OSError:  # an older kernel does not know the request
        return UNKNOWN_EXIT
    if (
        not struct.unpack_from("<Q", info)[0] & _PIDFD_INFO_EXIT
    ):  # ended, but not yet reaped by its own parent
        return UNKNOWN_EXIT
    return os.waitstatus_to_exitcode(struct.unpack_from("<i", info, _EXIT_STATUS_OFFSET)[0])


def started_ticks(pid: int) -> int | None:
    """Return when process `pid` began, in clock ticks since boot; None where it is gone, or without /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The name, in parentheses, may hold anything; start time is field 22, the 20th after it.
            return int(stat.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return None
