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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Token = tuple[str, int, str | None, int]

# By id: the object, its token, and whether it was rebuilt, in this process or before a fork that led to it.
_tokens: dict[int, tuple[ref[Any], Token, bool]] = {}
_objects: dict[Token, ref[Any]] = {}
_numbers = itertools.count()
forgotten_with_class: list[dict[Any, Any]] = []
"""What others know of classes by token; an entry goes when its class does, at any moment."""


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
    # Another thread may have given it one meanwhile. No lock: `setdefault` is one step, and a finalizer or a
    # forked child may come here at any moment.
    weak, given, _ = _tokens.setdefault(id(obj), (_watch(obj, token), token, False))
    _objects[given] = weak
    return given


def remember(obj: Any, token: Token) -> None:
    """Know `obj`, which was made for a message, by `token` from now on, for as long as it lives.

    The token may be of whatever maker: what a process has sent and dropped comes home to be rebuilt.
    """
    weak = _watch(obj, token)
    _tokens[id(obj)] = (weak, token, True)
    _objects[token] = weak


def _watch(obj: Any, token: Token) -> ref[Any]:
    """Return a weak reference to `obj` with whose end all is forgotten that is known by `token`."""
    # `forget` uses no global: the last classes go when the interpreter ends, after the modules' globals.
    key, tokens, objects, tables = id(obj), _tokens, _objects, forgotten_with_class

    def forget(gone: ref[Any]) -> None:
        entry = tokens.get(key)
        if entry is not None and entry[0] is gone:
            del tokens[key]
        if objects.get(token) is gone:
            del objects[token]
            for table in tables:
                table.pop(token, None)

    return ref(obj, forget)


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
    first, *rest = path.split(".")
    # Not asked for: a child's main module would be run for it.
    found: Any = getattr(sys.modules.get("__main__"), "__dict__", {}).get(first)
    for part in rest:
        found = getattr(found, part, None)
    return found
