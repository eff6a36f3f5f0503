"""multiprocessing with an inheritance: spawned children get the state that a forked child would have had.

    import bequest as mp
      mp.NAME -> NAME of multiprocessing, bound to bequest's default context, or one of bequest's own
      mp.SUBMODULE -> bequest.SUBMODULE

Every name is looked up when it is first used (PEP 562), because a child imports this package before the part
of it that rebuilds a message: importing it loads nothing else, neither multiprocessing nor typing.
"""

__version__ = "0.1.0"

# The level constants of multiprocessing, which has them here too.
SUBDEBUG = 5
SUBWARNING = 25

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing import Array as Array
    from multiprocessing import AuthenticationError as AuthenticationError
    from multiprocessing import Barrier as Barrier
    from multiprocessing import BoundedSemaphore as BoundedSemaphore
    from multiprocessing import BufferTooShort as BufferTooShort
    from multiprocessing import Condition as Condition
    from multiprocessing import Event as Event
    from multiprocessing import JoinableQueue as JoinableQueue
    from multiprocessing import Lock as Lock
    from multiprocessing import Manager as Manager
    from multiprocessing import Pipe as Pipe
    from multiprocessing import Pool as Pool
    from multiprocessing import ProcessError as ProcessError
    from multiprocessing import Queue as Queue
    from multiprocessing import RawArray as RawArray
    from multiprocessing import RawValue as RawValue
    from multiprocessing import RLock as RLock
    from multiprocessing import Semaphore as Semaphore
    from multiprocessing import SimpleQueue as SimpleQueue
    from multiprocessing import TimeoutError as TimeoutError
    from multiprocessing import Value as Value
    from multiprocessing import active_children as active_children
    from multiprocessing import allow_connection_pickling as allow_connection_pickling
    from multiprocessing import cpu_count as cpu_count
    from multiprocessing import current_process as current_process
    from multiprocessing import freeze_support as freeze_support
    from multiprocessing import get_all_start_methods as get_all_start_methods
    from multiprocessing import get_logger as get_logger
    from multiprocessing import get_start_method as get_start_method
    from multiprocessing import log_to_stderr as log_to_stderr
    from multiprocessing import parent_process as parent_process
    from multiprocessing import reducer as reducer
    from multiprocessing import set_executable as set_executable
    from multiprocessing import set_forkserver_preload as set_forkserver_preload
    from multiprocessing import set_start_method as set_start_method
    from pickle import loads as loads

    from bequest.carry.copies import one_snapshot as one_snapshot
    from bequest.carry.pickler import dumps as dumps
    from bequest.contexts import get_context as get_context
    from bequest.errors import BequestError as BequestError
    from bequest.errors import CarryError as CarryError
    from bequest.errors import LeftBehindError as LeftBehindError
    from bequest.errors import PoolBrokenError as PoolBrokenError
    from bequest.errors import PoolEndedError as PoolEndedError
    from bequest.errors import TaskTimeoutError as TaskTimeoutError
    from bequest.errors import WorkerDied as WorkerDied
    from bequest.explain import explain as explain
    from bequest.install import install as install
    from bequest.install import uninstall as uninstall
    from bequest.pool.executor import ProcessPoolExecutor as ProcessPoolExecutor
    from bequest.process import Process as Process

# The public attributes of a context: the same from Python 3.11 to 3.15.
_OF_CONTEXT = [
    "Array",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BufferTooShort",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "Pipe",
    "Pool",
    "Process",
    "ProcessError",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "TimeoutError",
    "Value",
    "active_children",
    "allow_connection_pickling",
    "cpu_count",
    "current_process",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "log_to_stderr",
    "parent_process",
    "reducer",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
]

_OWN = {
    "BequestError": "bequest.errors",
    "CarryError": "bequest.errors",
    "LeftBehindError": "bequest.errors",
    "PoolBrokenError": "bequest.errors",
    "PoolEndedError": "bequest.errors",
    "ProcessPoolExecutor": "bequest.pool.executor",
    "TaskTimeoutError": "bequest.errors",
    "WorkerDied": "bequest.errors",
    "dumps": "bequest.carry.pickler",
    "loads": "pickle",
    "one_snapshot": "bequest.carry.copies",
    "uninstall": "bequest.install",
}

# `install` is a module, and `explain` a package, that can be called: see there.
_MODULES = [
    "connection",
    "context",
    "dummy",
    "explain",
    "forkserver",
    "heap",
    "install",
    "managers",
    "pool",
    "popen_fork",
    "popen_forkserver",
    "popen_spawn_posix",
    "process",
    "queues",
    "reduction",
    "resource_sharer",
    "resource_tracker",
    "shared_memory",
    "sharedctypes",
    "spawn",
    "synchronize",
    "util",
]

__all__ = [*_OF_CONTEXT, *_OWN, "explain", "install"]


def __getattr__(name: str) -> object:
    """Find a public name on its first use, and keep it."""
    if name in _OWN:
        value = getattr(_import(_OWN[name]), name)
    elif name in _MODULES:
        return _import(f"{__name__}.{name}")
    elif name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        value = _of_default_context(name)
    return globals().setdefault(name, value)


def _import(name: str) -> object:
    import sys  # not importlib, which costs a child that has not loaded it a millisecond

    __import__(name)
    return sys.modules[name]


def _of_default_context(name: str) -> object:
    """Return an attribute of the default context, whatever a later Python adds to it."""
    from bequest.contexts import default_context as default

    try:
        return getattr(default, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    """Return every public name, loaded or not."""
    return sorted({*globals(), *__all__, *_MODULES})
