"""Which names the annotations of a function or class mention as text, for code that evaluates them.

    function or class -> home(obj), mentioned(obj) -> its module and the names, looked up there by `reach`

Annotations that are not text hold the objects themselves, or (since 3.14) are functions that read them.
"""

from __future__ import annotations

import re
import sys
from types import FunctionType, ModuleType

from bequest.carry import modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_NAME = re.compile(r"[^\W\d]\w*")
_DEEPEST = 10  # levels of `list[Optional["Name"]]` that are looked into


def home(obj: Any) -> ModuleType | None:
    """Return the module in which the annotations of a function or class are evaluated, if it is listed."""
    if isinstance(obj, FunctionType):
        return modules.namespace_module(obj.__globals__)
    found = sys.modules.get(obj.__module__)
    return found if isinstance(found, ModuleType) else None


def mentioned(obj: Any) -> set[str]:
    """Return the names in those annotations of a function or class that are text, or hold some."""
    return {name for text in _texts_of(obj) for name in _NAME.findall(text)}


def _texts_of(obj: Any) -> Iterator[str]:
    lazy = getattr(obj, "__annotate__", None)  # since 3.14: evaluated only when asked for
    if isinstance(lazy, FunctionType):
        yield from (text for text in lazy.__code__.co_consts if isinstance(text, str))
        return
    own = obj.__annotations__ if isinstance(obj, FunctionType) else obj.__dict__.get("__annotations__")
    for value in list(own.values()) if isinstance(own, dict) else ():
        yield from _texts_in(value, _DEEPEST)


def _texts_in(value: Any, depth: int) -> Iterator[str]:
    text = value if isinstance(value, str) else getattr(value, "__forward_arg__", None)
    if isinstance(text, str):
        yield text
    parts = getattr(value, "__args__", ()) if depth and not isinstance(value, type) else ()
    for part in parts if isinstance(parts, tuple) else ():
        yield from _texts_in(part, depth - 1)
