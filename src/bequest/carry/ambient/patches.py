"""What user code has put on libraries: functions, classes and objects of its own, in modules and classes.

    parent: scan of the loaded library modules -> per module, changes that name what they bind
    child:  bound at once where the module is loaded, else when it is imported there

The code that runs a patch is mostly the library's own (`threading.Thread.run`), which goes by name and whose
names nobody reads here; so patches travel whatever the target is. Looked at are the libraries that user code
names: a patch needs a reference. Objects other than functions, classes, the descriptors that hold them, mocks
and instances of user classes are not looked for. Data under names that a library does not have of its own
comes this way too, from `reach`, which knows what the carried code reads.
"""

from __future__ import annotations

import sys
from itertools import chain
from operator import is_
from types import FunctionType, ModuleType

from bequest.carry.ambient import waiting
from bequest.carry.ambient.adopter import Adopter, is_stand_in, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # The class that has the name ("" is the module itself), the name, its value, and whether it is only
    # bound where there is no such name.
    Change = tuple[str, str, Any, bool]

_FAMILY = "patches"
_HEAPTYPE = 1 << 9
_PARTS = ("__func__", "fget", "fset", "fdel", "func")
_NO_LIBRARIES = ("__main__", "__mp_main__", "bequest")
# Modules in which objects of users' classes are what a process has of its own, or what other adopters carry.
_OWN_OBJECTS = frozenset(("sys", "builtins", "threading", "multiprocessing", "concurrent"))
_MANY_MODULES = 30  # of a package: then only those are looked at that user code names itself; 20 us for each


class _Scanned:
    """What was seen of one module at the last scan.

    Attributes:
        module: The module.
        held: All that the module and its classes held.
        classes: The classes that are its own, with their names.
        patched: Pairs of a class's name, or "", and the name of a patch.
    """

    __slots__ = ("_views", "classes", "held", "module", "patched")

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.classes = _own_classes(module)
        # Live: they show what is bound at the time.
        self._views = [vars(module).values(), *(vars(kind).values() for _, kind in self.classes)]
        self.held = self.look()
        places = [("", vars(module)), *((name, vars(kind)) for name, kind in self.classes)]
        users = _Users(module.__name__)
        self.patched = [
            (place, name)
            for place, namespace in places
            for name, value in list(namespace.items())
            if users.made(value)
        ]

    def look(self) -> list[Any]:
        """Return all that the module and its classes hold now."""
        return list(chain.from_iterable(self._views))

    def is_current(self) -> bool:
        """Tell whether nothing has been bound anew since the scan."""
        now = self.look()
        # In C, and without a word to the objects, whose `__eq__` may be anybody's.
        return len(now) == len(self.held) and all(map(is_, now, self.held))


def _own_classes(module: ModuleType) -> list[tuple[str, type]]:
    own = module.__name__
    return [
        (name, value)
        for name, value in list(vars(module).items())
        if isinstance(value, type)
        and value.__flags__ & _HEAPTYPE
        and value.__dict__.get("__module__") == own
        and value.__name__ == name
    ]


class _Users:
    """Tells what user code has made, by the module that it names."""

    def __init__(self, looked_at: str) -> None:
        self._known: dict[Any, bool] = {"unittest.mock": False}
        self._tells_instances = looked_at.partition(".")[0] not in _OWN_OBJECTS

    def made(self, value: Any) -> bool:
        """Tell whether user code has made `value`: a function, a class, what holds one, an instance."""
        kind = type(value)
        if kind is FunctionType or issubclass(kind, type):
            return self._is_users(value.__module__)
        if kind in (staticmethod, classmethod, property) or kind.__module__ == "functools":
            parts = (getattr(value, name, None) for name in _PARTS)
            return any(type(part) is FunctionType and self._is_users(part.__module__) for part in parts)
        if self._tells_instances and kind.__flags__ & _HEAPTYPE and self._is_users(kind.__module__):
            from bequest.carry.instances import solid_base

            # Not one that an extension has made (Cython keeps its function type in a module without a file).
            return solid_base(kind) is not kind
        return kind.__module__ == "unittest.mock" and hasattr(kind, "assert_has_calls")

    def _is_users(self, name: Any) -> bool:
        if not isinstance(name, str):
            return False
        if name not in self._known:
            from bequest.carry import modules

            module = sys.modules.get(name)
            self._known[name] = module is not None and (
                modules.is_main(module) or modules.is_user_module(module)
            )
        return self._known[name]


class _Named:
    """The modules that user code has names for, remembered for each of its namespaces until it grows."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[int, frozenset[str]]] = {}
        self._whole: tuple[Any, list[str]] = (None, [])

    def modules(self) -> list[str]:
        """Return the names of the loaded modules to look at."""
        from bequest.carry import modules

        named: frozenset[str] = frozenset().union(
            *(
                self._named_in(name, module)
                for name, module in [("__main__", modules.main_module()), *modules.user_modules()]
            )
        )
        state = (named, len(sys.modules))
        if self._whole[0] != state:
            self._whole = (state, _with_siblings(named))
        return self._whole[1]

    def _named_in(self, name: str, module: ModuleType) -> frozenset[str]:
        namespace = vars(module)
        size, found = self._of.get(name, (-1, frozenset[str]()))
        if size != len(namespace):
            found = frozenset().union(*map(_names_of, list(namespace.values())))
            self._of[name] = (len(namespace), found)
        return found


def _names_of(value: Any) -> set[str]:
    """Return the names of the modules that a global gives its code access to."""
    if isinstance(value, ModuleType):
        return {value.__name__}
    if type(value) is FunctionType:
        from bequest.carry.reads import reads

        return {str(value.__module__), *reads(value.__code__).imports}
    return {str(value.__module__)} if isinstance(value, type) else set()


def _with_siblings(named: frozenset[str]) -> list[str]:
    """Add the loaded modules of the packages that the named ones belong to, unless they are many."""
    packages: dict[str, list[str]] = {name.partition(".")[0]: [] for name in named}
    for name in _NO_LIBRARIES:
        packages.pop(name, None)
    for name in list(sys.modules):
        packages.get(name.partition(".")[0], []).append(name)
    small = (loaded for loaded in packages.values() if len(loaded) <= _MANY_MODULES)
    found = {name for name in named if name in sys.modules and name.partition(".")[0] in packages}
    return sorted(found.union(*small))


_named = _Named()
_scanned: dict[str, _Scanned] = {}


def capture() -> dict[str, list[Change]] | None:
    """Return the patches of the libraries that user code names, and those that wait here, per module."""
    state: dict[str, list[Change]] = {}
    for name in _named.modules():
        seen = _scan(name, sys.modules.get(name))
        if seen is not None and seen.patched:
            state[name] = list(_changes(seen))
    for (family, owner), changes in waiting.still_waiting().items():
        if family == _FAMILY:  # under a name that no adopter of this family has, so once is enough
            state.setdefault(owner, []).extend(changes)
    return state or None


def _scan(name: str, module: Any) -> _Scanned | None:
    seen = _scanned.get(name)
    if seen is not None and seen.module is module and seen.is_current():
        return seen
    if (seen is None or seen.module is not module) and not _is_library(name, module):
        return None
    seen = _scanned[name] = _Scanned(module)
    return seen


def _is_library(name: str, module: Any) -> bool:
    from bequest.carry import modules

    if not isinstance(module, ModuleType) or getattr(module, "__name__", None) != name:
        return False
    if name == "unittest.mock":
        return False
    return not modules.is_main(module) and not modules.is_user_module(module)


def _changes(seen: _Scanned) -> list[Change]:
    classes: dict[str, Any] = {"": seen.module, **dict(seen.classes)}
    return [(place, name, vars(classes[place])[name], False) for place, name in seen.patched]


def restore(state: dict[str, list[Change]]) -> None:
    """Bind what `capture` found, in the modules that are loaded here and in others as they come."""
    for owner, changes in state.items():
        bind_or_wait(owner, changes)


def bind_or_wait(owner: str, changes: list[Change]) -> None:
    """Bind names in the library module `owner`: at once if it is loaded here, else when its code has run."""
    if owner in sys.modules:
        _bind(owner, changes)
        return
    key = (_FAMILY, owner)
    before: list[Change] = waiting.still_waiting().get(key, [])
    waiting.wait_for(owner, key, [*before, *changes], lambda late: _bind(owner, late))


def _bind(owner: str, changes: list[Change]) -> None:
    module = sys.modules[owner]
    for place, name, value, only_new in changes:
        holder: Any = vars(module).get(place) if place else module
        if is_stand_in(value) or holder is None:
            report("not restored: %s", ".".join(filter(None, (owner, place, name))))
        elif not (only_new and name in vars(holder)) and vars(holder).get(name) is not value:
            setattr(holder, name, value)


ADOPTERS = (Adopter("patches", capture, restore),)
