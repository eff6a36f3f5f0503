"""The namespaces that carried code lives in: the one `__main__`, modules, and objects that are their globals.

a reference in the stream -> main_namespace(), module_namespace(name), find_global(...) in the receiver
"""

from __future__ import annotations

import builtins
import sys
from types import ModuleType

from bequest.carry import bindings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MODULE_DUNDERS = frozenset(
    ("__builtins__", "__cached__", "__doc__", "__file__", "__loader__", "__name__", "__package__", "__spec__")
)


def own_names(namespace: dict[str, Any]) -> list[str]:
    """Return the names of a module's namespace but for those that the import system sets."""
    return [name for name in list(namespace) if name not in _MODULE_DUNDERS]


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
        bindings.bind(module.__dict__, packed)
    if kind is not None:
        module.__class__ = kind


def find_global(module_name: str, name: str, kind: type, *how: Any) -> Any:
    """Return the object that a user module's global is, made empty where the import made no such one."""
    from bequest.carry import instances

    namespace = module_namespace(module_name)
    found = namespace.get(name)
    if type(found) is not kind:
        found = namespace[name] = instances.create(kind, *how)
        _made.add(id(found))
    return found


_made: set[int] = set()


def set_global(found: Any, state: Any) -> None:
    """Bring what `find_global` returned up to date, in a process that starts; later it is its own."""
    from bequest.carry import instances

    if id(found) in _made or bindings.phase.starting:
        _made.discard(id(found))
        attributes = getattr(found, "__dict__", None)
        if attributes is not None and type(found).__module__ != "builtins":
            attributes.clear()
        instances.fill(found, state)


def find_attribute(module_name: str, name: str) -> Any:
    """Return a global of an importable module."""
    return getattr(import_module(module_name), name)
