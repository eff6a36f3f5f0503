"""Functions of C that a program has replaced in their own module, and calls by what it has saved of them.

    sender:   `real = time.time; time.time = wrapper`  -> home_of(real) == ("time", "time")
    receiver: displace() when a message replaces a name; original("time", "time") -> the function itself

A freshly imported module still has its functions. One that a message or an import has replaced since is what
was displaced, or what the one who replaced it has kept. Light: a receiver imports this to rebuild.
"""

from __future__ import annotations

import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KINDS = ("builtin_function_or_method", "_ArrayFunctionDispatcher")  # the second is numpy's (1.25 on)

_displaced: dict[tuple[str, str], Any] = {}


def displace(module_name: str, name: str, old: Any) -> None:
    """Keep `old`, which a message is about to replace, where it is a function of C in its own module.

    What a module had first is what is kept; anything else that is replaced is of no account.
    """
    if is_native_of(old, module_name, name):
        _displaced.setdefault((module_name, name), old)


def original(module_name: str, name: str) -> Any:
    """Return the function of C that module `module_name` defines as `name`, whatever has its name now.

    Raises:
        ImportError: The module cannot be imported, or nothing in this process has that function any more.
    """
    kept = _displaced.get((module_name, name))
    if kept is not None:
        return kept
    if module_name not in sys.modules:
        import importlib

        importlib.import_module(module_name)
    for found in _candidates(module_name, name):
        if is_native_of(found, module_name, name):
            return found
    raise ImportError(f"cannot find the original of {module_name}.{name}", name=module_name)


def _candidates(module_name: str, name: str) -> Any:
    """Yield where it may be: in its module, under its name in another one, anywhere; the quickest first."""
    yield sys.modules[module_name].__dict__.get(name)
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            yield module.__dict__.get(name)
    import gc

    yield from gc.get_objects()  # an import has replaced it, and keeps it under a name of its own
    for namespace in [found for found in gc.get_objects() if type(found) is dict]:
        yield from list(namespace.values())  # for kinds that the collector is not shown


def is_native_of(value: Any, module_name: str, name: str) -> bool:
    """Tell whether `value` is a function of C that says that it is `name` of that module.

    Only such a function is asked: proxies give any answer, and wrappers in Python take over names.
    """
    kind = type(value)
    if kind.__name__ not in _KINDS or kind.__module__ not in ("builtins", "numpy"):
        return False
    return (value.__module__, getattr(value, "__qualname__", None)) == (module_name, name)


def home_of(function: Any) -> tuple[str, str] | None:
    """Return module and name where a function of C was defined and something else is now, else None."""
    place, name = function.__module__, function.__qualname__
    module = sys.modules.get(place) if isinstance(place, str) else None
    if place == "__main__" or not isinstance(module, ModuleType) or name not in module.__dict__:
        return None
    return (place, name) if is_native_of(function, place, name) else None
