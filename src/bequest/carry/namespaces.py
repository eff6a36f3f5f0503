"""The namespaces that carried code lives in: one `__main__`, modules, and what of them travels.

    sender:    function -> Bindings(namespace, names it reads) -> in the function's state
    receiver:  bind() lays them over the one namespace of that name, never undoing what the process itself
    assigned

The rule for a name that is bound already: the message that starts a process wins. A later one wins where its
sender has rebound a name that it sent before and the receiver has not; or where the receiver's starter sends
a module's global that is as the import has left it. All else leaves it alone.
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

    An object is remembered weakly where it can be; builtin containers, which cannot, are kept until the name
    is next sent, so that a new object at the old address is never taken for the old one.
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
_phase: dict[str, Any] = {"starting": False, "starter": None}
_pristine: dict[tuple[str, str], tuple[int, int]] = {}  # user modules' globals as the start has left them


def begin_start() -> None:
    """Say that the message being read starts this process: its bindings win over what imports have left."""
    _phase["starting"] = True


def end_start(starter: int) -> None:
    """Say that the message that starts this process, sent by the process `starter`, has been read.

    What user modules hold now is remembered, so that a later message of the same sender can bring what it
    does not: until this process itself has changed it.
    """
    _phase.update(starting=False, starter=starter)
    from bequest.carry import modules

    for module_name, module in modules.user_modules():
        for name in own_names(module.__dict__):
            _pristine[module_name, name] = _fingerprint(module.__dict__[name])


def _fingerprint(value: Any) -> tuple[int, int]:
    """Return what changes when a name is bound anew, or a small container is changed in place."""
    if type(value) in (dict, list, set) and len(value) < _MOST_LOOKED_AT:
        held = value.values() if type(value) is dict else value
        return id(value), hash((len(value), *map(id, held)))
    return id(value), 0


_MOST_LOOKED_AT = 1000


def untouched(key: str, name: str, value: Any) -> bool:
    """Tell whether a name of an imported module or class is as the import, or nobody, has left it.

    That is what decides whether a message of the process that started this one may still bring its own.
    """
    known = _pristine.get((key, name))
    return known is None or known == _fingerprint(value)


def is_starting() -> bool:
    """Tell whether the message being read starts this process."""
    return bool(_phase["starting"])


def pack_bindings(key: str, namespace: dict[str, Any], names: Any) -> tuple[Any, ...] | None:
    """Return what `bind` needs to bind `names` as they are bound in `namespace` now, or None for none."""
    absent = object()  # asked for once: another thread may unbind a name at any time
    found = {name: namespace.get(name, absent) for name in names}
    values = {name: value for name, value in found.items() if value is not absent}
    if not values:
        return None
    return os.getpid(), key, values, tuple(versions.of(key, name, value) for name, value in values.items())


def bind(namespace: dict[str, Any], packed: tuple[int, str, dict[str, Any], tuple[int, ...]]) -> None:
    """Bind names in `namespace` by the rule in the module's docstring."""
    sender, key, values, numbers = packed
    if sender == os.getpid():
        return
    for (name, value), number in zip(values.items(), numbers, strict=True):
        if wins(namespace, (key, name), sender, number):
            bind_one(namespace, (key, name), sender, number, value)


def bind_one(namespace: dict[str, Any], slot: tuple[str, str], sender: int, number: int, value: Any) -> None:
    """Bind a name and remember which of the sender's bindings it is."""
    namespace[slot[1]] = value
    _received[slot] = (sender, number, id(value))


def wins(namespace: dict[str, Any], slot: tuple[str, str], sender: int, number: int) -> bool:
    """Tell whether a binding that arrives replaces the one that is here; see the module's docstring."""
    key, name = slot
    if name not in namespace or _phase["starting"]:
        return True
    known = _received.get(slot)
    if known is not None:
        return known[0] == sender and known[1] != number and known[2] == id(namespace[name])
    return sender == _phase["starter"] and key != "__main__" and untouched(key, name, namespace[name])


def is_from_starter(sender: int) -> bool:
    """Tell whether a message comes from the process that started this one, or starts it."""
    return bool(_phase["starting"] or sender == _phase["starter"])


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
    """Return the object that a user module's global is, made empty where the import made no such one."""
    from bequest.carry import instances

    namespace = module_namespace(module_name)
    found = namespace.get(name)
    if type(found) is not kind:
        found = namespace[name] = instances.create(kind, base, value)
        _made.add(id(found))
    return found


_made: set[int] = set()


def set_global(found: Any, state: Any) -> None:
    """Bring what `find_global` returned up to date, in a process that starts; later it is its own."""
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
