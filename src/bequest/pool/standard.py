"""The standard library's modules beneath the faces, imported without being changed on the way.

    module(name) -> the module; what `bequest.install` does to it waits -> settle(), at the end
    Face: the base of what stands in for a class of theirs

Where bequest is installed, those modules are changed at their import, by putting in what is defined here:
which cannot be there yet while it is what imports them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from types import CodeType, FunctionType
from typing import Any


class _Import:
    """What is going on.

    Attributes:
        depth: How many imports by `module` there are at the moment.
        waiting: What is to be done when the faces are defined.
    """

    depth = 0
    waiting: list[Callable[[], None]] = []


def module(name: str) -> Any:
    """Return a module of the standard library."""
    _Import.depth += 1
    try:
        return import_module(name)
    finally:
        _Import.depth -= 1


def defer(change: Callable[[], None]) -> bool:
    """Keep `change` for `settle`, and return true, while `module` imports; else return false."""
    if _Import.depth:
        _Import.waiting.append(change)
    return bool(_Import.depth)


def settle() -> None:
    """Make the changes that were kept."""
    while _Import.waiting:
        _Import.waiting.pop(0)()


class Face:
    """What is derived from a class of the standard library to stand in for it: `class Pool(Face, PlainPool)`.

    A class that is derived from it in turn, and overrides or reads what only the standard class has inside
    (joblib's pool sets up queues of its own), is derived from that one after all.
    """

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        face = next((kind for kind in cls.__mro__ if Face in kind.__bases__), None)
        if face is None:
            return
        plain = face.__bases__[-1]
        inner = _inner_names(plain) - _inner_names(face)
        if any(inner & _inner_names(kind) for kind in cls.__mro__ if kind not in face.__mro__):
            for kind in cls.__mro__:
                if face in kind.__bases__:
                    kind.__bases__ = tuple(plain if base is face else base for base in kind.__bases__)


def _inner_names(kind: type) -> set[str]:
    """Return the names with one underscore that a class defines, and that its methods use."""
    found = set(vars(kind))
    for value in vars(kind).values():
        function = getattr(value, "__func__", getattr(value, "fget", value))
        if isinstance(function, FunctionType):
            found |= set(_names_in(function.__code__))
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
