"""The namespaces that carried code lives in: one `__main__`, modules, and what of them travels.

    sender:    function -> Bindings(namespace, names it reads) -> in the function's state
    receiver:  bind() lays them over the one namespace of that name, never undoing what the process itself assigned

The rule for a name that is bound already: a message that starts a process wins; a later message of the same
sender wins where the sender has rebound the name since and the receiver has not; all else leaves it alone.
"""

from __future__ import annotations

import builtins
import os
import sys
from _weakref import ref
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MODULE_DUNDERS = frozenset(
    ("__builtins__", "__cached__", "__doc__", "__file__", "__loader__", "__name__", "__package__", "__spec__")
)


class Versions:
    """Sender's side: a number for each binding that grows when the name is bound to another object.

    An object is remembered weakly where it can be; builtin containers, which cannot, are kept until the name is
    next sent, so that a new object at the old address is never taken for the old one.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[Any, int]] = {}

    def of(self, namespace: str, name: str, value: Any) -> int:
        """Return the number of the present binding of `name`."""
        remembered, number = self._last.get((namespace, name), (None, 0))
        known = remembered() if type(remembered) is ref else remembered
        if known is value and number:
            return number
        try:
            self._last[namespace, name] = (ref(value), number + 1)
        except TypeError:
            self._last[namespace, name] = (value, number + 1)
        return number + 1


versions = Versions()

_received: dict[
    tuple[str, str], tuple[int, int, int]
] = {}  # (namespace, name) -> sender's pid, number, id(value)
_phase = {"starting": False}


def begin_start() -> None:
    """Say that the message being read starts this process: its bindings win over what imports have left."""
    _phase["starting"] = True


def end_start() -> None:
    """Say that the message that starts this process has been read."""
    _phase["starting"] = False


def is_starting() -> bool:
    """Tell whether the message being read starts this process."""
    return _phase["starting"]


def pack_bindings(key: str, namespace: dict[str, Any], names: Any) -> tuple[Any, ...] | None:
    """Return what `bind` needs to bind `names` as they are bound in `namespace` now, or None for none."""
    present = [name for name in names if name in namespace]
    if not present:
        return None
    values = {name: namespace[name] for name in present}
    return os.getpid(), key, values, tuple(versions.of(key, name, values[name]) for name in present)


def bind(namespace: dict[str, Any], packed: tuple[int, str, dict[str, Any], tuple[int, ...]]) -> None:
    """Bind names in `namespace` by the rule in the module's docstring."""
    sender, key, values, numbers = packed
    if sender == os.getpid():
        return
    for (name, value), number in zip(values.items(), numbers, strict=True):
        if (
            name not in namespace
            or _phase["starting"]
            or _sender_rebound(namespace, (key, name), sender, number)
        ):
            namespace[name] = value
            _received[key, name] = (sender, number, id(value))


def _sender_rebound(namespace: dict[str, Any], slot: tuple[str, str], sender: int, number: int) -> bool:
    known = _received.get(slot)
    return (
        known is not None
        and known[:2] != (sender, number)
        and (known[0] == sender and known[2] == id(namespace[slot[1]]))
    )


def own_names(namespace: dict[str, Any]) -> list[str]:
    """Return the names of a module's namespace but for those that the import system sets."""
    return [name for name in namespace if name not in _MODULE_DUNDERS]


def main_namespace() -> dict[str, Any]:
    """Return the namespace of this process's one `__main__`."""
    return sys.modules["__main__"].__dict__


def main_module() -> ModuleType:
    """Return this process's one `__main__`."""
    return sys.modules["__main__"]


def builtins_namespace() -> dict[str, Any]:
    """Return the dict that `__builtins__` is in namespaces made by `exec`."""
    return builtins.__dict__


def all_modules() -> dict[str, ModuleType]:
    """Return `sys.modules`."""
    return sys.modules


def import_module(name: str) -> Any:
    """Import a module by its dotted name and return it."""
    found = sys.modules.get(name)
    if found is None:
        __import__(name)
        found = sys.modules[name]
    return found


def module_namespace(name: str) -> dict[str, Any]:
    """Return the namespace of an importable module."""
    namespace: dict[str, Any] = import_module(name).__dict__
    return namespace


def made_module(name: str, listed: bool) -> ModuleType:
    """Return the module `name` that no import finds, made empty unless it is here already.

    Args:
        name: Its dotted name.
        listed: Whether the sender's `sys.modules` lists it, so that this process's does as well.
    """
    found = sys.modules.get(name)
    if found is None:
        found = ModuleType(name)
        found.__dict__["__builtins__"] = builtins.__dict__
        if listed:
            sys.modules[name] = found
    return found


def made_namespace(name: str) -> dict[str, Any]:
    """Return the namespace of a listed module that no import finds."""
    return made_module(name, True).__dict__


def fill_module(module: ModuleType, state: tuple[type | None, tuple[Any, ...] | None]) -> None:
    """Give a made module its class, where that is not plain `module`, and its names."""
    kind, packed = state
    if packed is not None:
        bind(module.__dict__, packed)
    if kind is not None:
        module.__class__ = kind


def find_global(module_name: str, name: str, kind: type, base: type, value: Any) -> Any:
    """Return the object that a user module's global is, made empty and bound where the import made no such one."""
    from bequest.carry import instances

    namespace = module_namespace(module_name)
    found = namespace.get(name)
    if type(found) is not kind:
        found = namespace[name] = instances.create(kind, base, value)
        _made.add(id(found))
    return found


_made: set[int] = set()


def set_global(found: Any, state: Any) -> None:
    """Bring the object that `find_global` returned up to date, in a process that starts; later it is its own."""
    from bequest.carry import instances

    if id(found) in _made or is_starting():
        _made.discard(id(found))
        attributes = getattr(found, "__dict__", None)
        if attributes is not None and type(found).__module__ != "builtins":
            attributes.clear()
        instances.fill(found, state)


def find_attribute(module_name: str, name: str) -> Any:
    """Return a global of an importable module."""
    return getattr(import_module(module_name), name)
