"""One identity for a function or class in every process that it visits, so that it comes home as itself.

    sender: token_of(obj) -> token, sent along      receiver: find(token) -> the object known by it, or None

A token is `(maker, number)`: which process first sent the object, and a number there. The maker finds its own
object again when the token comes home; a receiver remembers what it rebuilt for as long as that lives. A
forked process shares its parent's objects: for those that `__main__` names, its tokens say the name, so that
the parent knows them for its own.
"""

from __future__ import annotations

import itertools
import os
import time
from _weakref import ref
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Token = tuple[str, "int | str"]

FORKED = "fork"
"""The maker in tokens of objects that a forked process shares by name with the process it was forked from."""

_tokens: dict[int, tuple[ref[Any], Token]] = {}
_objects: dict[Token, ref[Any]] = {}
_numbers = itertools.count()
_state: dict[str, Any] = {"maker": None, "forked": False}


def _after_fork_in_child() -> None:
    _state["maker"], _state["forked"] = None, True


os.register_at_fork(after_in_child=_after_fork_in_child)


def maker() -> str:
    """Return the name of this process in tokens: unlike any other process's, now or earlier."""
    if _state["maker"] is None:
        _state["maker"] = f"{os.getpid():x}.{time.monotonic_ns():x}"
    name: str = _state["maker"]
    return name


def token_of(obj: Any) -> Token:
    """Return the token of a function or class, made at the first call."""
    entry = _tokens.get(id(obj))
    if entry is not None and entry[0]() is obj:
        return entry[1]
    token: Token = (maker(), next(_numbers))
    path = getattr(obj, "__qualname__", None) or obj.__name__
    if _state["forked"] and _main_attribute(obj.__module__, path) is obj:
        token = (FORKED, path)
    remember(obj, token)
    return token


def remember(obj: Any, token: Token) -> None:
    """Know `obj` by `token` from now on, for as long as it lives."""
    key = id(obj)

    def forget(gone: ref[Any]) -> None:
        entry = _tokens.get(key)
        if entry is not None and entry[0] is gone:
            del _tokens[key]
        if _objects.get(token) is gone:
            del _objects[token]

    weak = ref(obj, forget)
    _tokens[key] = (weak, token)
    _objects[token] = weak


def find(token: Token, kind: type) -> Any:
    """Return the object of this process that `token` stands for, or None."""
    weak = _objects.get(token)
    if weak is not None:
        return weak()
    if token[0] == FORKED and isinstance(token[1], str):
        own = _main_attribute("__main__", token[1])
        return own if isinstance(own, kind) else None
    return None


def is_at_home(obj: Any) -> bool:
    """Tell whether `obj` was first sent by this very process, or is the one a forked child sent by name."""
    entry = _tokens.get(id(obj))
    if entry is None or entry[0]() is not obj:
        return True
    return bool(entry[1][0] == _state["maker"])


def _main_attribute(module: str, path: str) -> Any:
    import sys

    if module != "__main__":
        return None
    found: Any = sys.modules.get("__main__")
    if not isinstance(found, ModuleType):
        return None
    for part in path.split("."):
        found = getattr(found, part, None)
    return found
