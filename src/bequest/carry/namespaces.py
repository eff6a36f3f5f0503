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


def search_path() -> list[str]:
    """Return `sys.path`."""
    return sys.path


def arguments() -> list[str]:
    """Return `sys.argv`; a program may have deleted it."""
    found: list[str] = getattr(sys, "argv", [])
    return found


def import_module(name: str) -> Any:
    """Import a module by its dotted name and return it."""
    found = sys.modules.get(name)
    if found is None:
        __import__(name)
        found = sys.modules[name]
    return found


def module_namespace(name: str) -> dict[str, Any]:
    """Return the namespace of an importable module, or of `__main__`."""
    namespace: dict[str, Any] = import_module(name).__dict__
    return namespace


def made_module(name: str) -> ModuleType:
    """Return the module `name` that no import finds, made empty and listed unless it is here already."""
    found = sys.modules.get(name)
    if found is None:
        found = sys.modules[name] = new_module(name)
    return found


def new_module(name: str) -> ModuleType:
    """Return an empty module that `sys.modules` does not list."""
    made = ModuleType(name)
    made.__dict__["__builtins__"] = builtins.__dict__
    return made


def fill_new_module(module: ModuleType, values: dict[str, Any]) -> None:
    """Give a module of `new_module` its names."""
    module.__dict__.update(values)


def namespace_of(module: ModuleType) -> dict[str, Any]:
    """Return the namespace of a module of `new_module`."""
    return module.__dict__


def module_of(module: ModuleType, kind: type | None) -> ModuleType:
    """Return a module of `new_module`, with its class, where that is not plain `module`."""
    if kind is not None:
        module.__class__ = kind
    return module


def made_namespace(name: str) -> dict[str, Any]:
    """Return the namespace of a listed module that no import finds."""
    return made_module(name).__dict__


def fill_module(module: ModuleType, state: tuple[type | None, tuple[Any, ...] | None]) -> None:
    """Give a made module its class, where that is not plain `module`, and its names."""
    kind, packed = state
    if packed is not None:
        bindings.bind(module.__dict__, packed)
    if kind is not None:
        module.__class__ = kind


def find_global(module_name: str, name: str, kind: type, *how: Any) -> Any:
    """Return the object that a global of `__main__` or a user module is, made empty where there is none.

    A name that a running process has bound to something else stays its own.
    """
    from bequest.carry import instances

    namespace = module_namespace(module_name)
    found = namespace.get(name)
    if type(found) is not kind:
        found = instances.create(kind, *how)
        _made.add(id(found))
        if bindings.phase.starting or name not in namespace:
            namespace[name] = found
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
