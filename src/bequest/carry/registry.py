"""Which function reduces which type: the table that `pickler` asks for everything pickle does not know.

    @carries("_thread.lock")            def reduce_lock(lock, packing) -> (rebuild, args, ...)
    pickler -> find(type(obj)) -> reducer

Types are named by `module.qualname`, never imported, so that a reducer for an optional or heavy package costs
nothing where the package is not loaded. The modules that register are listed in `_FAMILIES`, which are
imported when the first message is packed, and in `_LATE`, each imported with the first object that needs it.
A receiver imports only the one that rebuilds what it got.
"""

from __future__ import annotations

import importlib

from bequest.carry.remember import Remembered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    Reduced = tuple[Any, ...]
    Reducer = Callable[[Any, "Packing"], Reduced]
else:  # names for annotations only: `typing` would cost every child that rebuilds something
    Reduced = Reducer = tuple
    Protocol = object

_FAMILIES = (
    "threads",
    "streams",
    "iterators",
    "callables",
    "memory",
    "services",
    "contexts",
    "waiting",
    "processes",
    "generics",
    "options",
    "arrays",
)
# By the top-level module of the types that it reduces.
_LATE = {
    "_ctypes": "foreign",
    "ctypes": "foreign",
    "sqlite3": "sqlite",
    "_weakrefset": "weak",
    "weakref": "weak",
    "_sre": "matching",
    "re": "matching",
}

# `Reduced` is the tuple of 2 to 6 items that `object.__reduce__` documents.

_exact: dict[str, Reducer] = {}
_with_subclasses: dict[str, Reducer] = {}
_found = Remembered()  # (reducer,) or (None,), of each type asked about


class NotCarriedError(Exception):
    """Raised by a reducer: this object cannot exist in another process.

    The pickler turns it into a stand-in or a `CarryError`, and adds where the object stands.

    Attributes:
        reason: Why, as a clause without a full stop ("its stack is this process's own").
        remedy: What to do, as an imperative without a full stop ("Make a list of it first").
        often_held: Whether objects often hold one that their methods do not need elsewhere (a pool), so that
            a stand-in takes its place in any message, not only in one that starts a process.
    """

    def __init__(self, reason: str, remedy: str, *, often_held: bool = False) -> None:
        super().__init__(reason, remedy)
        self.reason, self.remedy, self.often_held = reason, remedy, often_held


class Packing(Protocol):
    """What a reducer may ask of the message that is being packed.

    Attributes:
        starting: True where the message is for a process that is about to start (fork's promise holds: carry
            all that can be carried); False for a queue item, a pipe message, a task or a result.
        shared: Descriptors that wait for the receiver of this message, in `multiprocessing.resource_sharer`.
    """

    starting: bool
    shared: list[Any]

    def share_fd(self, fd: int) -> Any:
        """Return a picklable object whose `detach()` gives the receiver its own duplicate of `fd`.

        The caller keeps owning `fd`; it may be closed as soon as the message is packed.
        """

    def own_way(self, obj: Any) -> Reduced:
        """Reduce `obj` as its own `__reduce_ex__` says; what that raises is told with the path of `obj`."""

    def keep(self, obj: object) -> None:
        """Keep `obj` alive until the receiver has rebuilt the message (only matters when `starting`)."""


def carries(*names: str, subclasses: bool = False) -> Callable[[Reducer], Reducer]:
    """Register the decorated function as the reducer of the types named.

    Args:
        names: `module.qualname` of each type, as `type.__module__` and `type.__qualname__` say it.
        subclasses: Whether it also serves types derived from them (the nearest registered base wins).
    """

    def register(reducer: Reducer) -> Reducer:
        for name in names:
            _exact[name] = reducer
            if subclasses:
                _with_subclasses[name] = reducer
        return reducer

    return register


def find(kind: type) -> Reducer | None:
    """Return the reducer of `kind`, or None where pickle's own way will do."""
    known: tuple[Reducer | None] | None = _found.get(kind)
    if known is not None:
        return known[0]
    own, *bases = [_name(base) for base in kind.__mro__]
    _load_families(own, *bases)
    reducer = _exact.get(own)
    if reducer is None:
        reducer = next((_with_subclasses[base] for base in bases if base in _with_subclasses), None)
    _found.put(kind, (reducer,))
    return reducer


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _load_families(*names: str) -> None:
    """Load all that may reduce what has one of these names."""
    late = {name.partition(".")[0] for name in names} & _LATE.keys()
    for family in (*_FAMILIES, *(_LATE[top] for top in late)):
        importlib.import_module(f"bequest.carry.objects.{family}")
