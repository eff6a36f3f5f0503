"""What a packed function depends on beside the objects that it holds: the names that its code reads.

    pickler: on_names, on_function as the pass meets them -> holds() -> would the message be the same now?

So a function that many messages need is packed once, and again when one of its names has been bound to
another object. As everywhere (see `bindings`), an object changed in place counts as the same.
"""

from __future__ import annotations

from _weakref import ref
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import CellType, FunctionType
    from typing import Any

_ABSENT: Any = object()
# What may be kept alive for the comparison: it is small, or is there anyway.
_KEPT = frozenset((int, float, complex, bool, type(None), ModuleType, type, dict, list, set))


class Dependence:
    """The bindings and functions that one message has read, as they were then."""

    __slots__ = ("_functions", "_names", "_seen", "_weak_names")

    def __init__(self) -> None:
        self._seen: set[Any] = set()
        self._names: list[tuple[Callable[..., Any], str, Any]] = []
        self._weak_names: list[tuple[Callable[..., Any], str, ref[Any]]] = []
        self._functions: list[tuple[ref[FunctionType], Any, Any, Any, tuple[Any, ...]]] = []

    def on_names(self, namespace: Mapping[str, Any], names: Iterable[str]) -> None:
        """Depend on what `names` are bound to in a namespace, or on their not being bound."""
        home = id(namespace)  # it is the dict of a module, or of a class that is kept by its token
        for name in names:
            if (home, name) in self._seen:
                continue
            self._seen.add((home, name))
            value = namespace.get(name, _ABSENT)
            if type(value) not in _KEPT:
                try:
                    self._weak_names.append((namespace.get, name, ref(value)))
                    continue
                except TypeError:  # it is kept as the versions of bindings keep it
                    pass
            self._names.append((namespace.get, name, value))

    def on_function(self, function: FunctionType) -> None:
        """Depend on what a function is made of; it is not kept alive."""
        if id(function) in self._seen:
            return
        self._seen.add(id(function))
        marks = tuple(map(_mark_content, function.__closure__ or ()))
        code, defaults = function.__code__, function.__defaults__
        self._functions.append((ref(function), code, defaults, function.__kwdefaults__, marks))

    def holds(self) -> bool:
        """Tell whether all is as it was: a few hundredths of a microsecond for each name."""
        for look, name, value in self._names:
            if look(name, _ABSENT) is not value:
                return False
        for look, name, weak in self._weak_names:
            if look(name, _ABSENT) is not weak():
                return False
        for weak_function, code, defaults, kwdefaults, marks in self._functions:
            function = weak_function()
            if (
                function is None
                or function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__kwdefaults__ is not kwdefaults
                or (marks and not all(map(_has_content, function.__closure__ or (), marks)))
            ):
                return False
        return True


def _mark_content(cell: CellType) -> Any:
    """Return what tells the content of a cell from any other, without keeping a function alive."""
    try:
        content = cell.cell_contents
    except ValueError:  # an empty cell
        return None
    try:
        return ref(content)
    except TypeError:
        return (content,)


def _has_content(cell: CellType, mark: Any) -> bool:
    try:
        content = cell.cell_contents
    except ValueError:  # as above
        return mark is None
    return mark is not None and (mark() if type(mark) is ref else mark[0]) is content
