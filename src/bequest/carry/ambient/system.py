"""What the kernel and the C library keep for a process, and a fork copies: environment, directory, limits ...

    parent: capture -> marshal-able values
    child:  restore, before anything else, in the order of `ADOPTERS`

A spawned child inherits nearly all of it; one forked from a template has it as it was when the template
started. So a child compares with its own and sets what differs. Descriptors are not dealt with here, nor
signals (`signals`).
"""

from __future__ import annotations

import os
import sys
import time

from bequest.carry.ambient.adopter import Adopter, attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_RESET_ON_FORK = 0x40000000  # SCHED_RESET_ON_FORK, which sched_getscheduler reports among the policy's bits
_STATUS_BYTES = 512  # the umask stands in the second line


def _capture_root() -> tuple[int, int, int] | None:
    if not hasattr(os, "chroot"):
        return None
    root = os.stat("/")
    return (root.st_dev, root.st_ino, os.getpid())


def _restore_root(state: tuple[int, int, int]) -> None:
    # Only a template that started before its parent's chroot sees another root. Its children reach the
    # parent's through /proc; a child that cannot must not run outside of the jail.
    device, inode, parent = state
    root = os.stat("/")
    if (root.st_dev, root.st_ino) != (device, inode):
        os.chroot(f"/proc/{parent}/root")
        os.chdir("/")


def _capture_environment() -> dict[Any, Any] | None:
    # The private dict holds what putenv was given: reading it spares decoding every variable twice.
    data = getattr(os.environ, "_data", None)
    return dict(data) if type(data) is dict else None


def _restore_environment(wanted: dict[Any, Any]) -> None:
    data: dict[Any, Any] = os.environ._data  # type: ignore[attr-defined]  # see _capture_environment
    if data == wanted:
        return
    for key in [key for key in data if key not in wanted]:
        os.unsetenv(key)
        del data[key]
    for key, value in wanted.items():
        if data.get(key) != value:
            os.putenv(key, value)
            data[key] = value


def _capture_time_zone() -> tuple[Any, ...] | None:
    return (time.tzname, time.timezone) if hasattr(time, "tzset") else None


def _restore_time_zone(state: tuple[Any, ...]) -> None:
    # The parent has called tzset after its TZ had changed; the variable itself is here already.
    if (time.tzname, time.timezone) != tuple(state):
        time.tzset()


def _capture_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # removed meanwhile: nobody can go there any more, except by inheritance
        return None


def _restore_directory(wanted: str) -> None:
    if _capture_directory() != wanted:
        attempt("the working directory", os.chdir, wanted)


def _capture_umask() -> int:
    if _is_alone():
        return _swap_umask()
    try:
        status = os.open("/proc/thread-self/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return _swap_umask()
    try:
        text = os.read(status, _STATUS_BYTES)
    finally:
        os.close(status)
    _, found, rest = text.partition(b"\nUmask:")
    return int(rest.split(None, 1)[0], 8) if found else _swap_umask()


def _is_alone() -> bool:
    """Tell whether the kernel knows of no other thread of this process."""
    try:
        return os.stat("/proc/self/task").st_nlink == 3  # a directory has one link for each entry, and two
    except OSError:
        return False


def _swap_umask() -> int:
    # The cheapest way, for the only thread there is. Without /proc it is the only one: 0o077 in between errs
    # on the private side for files that another thread creates just then.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _restore_umask(mask: int) -> None:
    os.umask(mask)


def _capture_limits() -> list[tuple[int, int, int]]:
    # Limits change through this module only, or from outside; in the latter case a child keeps its own.
    resource = sys.modules["resource"]
    kinds = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
    return [(kind, *resource.getrlimit(kind)) for kind in sorted(kinds)]


def _restore_limits(state: list[tuple[int, int, int]]) -> None:
    import resource

    for kind, soft, hard in state:
        if resource.getrlimit(kind) != (soft, hard):
            attempt(f"resource limit {kind}", resource.setrlimit, kind, (soft, hard))


def _capture_priority() -> int | None:
    return os.getpriority(os.PRIO_PROCESS, 0) if hasattr(os, "getpriority") else None


def _restore_priority(wanted: int) -> None:
    if os.getpriority(os.PRIO_PROCESS, 0) != wanted:
        attempt("the nice value", os.setpriority, os.PRIO_PROCESS, 0, wanted)


def _capture_scheduling() -> tuple[int, int] | None:
    if not hasattr(os, "sched_getscheduler"):
        return None
    policy = os.sched_getscheduler(0)
    if policy in (os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE):
        return (policy, 0)
    if policy & _RESET_ON_FORK:
        return (os.SCHED_OTHER, 0)
    return (policy, os.sched_getparam(0).sched_priority)


def _restore_scheduling(state: tuple[int, int]) -> None:
    policy, priority = state
    if os.sched_getscheduler(0) != policy:
        attempt("the scheduling policy", os.sched_setscheduler, 0, policy, os.sched_param(priority))


def _capture_affinity() -> list[int] | None:
    return list(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _restore_affinity(state: list[int]) -> None:
    wanted = set(state)
    if os.sched_getaffinity(0) != wanted:
        attempt("the CPU affinity", os.sched_setaffinity, 0, wanted)


def _capture_group() -> int | None:
    return os.getpgrp() if hasattr(os, "getpgrp") else None


def _restore_group(wanted: int) -> None:
    if os.getpgrp() != wanted:
        attempt("the process group", os.setpgid, 0, wanted)


def _capture_credentials() -> tuple[Any, ...] | None:
    if not hasattr(os, "getresuid"):
        return None
    return (os.getresuid(), os.getresgid(), os.getgroups())


def _restore_credentials(state: tuple[Any, ...]) -> None:
    # Groups first, user last: each step needs the rights that the next one gives up.
    users, groups, others = state
    if sorted(os.getgroups()) != sorted(others):
        os.setgroups(others)
    if os.getresgid() != tuple(groups):
        os.setresgid(*groups)
    if os.getresuid() != tuple(users):
        os.setresuid(*users)


def _capture_locale() -> str:
    found: str = sys.modules["_locale"].setlocale(sys.modules["_locale"].LC_ALL, None)
    return found


def _restore_locale(wanted: str) -> None:
    import _locale

    if _locale.setlocale(_locale.LC_ALL, None) != wanted:
        _locale.setlocale(_locale.LC_ALL, wanted)


ADOPTERS = (
    Adopter("root", _capture_root, _restore_root, plain=True, vital=True),
    Adopter("environment", _capture_environment, _restore_environment, plain=True),
    Adopter("time zone", _capture_time_zone, _restore_time_zone, plain=True),
    Adopter("locale", _capture_locale, _restore_locale, owner="_locale", plain=True, eager=True),
    Adopter("working directory", _capture_directory, _restore_directory, plain=True),
    Adopter("umask", _capture_umask, _restore_umask, plain=True),
    Adopter("limits", _capture_limits, _restore_limits, owner="resource", plain=True, eager=True),
    Adopter("scheduling", _capture_scheduling, _restore_scheduling, plain=True),
    Adopter("priority", _capture_priority, _restore_priority, plain=True),
    Adopter("affinity", _capture_affinity, _restore_affinity, plain=True),
    Adopter("process group", _capture_group, _restore_group, plain=True),
    # Last: what stands above may need rights that are given up here.
    Adopter("credentials", _capture_credentials, _restore_credentials, plain=True, vital=True),
)
