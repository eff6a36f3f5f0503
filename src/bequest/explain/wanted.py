"""Which names of modules and classes the code of a start can see: those whose values matter to a child.

Observer (after a pass) -> names_wanted -> {"app.settings": ["DEBUG"], "__main__:Board": ["size"], ...}
"""

from __future__ import annotations

import sys
from types import FunctionType
from typing import Any

from bequest.carry import modules
from bequest.carry.reads import reads
from bequest.explain.observe import Observer

_MAIN = "__main__"


def names_wanted(observer: Observer) -> dict[str, list[str]]:
    """Return the names by module, or by module and class with a colon between."""
    wanted: dict[str, set[str]] = {}
    reach = observer.reach
    main = sys.modules[_MAIN].__dict__
    for obj in observer.objects.values():
        if isinstance(obj, FunctionType) and obj.__globals__ is main:
            found = reads(obj.__code__)
            names = set(main) if found.whole else found.names
            names = {n for n in names if n in main and (_matters(n) or n in found.names & {"__name__"})}
            wanted.setdefault(_MAIN, set()).update(names)
        elif isinstance(obj, type) and obj.__module__ == _MAIN:
            _add_class(wanted, obj, reach._attributes)
    for name, module in reach._modules.items():
        if modules.is_user_module(module):
            names = (reach._names.get(name, set()) | reach._attributes) & vars(module).keys()
            wanted.setdefault(name, set()).update(n for n in names if _matters(n))
    for home, name in reach._done:
        if home in sys.modules and not modules.is_user_module(sys.modules[home]):
            wanted.setdefault(home, set()).add(name)
    for kind in list(reach._classes.values()):
        _add_class(wanted, kind, reach._attributes)
    return {home: sorted(names) for home, names in wanted.items() if names}


def _add_class(wanted: dict[str, set[str]], kind: type, attributes: set[str]) -> None:
    names = {name for name in attributes & kind.__dict__.keys() if _matters(name)}
    if names and "<locals>" not in kind.__qualname__:
        wanted.setdefault(f"{kind.__module__}:{kind.__qualname__}", set()).update(names)


def _matters(name: str) -> bool:
    """Leave out what an import sets."""
    return not (name.startswith("__") and name.endswith("__"))


def modules_touched(observer: Observer) -> set[str]:
    """Return the names of the modules that the code can touch, with those that it reaches by objects."""
    return {*observer.named, *observer.reach._modules, *_modules_of(observer.objects)}


def _modules_of(objects: dict[int, Any]) -> set[str]:
    found = set()
    for obj in objects.values():
        name = (
            getattr(obj, "__module__", None) if isinstance(obj, type | FunctionType) else type(obj).__module__
        )
        if isinstance(name, str):
            found.add(name)
    return found
