"""The resource tracker of programs that use bequest: it cleans up after the dead, quietly about semaphores.

    import of this module -> adopt() -> the standard tracker object launches `main` below
    first start: hush() -> a name that nobody else registers

A forked program that is killed, or leaves by `os._exit`, says nothing of the semaphores that it had: they
have no name by then. Those of a program with spawned children need theirs, and the standard tracker warns of
each on the way. Here it removes them without a word in a program that has started processes; in one that has
not, and about shared memory, which is the user's own to unlink, it warns as ever.
"""

from __future__ import annotations

import os
import select
import sys
from multiprocessing import resource_tracker
from multiprocessing import util as _util
from types import FunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STANDARD = "from multiprocessing.resource_tracker import main"
# The tracker is a new interpreter, which need not find bequest as this one did.
# Who looks for a program's trackers among its processes looks for the name of the standard one's module.
_OURS = (
    "import sys, multiprocessing.resource_tracker; sys.path.append({folder!r}); "
    "from bequest.launch.tracker import main"
)
_END_GRACE_MS = 2000
_MARK = "bequest"  # registered as a "noop", a type that every tracker knows: one that is not ours ignores it

_tracker: Any = resource_tracker
util: Any = _util  # private names of it are used: the same in all versions


class _LaunchingUtil:
    """`multiprocessing.util` for the methods that launch the tracker: it runs our `main`, not theirs."""

    def __getattr__(self, name: str) -> Any:
        return getattr(util, name)

    @staticmethod
    def spawnv_passfds(path: Any, args: list[Any], passfds: list[int]) -> int:
        """Start the tracker; see `multiprocessing.util.spawnv_passfds`."""
        folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        ours = _OURS.format(folder=folder)
        args = [arg.replace(_STANDARD, ours) if isinstance(arg, str) else arg for arg in args]
        return int(util.spawnv_passfds(path, args, passfds))


def _launching(function: Any) -> Any:
    """Return `function` with `util` being the one above: the standard code, of whatever version, as it is."""
    namespace = {**vars(resource_tracker), "util": _LaunchingUtil()}
    made = FunctionType(
        function.__code__, namespace, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _launching_methods() -> dict[str, Any]:
    """Find the methods that launch: `ensure_running` up to 3.13, `_launch` since 3.14."""
    methods = vars(resource_tracker.ResourceTracker)
    return {
        name: _launching(method)
        for name, method in methods.items()
        if isinstance(method, FunctionType) and "spawnv_passfds" in method.__code__.co_names
    }


class _System:
    """What `_end` calls: when the interpreter ends, the globals of modules may have gone before."""

    close, waitpid, at_once, poll = os.close, os.waitpid, getattr(os, "WNOHANG", 0), select.poll
    open_pidfd = getattr(os, "pidfd_open", None)


def _end(tracker: Any, *, system: Any = _System, grace_ms: int = _END_GRACE_MS) -> None:
    """Let the tracker go and wait for it; not long, as a process that outlives this one may need it."""
    fd, pid = tracker._fd, tracker._pid
    tracker._fd = tracker._pid = None
    if fd is None or pid is None:
        return
    system.close(fd)  # its end, unless somebody else holds a copy
    try:
        if system.waitpid(pid, system.at_once)[0] == 0 and system.open_pidfd is not None:
            handle, poller = system.open_pidfd(pid), system.poll()
            poller.register(handle)
            poller.poll(grace_ms)
            system.close(handle)
            system.waitpid(pid, system.at_once)
    except OSError:  # not a child of this process, which was forked; or there are no pidfds here
        pass


_Tracker = type(
    "ResourceTracker", (resource_tracker.ResourceTracker,), _launching_methods() | {"__del__": _end}
)


def adopt() -> None:
    """Make the tracker that this process starts, if it has none yet, one that can be hushed.

    Not in a frozen program, which knows the standard tracker by its command line.
    """
    if getattr(sys, "frozen", False):
        return
    if type(_tracker._resource_tracker) is resource_tracker.ResourceTracker:
        _tracker._resource_tracker.__class__ = _Tracker


def release() -> None:
    """Undo `adopt`; a tracker that runs already goes on as it is."""
    if type(_tracker._resource_tracker) is _Tracker:
        _tracker._resource_tracker.__class__ = resource_tracker.ResourceTracker


class _Hushed:
    """Which process has told the tracker: a forked one tells it again."""

    pid = 0


def hush() -> None:
    """Tell the tracker, once, that this program starts processes."""
    if _Hushed.pid != os.getpid():
        _Hushed.pid = os.getpid()
        resource_tracker.register(_MARK, "noop")
        resource_tracker.unregister(_MARK, "noop")


class _Warnings:
    """`warnings` for the tracker's `main`.

    Attributes:
        hushed: Whether a program has said that it starts processes.
    """

    hushed = False

    def warn(self, message: str, *args: Any, **named: Any) -> None:
        """Warn, unless it is of semaphores and the tracker has been hushed."""
        import warnings

        if not (self.hushed and "leaked semaphore" in message):
            warnings.warn(message, *args, **{"stacklevel": 2, **named})


class _Names(set[str]):
    """`set` for the tracker's `main`, which has one for each type of resource; it hears the mark.

    The type alone says nothing: a process that only asks whether the tracker lives names that type too.
    """

    def __init__(self, warnings: _Warnings) -> None:
        super().__init__()
        self._warnings = warnings

    def add(self, name: str) -> None:
        """Register a name."""
        self._warnings.hushed = self._warnings.hushed or name == _MARK
        super().add(name)

    def __repr__(self) -> str:
        """Return what a set looks like in a warning."""
        return repr(set(self))


def main(fd: int) -> None:
    """Be the tracker: the standard one, with two of the names that it uses replaced."""
    warnings = _Warnings()
    names = {"warnings": warnings, "set": lambda: _Names(warnings)}
    standard = _tracker.main
    FunctionType(standard.__code__, {**vars(resource_tracker), **names})(fd)
    util._flush_std_streams()
    os._exit(0)  # somebody waits for it


adopt()
