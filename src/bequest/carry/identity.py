"""One identity for a function or class in every process that it visits, so that it comes home as itself.

    sender: token_of(obj) -> token, sent along      receiver: find(token) -> the object known by it, or None

A token is `(maker, number, path, address)`: which process first sent the object, a number there, where in
`__main__` it is found, if it is, and its address. The maker finds its own object again when the token comes
home; a receiver remembers what it rebuilt for as long as that lives. A forked process shares its parent's
objects, at the same addresses: each knows the other's by path and address, whichever has first sent one.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from _weakref import ref

from bequest.carry import bindings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Token = tuple[str, int, str | None, int]

# By id: the object, its token, and whether it was rebuilt, in this process or before a fork that led to it.
_tokens: dict[int, tuple[ref[Any], Token, bool]] = {}
_objects: dict[Token, ref[Any]] = {}
_numbers = itertools.count()


_makers: dict[int, str] = {}  # by process id: this process, and those that it was forked from


def maker() -> str:
    """Return the name of this process in tokens: unlike any other process's, now or earlier."""
    pid = os.getpid()
    return _makers.get(pid) or _makers.setdefault(pid, f"{pid:x}.{time.monotonic_ns():x}")


# A forked process has to know its parent's name, whether or not that has sent anything yet.
os.register_at_fork(before=maker)


def token_of(obj: Any, global_name: str | None = None) -> Token:
    """Return the token of a function or class, made at the first call.

    Args:
        obj: The function or class.
        global_name: A global that it is, where that is not what its qualified name says.
    """
    entry = _tokens.get(id(obj))
    if entry is not None and entry[0]() is obj:
        return entry[1]
    path = global_name or getattr(obj, "__qualname__", None) or obj.__name__
    found = path if _main_attribute(path) is obj else None
    token: Token = (maker(), next(_numbers), found, id(obj))
    remember(obj, token, rebuilt=False)
    return token


def remember(obj: Any, token: Token, *, rebuilt: bool = True) -> None:
    """Know `obj` by `token` from now on, for as long as it lives.

    Args:
        obj: The function or class.
        token: Its token, of whatever maker: what a process has sent and dropped comes home to be rebuilt.
        rebuilt: Whether it was made for a message.
    """
    # `forget` uses no global: the last classes go when the interpreter ends, after the modules' globals.
    key, tokens, objects, tables = id(obj), _tokens, _objects, bindings.tables

    def forget(gone: ref[Any]) -> None:
        entry = tokens.get(key)
        if entry is not None and entry[0] is gone:
            del tokens[key]
        if objects.get(token) is gone:
            del objects[token]
            for table in tables:
                table.pop(token, None)

    weak = ref(obj, forget)
    _tokens[key] = (weak, token, rebuilt)
    _objects[token] = weak


def find(token: Token, kind: type) -> Any:
    """Return the object of this process that `token` stands for, or None."""
    weak = _objects.get(token)
    if weak is not None:
        return weak()
    if token[2] is None:
        return None
    # A fork shares objects: the same name, at the same address, and not one that was rebuilt here.
    own = _main_attribute(token[2])
    shared = isinstance(own, kind) and id(own) == token[3] and token[0] != maker() and is_at_home(own)
    return own if shared else None


def is_at_home(obj: Any) -> bool:
    """Tell whether `obj` was made in this process, or in one that it was forked from; not rebuilt."""
    entry = _tokens.get(id(obj))
    return entry is None or entry[0]() is not obj or not entry[2]


def _main_attribute(path: str) -> Any:
    found: Any = sys.modules.get("__main__")
    for part in path.split("."):
        found = getattr(found, part, None)
    return found
