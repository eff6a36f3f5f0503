"""What tells a value in one process from a value in another: a short text that is equal for equal values.

value -> fingerprint(value) -> "a1b2c3d4e5f6 {'debug': True}"

Both sides of `bequest check` use it, the program and the process that stands for a child of plain Python. It
runs no code of the user's: his objects are looked at, not asked.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from bequest.carry import instances, modules

_MOST_OBJECTS = 20_000
_DEEPEST = 12
_SHOWN = 60
_ATOMS: tuple[type, ...] = (*instances.ATOMS, bytearray, range, type(...))
# What two processes share only where it was handed over: one that an import makes anew is another one.
_SHARED_MODULES = (
    "multiprocessing.synchronize",
    "multiprocessing.queues",
    "multiprocessing.connection",
    "multiprocessing.sharedctypes",
    "multiprocessing.managers",
    "multiprocessing.shared_memory",
    "bequest.explain.probe",  # its placeholder for one of them
    "socket",
)
_MAIN_NAMES = ("__main__", "__mp_main__")


def fingerprint(value: Any, *, owner: int) -> str:
    """Return the fingerprint of a value.

    Args:
        value: Anything.
        owner: Process id: what stands for a lock, queue or the like, which is equal only to itself; 0 where
            it has been handed over.
    """
    walk = _Walk(owner)
    walk.add(value, 0)
    return f"{walk.digest()} {_short(value)}"


def shown(text: str) -> str:
    """Return the part of a fingerprint that a person reads."""
    return text.partition(" ")[2] or text


def is_same(one: str, other: str) -> bool:
    """Tell whether two fingerprints are those of equal values."""
    return one.partition(" ")[0] == other.partition(" ")[0]


def _short(value: Any) -> str:
    if isinstance(value, FunctionType | type):
        return f"{value.__module__}.{value.__qualname__}"
    if type(value) in (*_ATOMS, list, tuple, dict, set, frozenset) and _is_plain(value, 2):
        text = repr(value)
        return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
    return f"a {_kind_of(value)}"


def _is_plain(value: Any, depth: int) -> bool:
    if type(value) in _ATOMS:
        return True
    if not depth or type(value) not in (list, tuple, dict, set, frozenset) or len(value) > 20:
        return False
    members = (*value.keys(), *value.values()) if type(value) is dict else tuple(value)
    return all(_is_plain(member, depth - 1) for member in members)


def _kind_of(value: Any) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ in ("builtins", *_MAIN_NAMES)
        else f"{kind.__module__}.{kind.__qualname__}"
    )


class _Walk:
    """One value and all that it holds, down to some depth."""

    def __init__(self, owner: int) -> None:
        self._hash = hashlib.blake2b(digest_size=6)
        self._owner = owner
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []
        self._roots: dict[int, int] = {}  # of arrays: what owns their memory

    def digest(self) -> str:
        """Return what has been added so far, as text."""
        return self._hash.hexdigest()

    def _note(self, *texts: object) -> None:
        self._hash.update(("|".join(map(str, texts)) + "\n").encode(errors="backslashreplace"))

    def add(self, value: Any, depth: int) -> None:
        """Take one value in."""
        kind = type(value)
        if kind in _ATOMS:
            self._note(kind.__name__, repr(value))
            return
        known = self._seen.get(id(value))
        if known is not None:
            self._note("again", known)
            return
        if len(self._seen) >= _MOST_OBJECTS or depth > _DEEPEST:
            self._note("more")
            return
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        adding: Any = _ADDING.get(kind)
        if adding is not None:
            adding(self, value, depth + 1)
        elif isinstance(value, type):
            self._note("class", _home(value), value.__qualname__)
        else:
            self._add_instance(value, depth + 1)

    def _add_sequence(self, value: Any, depth: int) -> None:
        self._note(type(value).__name__, len(value))
        for member in list(value):
            self.add(member, depth)

    def _add_set(self, value: Any, depth: int) -> None:
        self._note(type(value).__name__, len(value))
        for text in sorted(fingerprint(member, owner=self._owner) for member in list(value)[:1000]):
            self._note(text)

    def _add_dict(self, value: dict[Any, Any], depth: int) -> None:
        self._note("dict", len(value))
        for key, member in list(value.items()):
            self.add(key, depth)
            self.add(member, depth)

    def _add_function(self, value: FunctionType, depth: int) -> None:
        self._note("function", _home(value), value.__qualname__)
        self.add(value.__code__, depth)
        for part in (value.__defaults__, value.__kwdefaults__, value.__dict__ or None):
            self.add(part, depth)
        for cell in value.__closure__ or ():
            try:
                self.add(cell.cell_contents, depth)
            except ValueError:  # empty
                self._note("empty")

    def _add_method(self, value: MethodType, depth: int) -> None:
        self.add(value.__func__, depth)
        self.add(value.__self__, depth)

    def _add_code(self, value: CodeType, depth: int) -> None:
        self._note("code", value.co_name, value.co_code.hex(), value.co_names)
        for constant in value.co_consts:
            self.add(constant, depth)

    def _add_module(self, value: ModuleType, depth: int) -> None:
        name = getattr(value, "__name__", "")
        self._note("module", "__main__" if name in _MAIN_NAMES else name)

    def _add_builtin(self, value: BuiltinFunctionType, depth: int) -> None:
        self._note("builtin", value.__qualname__)
        if not isinstance(value.__self__, ModuleType):
            self.add(value.__self__, depth)

    def _add_instance(self, value: Any, depth: int) -> None:
        kind = type(value)
        if any(base.__module__ in _SHARED_MODULES for base in kind.__mro__):
            self._note("shared", self._owner)
            return
        self._note("instance", _home(kind), kind.__qualname__)
        top = kind.__module__.partition(".")[0]
        if top in sys.stdlib_module_names and top != "__main__":
            self._add_standard(value, depth)
            return
        if top not in _MAIN_NAMES and not modules.is_users_class(kind):
            self._note(*_array(value, self._roots) if top == "numpy" else ())
            return
        held = {**(instances.instance_dict(value) or {}), **instances.read_slots(value)}
        for name in held:
            self._note(name)
            self.add(held[name], depth)
        base = instances.solid_base(kind)
        if base in (dict, list, tuple, set, frozenset, int, float, str, bytes):
            self.add(base(value), depth)
        elif isinstance(value, BaseException):
            self.add(value.args, depth)

    def _add_standard(self, value: Any, depth: int) -> None:
        """Take in an object of the standard library by what it says of itself when it is pickled."""
        kind = type(value)
        known: Any = _STANDARD.get(f"{kind.__module__}.{kind.__qualname__}")
        if known is not None:
            self.add(known(value), depth)
        if known is not None or kind.__module__ in ("_thread", "threading", "_io", "weakref", "_weakref"):
            return
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:  # noqa: BLE001 - it cannot be pickled, for whatever reason: then its type must do
            return
        for part in reduced if type(reduced) is tuple else (reduced,):
            self.add(list(part) if hasattr(part, "__next__") else part, depth)


def _array(value: Any, known: dict[int, int]) -> tuple[object, ...]:
    """Return what an array is, and which of the arrays seen before has its memory."""
    try:
        root = value
        while getattr(root, "base", None) is not None:
            root = root.base
        shared = known.setdefault(id(root), len(known))
        content = hashlib.blake2b(value.tobytes()).hexdigest()
        return (value.shape, str(value.dtype), content, value.flags.writeable, shared)
    except (AttributeError, TypeError, ValueError):  # not an array after all
        return ("array",)


def _home(value: Any) -> str:
    home = getattr(value, "__module__", "")
    return "__main__" if home in _MAIN_NAMES else str(home)


# Objects that do not say what they hold when they are pickled, or not what matters here.
_STANDARD: dict[str, Any] = {
    "_thread._local": lambda value: dict(vars(value)),  # as this thread has it
    "functools._lru_cache_wrapper": lambda value: value.cache_info().currsize,
    "weakref.WeakKeyDictionary": len,
    "weakref.WeakValueDictionary": len,
    "_weakrefset.WeakSet": len,
    "_contextvars.ContextVar": lambda value: value.name,
}
_ADDING: dict[type, Any] = {
    list: _Walk._add_sequence,
    tuple: _Walk._add_sequence,
    dict: _Walk._add_dict,
    set: _Walk._add_set,
    frozenset: _Walk._add_set,
    FunctionType: _Walk._add_function,
    MethodType: _Walk._add_method,
    BuiltinFunctionType: _Walk._add_builtin,
    CodeType: _Walk._add_code,
    ModuleType: _Walk._add_module,
}


MISSING = "missing"


def globals_of(wanted: dict[str, list[str]], owner: int) -> dict[str, dict[str, str]]:
    """Return the fingerprints of names of modules and classes; MISSING for those that are not there.

    Args:
        wanted: Names by module, or by module and class with a colon between.
        owner: As in `fingerprint`.
    """
    found: dict[str, dict[str, str]] = {}
    for home, names in wanted.items():
        module_name, _, path = home.partition(":")
        place: Any = sys.modules.get(module_name) or _imported(module_name)
        for part in path.split(".") if path else ():
            place = getattr(place, part, None)
        if place is None:
            continue
        own = vars(place)
        found[home] = {
            name: fingerprint(own[name], owner=owner) if name in own else MISSING for name in names
        }
    return found


def _imported(name: str) -> Any:
    """Return a module as the code that reads it would get it; None where that fails, as it then would."""
    try:
        return importlib.import_module(name)
    except Exception:  # noqa: BLE001 - the module's own code may raise anything
        return None


def ambient(owner: int) -> dict[str, str]:
    """Return the fingerprints of this process's ambient state, by "family: name"."""
    from bequest.carry.ambient import capture, capture_plain

    state: dict[str, str] = {}
    for families in (capture_plain(), capture()):
        for family, names in families.items():
            for name, value in names.items():
                state[f"{family}: {name}"] = fingerprint(value, owner=owner)
    return state
