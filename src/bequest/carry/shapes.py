"""How an instance is reduced: by what its class says, and by whose class it is.

shape_of(class) -> PLAIN, COPIED, ...       library_global(obj), registered_reducers(), describe_kind(obj)
"""

from __future__ import annotations

import copyreg
import sys
from types import ModuleType
from typing import Any

from bequest.carry import instances, modules, namespaces
from bequest.carry.remember import Remembered

# How instances of a class are reduced.
PLAIN, COPIED, COPIED_UNLESS_GLOBAL, OWN_WAY_BUT_USERS, DERIVED, OWN_WAY = range(6)
_PICKLING = (
    "__reduce_ex__",
    "__reduce__",
    "__getstate__",
    "__setstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
)
_shapes = Remembered()


def shape_of(kind: type) -> int:
    """Return how instances of `kind` are reduced."""
    known: int | None = _shapes.get(kind)
    return int(_shapes.put(kind, _find_shape(kind))) if known is None else known


def _find_shape(kind: type) -> int:
    """Say how to reduce instances of a class.

    Pickle's default rebuilds what it took, unless the class takes part in making, reading or setting its
    instances: then the copy that runs nothing of the class is the one that is right.
    """
    if issubclass(kind, ModuleType):
        return OWN_WAY
    has_own_way = (
        kind.__reduce_ex__ is not object.__reduce_ex__
        or kind.__reduce__ is not object.__reduce__
        or kind.__getstate__ is not object.__getstate__
        or any(_has(kind, name) for name in ("__setstate__", "__getnewargs__", "__getnewargs_ex__"))
    )
    is_users = modules.is_users_class(kind)
    if not instances.can_copy(kind):
        return DERIVED if is_users else OWN_WAY
    if has_own_way and _only_builtin_way(kind):
        has_own_way = False
    if has_own_way:
        return OWN_WAY_BUT_USERS if is_users else OWN_WAY
    answers_for_others = _has(kind, "__getattr__") or kind.__getattribute__ is not object.__getattribute__
    if not is_users and kind.__module__ != "__main__":
        # Frozen, it would not let pickle set its slots; answering for others, it would be asked too early.
        is_odd = answers_for_others or kind.__setattr__ is not object.__setattr__
        return COPIED_UNLESS_GLOBAL if is_odd else OWN_WAY
    takes_part = (
        answers_for_others
        or kind.__new__ is not object.__new__
        or kind.__setattr__ is not object.__setattr__
        or instances.solid_base(kind) is not object
        # Pickle compares `__class__` with the class, and an object may claim another.
        or any("__class__" in base.__dict__ for base in kind.__mro__[:-1])
    )
    return COPIED if takes_part else PLAIN


def _has(kind: type, name: str) -> bool:
    """Tell whether a class has an attribute, without asking its metaclass, which may answer anything."""
    return any(name in base.__dict__ for base in kind.__mro__)


def makes_itself(kind: type) -> bool:
    """Tell whether a class has a `__new__` of its own that pickle can call, with nothing but the class."""
    code = getattr(kind.__new__, "__code__", None)
    if code is None or instances.solid_base(kind) is not object:
        return False
    defaults: Any = kind.__new__
    needed = code.co_argcount - len(defaults.__defaults__ or ())
    return bool(needed <= 1 and code.co_kwonlyargcount <= len(defaults.__kwdefaults__ or ()))


def _only_builtin_way(kind: type) -> bool:
    """Tell whether the only pickling methods of a class are its builtin base's (`int.__getnewargs__`)."""
    base = instances.solid_base(kind)
    return base is not object and all(
        getattr(kind, name, None) is getattr(base, name, None) for name in _PICKLING
    )


def users_say_how(kind: type) -> bool:
    """Tell whether a user's class, or one above it, says itself how its instances are pickled."""
    users = [base for base in kind.__mro__ if modules.is_users_class(base)]
    return any(name in base.__dict__ for base in users for name in _PICKLING)


_merged: dict[str, Any] = {"of": None, "table": {}}


def registered_reducers() -> dict[type, Any]:
    """Return the reducers that the user registered, with `copyreg` or with `ForkingPickler.register`."""
    reduction = sys.modules.get("multiprocessing.reduction")
    extra: dict[type, Any] = {} if reduction is None else reduction.ForkingPickler._extra_reducers
    present = (*extra.values(), *copyreg.dispatch_table.values())
    if _merged["of"] != present:  # the functions: a class may have been registered once more
        better = {kind: way for kind, way in extra.items() if not _is_outdone(kind, way)}
        _merged.update(of=present, table={**copyreg.dispatch_table, **better})
    table: dict[type, Any] = _merged["table"]
    return table


def _is_outdone(kind: Any, reducer: Any) -> bool:
    """Tell whether multiprocessing's reducer is of a time when the type could not yet reduce itself.

    That of `functools.partial` forgets the attributes.
    """
    is_standard = getattr(reducer, "__module__", None) == "multiprocessing.reduction"
    return is_standard and kind.__reduce__ is not object.__reduce__


def is_users_reducer(reducer: Any) -> bool:
    """Tell whether a registered reducer is the program's own, which then has precedence over bequest's."""
    module = sys.modules.get(getattr(reducer, "__module__", None) or "")
    return module is not None and (modules.is_main(module) or modules.is_user_module(module))


def library_global(obj: Any) -> Any:
    """Return the reduction of an object that is a global of the library module which defines its class.

    A sentinel such as `dataclasses.MISSING` is compared by identity: the receiver's own is meant.
    """
    kind: Any = type(obj)
    module = sys.modules.get(kind.__module__)
    if module is None or modules.is_main(module) or kind.__reduce_ex__ is not object.__reduce_ex__:
        return None
    if kind.__module__ == "builtins" or modules.is_user_module(module):
        return None
    for name, value in list(module.__dict__.items()):
        if value is obj:
            return namespaces.find_attribute, (module.__name__, name)
    return None


def describe_kind(obj: Any) -> str:
    """Return the qualified type name of an object, and its own name where it has one (a generator)."""
    kind = type(obj)
    text = (
        kind.__qualname__
        if kind.__module__ in ("builtins", "__main__")
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    name = getattr(obj, "__qualname__", None) if kind.__module__ == "builtins" else None
    return f"{text} {name}" if isinstance(name, str) else text


def is_from_python_code(error: BaseException) -> bool:
    """Tell whether an error that a method raised comes from Python code, not from the interpreter."""
    trace = error.__traceback__
    return trace is not None and trace.tb_next is not None
