"""A small pickler over the families of reducers, for tests that carry an object within one process.

again(obj) -> what a receiver would have been given, with descriptors duplicated instead of sent
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
from types import MethodType
from typing import Any

from bequest.carry import registry

FAMILIES = ("threads", "streams", "waiting")


class _Duplicate:
    def __init__(self, fd: int) -> None:
        self.fd = fd

    def detach(self) -> int:
        return self.fd


class _Pickler(pickle.Pickler):
    """Asks the registry first, then pickle's own way; a refusal ends the message."""

    def __init__(self, file: io.BytesIO, *, starting: bool) -> None:
        super().__init__(file, 5)
        self.starting = starting
        self.kept: list[object] = []
        self.shared: list[Any] = []

    def share_fd(self, fd: int) -> Any:
        return _Duplicate(os.dup(fd))

    def own_way(self, obj: Any) -> Any:
        return obj.__reduce_ex__(5)

    def keep(self, obj: object) -> None:
        self.kept.append(obj)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type) or type(obj).__name__ in ("function", "module"):
            return NotImplemented
        if isinstance(obj, MethodType):
            return getattr, (obj.__self__, obj.__name__)
        reducer = _find(type(obj))
        return NotImplemented if reducer is None else reducer(obj, self)


def _find(kind: type) -> registry.Reducer | None:
    for family in FAMILIES:
        importlib.import_module(f"bequest.carry.objects.{family}")
    if kind.__module__ in ("builtins",) and kind.__name__ not in (
        "generator",
        "coroutine",
        "async_generator",
    ):
        return registry._exact.get(f"builtins.{kind.__qualname__}")
    names = [f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__]
    exact = registry._exact.get(names[0])
    inherited = (registry._with_subclasses.get(name) for name in names[1:])
    return exact or next((found for found in inherited if found is not None), None)


def again(obj: Any, *, starting: bool = True) -> Any:
    """Carry `obj` and return what arrives."""
    file = io.BytesIO()
    _Pickler(file, starting=starting).dump(obj)
    return pickle.loads(file.getvalue())
