"""Pickles as plain multiprocessing would: the same class, the same reducers, the same errors.

dumps(object) -> Pickled: the bytes, or the Failure

What plain Python hands over as bequest does (locks, connections, shared memory, proxies) is replaced by a
placeholder, so that the pickle can be looked at in a process that has none of it.
"""

from __future__ import annotations

import copyreg
import io
import sys
from multiprocessing import context, process, reduction
from types import FunctionType
from typing import Any

from bequest.carry.path import Path, find_paths
from bequest.explain.probe import Placeholder

_home = reduction.__name__
# Of multiprocessing itself; where bequest is installed, its own stands there, which is derived from that.
_PlainPickler: Any = next(kind for kind in reduction.ForkingPickler.__mro__ if kind.__module__ == _home)
_ITERTOOLS_GO = sys.version_info >= (3, 14)  # they can no longer be pickled


class Failure:
    """What plain Python would raise.

    Attributes:
        error: Type and text.
        path: Where the object stands that is to blame, in the user's names.
    """

    def __init__(self, error: str, path: str) -> None:
        self.error, self.path = error, path


class _Popen:
    """Stands for a start in force, which is when locks and queues may be pickled."""

    @staticmethod
    def duplicate_for_child(fd: int) -> int:
        """Return what stands for a descriptor."""
        return fd

    @staticmethod
    def DupFd(fd: int) -> Any:
        """Return what gives the child its descriptor."""
        return Placeholder("descriptor")


class _Pickler(_PlainPickler):  # type: ignore[misc]  # found at run time
    """The pickler of multiprocessing, which remembers what it was at and which definitions it met."""

    last: Any = None

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.named: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        """Reduce what is handed over to a placeholder; leave the rest to the pickler."""
        self.last = obj
        kind = type(obj)
        if isinstance(obj, type | FunctionType):
            self.named.add(f"{obj.__module__}:{obj.__qualname__}")
        name = _shared_name(kind)
        if name is not None:
            if name == "SemLock":
                context.assert_spawning(obj)
            return Placeholder, (name, obj._state[1] if name == "BufferWrapper" else 0)
        if isinstance(obj, process.BaseProcess):
            return _reduce_process(obj)
        if (standard := _standard_condition(kind)) is not None:
            made = (standard, object, None)  # not `__newobj__`, which wants the class of the object itself
            return copyreg._reconstructor, made, _standard_state(standard, obj)  # type: ignore[attr-defined]
        if kind.__module__ == "itertools" and not _ITERTOOLS_GO:
            raise TypeError(f"cannot pickle 'itertools.{kind.__qualname__}' object")
        return NotImplemented


# By module and name: none of these modules need be loaded.
_SHARED = {
    ("multiprocessing.synchronize", "SemLock"),
    ("multiprocessing.connection", "_ConnectionBase"),
    ("multiprocessing.heap", "BufferWrapper"),
    ("multiprocessing.managers", "BaseProxy"),
    ("multiprocessing.shared_memory", "SharedMemory"),
}


def _shared_name(kind: type) -> str | None:
    if (kind.__module__, kind.__qualname__) == ("socket", "socket"):
        return "socket"
    for base in kind.__mro__:
        if (base.__module__, base.__qualname__) in _SHARED:
            return base.__qualname__
    return None


def _standard_condition(kind: type) -> type | None:
    """Return the standard library's Condition, where `kind` is one, of whatever library."""
    names = ((base, (base.__module__, base.__qualname__)) for base in kind.__mro__)
    return next((base for base, name in names if name == ("multiprocessing.synchronize", "Condition")), None)


def _standard_state(standard: type, obj: Any) -> Any:
    """Return the state of a condition without what bequest adds to it."""
    get = vars(standard)["__getstate__"]
    return getattr(get, "__wrapped__", get)(obj)


def _reduce_process(obj: Any) -> Any:
    if obj._popen is not None:  # its finalizer holds one
        raise TypeError("cannot pickle 'weakref.ReferenceType' object")
    return object.__reduce_ex__(obj, 4)


class Pickled:
    """What plain Python would make of an object.

    Attributes:
        data: The pickle, or None.
        failure: What would be raised instead, or None.
        named: The functions and classes that it names, as "module:qualname".
    """

    def __init__(self, data: bytes | None, failure: Failure | None, named: set[str]) -> None:
        self.data, self.failure, self.named = data, failure, named


def dumps(obj: Any, *, starting: bool) -> Pickled:
    """Pickle `obj` as plain multiprocessing would.

    Args:
        obj: A process that is about to start, or what is sent.
        starting: Which of the two.
    """
    file = io.BytesIO()
    pickler = _Pickler(file)
    outer = context.get_spawning_popen()
    context.set_spawning_popen(_Popen() if starting else None)  # type: ignore[arg-type]  # as far as it is asked
    try:
        pickler.dump(obj)
    except Exception as error:  # noqa: BLE001 - any error is the answer
        return Pickled(None, Failure(describe(error), _path(obj, pickler.last)), pickler.named)
    finally:
        context.set_spawning_popen(outer)
    return Pickled(file.getvalue(), None, pickler.named)


def describe(error: BaseException) -> str:
    """Return an error's type and text, in one line."""
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _path(root: Any, culprit: Any) -> str:
    if culprit is None:
        return ""
    try:
        found = find_paths(root, [culprit]).get(id(culprit))
    except RecursionError:
        return ""
    return str(found) if isinstance(found, Path) else ""
