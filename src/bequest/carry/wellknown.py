"""What messages refer to, as each process has its own: named once, at a message's head.

    head(starting) -> the opcodes that name each, and the memo of a pickler that has written them

A dict or list of exact type is pickled by content without asking anybody; known to the memo, it is a
reference. What rebuilds a start is named here for another reason: all starts name it, and a pickler takes
microseconds to find out how each is to be named. Only a sender imports this module.
"""

from __future__ import annotations

import sys
from multiprocessing import process

from bequest.carry import arrival, functions, instances, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PROTOCOL = b"\x80\x05"
# What is asked for anew each time; in a start also the lists of `sys` that programs alias.
_OWN: list[Callable[[], Any]] = [
    namespaces.main_namespace,
    namespaces.builtins_namespace,
    namespaces.all_modules,
]
_LISTS: list[Callable[[], Any]] = [namespaces.search_path, namespaces.arguments]
_NAMED: list[Any] = [
    arrival.first,
    arrival.ModuleState,
    instances.create,
    instances.fill,
    functions.make_function,
    functions.set_function,
    functions.load_code,
    functions.set_cell,
    namespaces.import_module,
    object,
    vars(process)["AuthenticationString"],
]


def _call(function: Any) -> bytes:
    return b"c%s\n%s\n)R\x940" % (function.__module__.encode(), function.__name__.encode())


def _name(found: Any) -> bytes:
    return b"c%s\n%s\n\x940" % (found.__module__.encode(), found.__qualname__.encode())


_MESSAGE_HEAD = b"".join((_PROTOCOL, *map(_call, _OWN)))
_START_HEAD = b"".join((_MESSAGE_HEAD, *map(_call, _LISTS), *map(_name, _NAMED)))


def head(starting: bool) -> tuple[bytes, dict[int, tuple[int, Any]]]:
    """Return what a message begins with, and the memo of a pickler that has written it.

    Args:
        starting: Whether the message starts a process.
    """
    known = [get() for get in _OWN]
    if starting:
        known += [_plain_list(getattr(sys, name, None)) for name in ("path", "argv")]
        known += _NAMED
    memo = {id(each): (index, each) for index, each in enumerate(known)}
    return _START_HEAD if starting else _MESSAGE_HEAD, memo


def _plain_list(found: Any) -> Any:
    """Return a list of `sys`; where anything but text is in it, an object that nobody refers to.

    Its content is then carried.
    """
    return found if type(found) is list and all(isinstance(entry, str) for entry in found) else object()
