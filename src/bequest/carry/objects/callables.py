"""Callables and descriptors of C that pickle refuses, or finds by a name that is another object's.

    lru_cache wrapper -> function, options, what it holds -> one that holds it, without calling the function
    [].append, (5).__add__, str.upper, super() -> the class that defines it, its name, what it is bound to

Functions and methods of Python are `carry.functions`'s.
"""

from __future__ import annotations

import functools
import gc
import sys
from types import BuiltinFunctionType, ModuleType

from bequest.carry import instances
from bequest.carry.objects import originals
from bequest.carry.objects.parts import require
from bequest.carry.registry import NotCarriedError, carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bequest.carry.registry import Packing, Reduced

_HEAPTYPE, _IMMUTABLE = 1 << 9, 1 << 8
_EXACT_COUNTS = 100_000
"""Up to how many hits and misses are made again, so that `cache_info()` is the sender's; 50 ns each."""


# -- functools.lru_cache


@carries("functools._lru_cache_wrapper")
def reduce_cache(cache: Any, packing: Packing) -> Reduced:
    """The function, the options and, for a process about to start, what the cache holds.

    Other messages bring it cold: what it holds may be large, and is no part of what they say.
    """
    options = cache.cache_parameters()
    function, mark, entries = _parts_of_cache(cache)
    info = cache.cache_info()
    calls = (
        [(*_call_of(key, mark, options["typed"]), result) for key, result in entries]
        if packing.starting
        else []
    )
    counts = (info.hits, info.misses) if packing.starting else (0, 0)
    state = (function, calls, counts, dict(cache.__dict__))
    return make_cache, (options["maxsize"], options["typed"]), state, None, None, fill_cache


def _parts_of_cache(cache: Any) -> tuple[Any, Any, list[tuple[Any, Any]]]:
    """Return function, keyword mark and (key, result) pairs, the least recently used first.

    What the garbage collector is shown, on all of 3.11 to 3.15: the type; key, result and link type of each
    link; the dict of keys; the function, the mark, two types more and the `__dict__`. An unbounded cache has
    no links, but a dict of results.
    """
    referents = gc.get_referents(cache)
    start = 1 if referents[0] is type(cache) else 0
    held = cache.cache_info().currsize
    unbounded = cache.cache_parameters()["maxsize"] is None
    links = [] if unbounded else referents[start : start + 3 * held]
    rest = referents[start + len(links) :]
    table: dict[Any, Any] = {}
    if cache.cache_parameters()["maxsize"] != 0:
        table, *rest = rest
    elif type(rest[0]) is dict and not rest[0] and len(rest) > 1:
        rest = rest[1:]
    pairs = list(table.items()) if unbounded else list(zip(links[0::3], links[1::3], strict=True))
    return rest[0], rest[1], pairs


def _call_of(key: Any, mark: Any, typed: bool) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of the call that `key` stands for."""
    if not typed and type(key) in (int, str):  # one such argument is its own key
        return (key,), {}
    parts = list(key)
    if mark in (known for known in parts if known is mark):
        split = next(place for place, part in enumerate(parts) if part is mark)
        args, words = parts[:split], parts[split + 1 :]
    else:
        args, words = parts, []
    if typed:  # the types of all arguments follow
        if words:
            words = words[: len(words) - len(args) - _count_words(len(words), len(args))]
        else:
            args = args[: len(args) // 2]
    return tuple(args), dict(zip(words[0::2], words[1::2], strict=True))


def _count_words(size: int, args: int) -> int:
    """Return how many keywords there are: each takes two places and a type, and each argument a type."""
    return (size - args) // 3


class _Pending:
    """Gives the results that are held, one for each call, in place of the function."""

    def __init__(self) -> None:
        self.result: Any = None
        self.refuses = False

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        if self.refuses:
            raise LookupError
        return self.result


def make_cache(maxsize: int | None, typed: bool) -> Any:
    """Return an empty cache; its function can be put in later, since a partial stands for it."""
    late = functools.partial(_Pending())
    make: Any = functools._lru_cache_wrapper
    made = make(late, maxsize, typed, functools._CacheInfo)
    made.__dict__.clear()
    made.__dict__["__wrapped__"] = late
    return made


def fill_cache(cache: Any, state: tuple[Any, ...]) -> None:
    """Put entries, counts, function and attributes into a cache of `make_cache`."""
    function, calls, (hits, misses), attributes = state
    late = cache.__dict__.pop("__wrapped__")
    pending = late.func
    pending.refuses = True
    for _ in range(min(misses - len(calls), _EXACT_COUNTS)):
        _try_call(cache, (_Pending(),), {})
    pending.refuses = False
    for args, keywords, result in calls:
        pending.result = result
        _try_call(cache, args, keywords)
    if calls:
        args, keywords, _ = calls[-1]  # the one used last: using it again changes no order
        for _ in range(min(hits, _EXACT_COUNTS)):
            _try_call(cache, args, keywords)
    late.__setstate__((function, (), {}, None))
    cache.__dict__.update(attributes)


def _try_call(cache: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    try:
        cache(*args, **keywords)
    except Exception:  # noqa: BLE001, S110 - a key whose __hash__ needs what comes later: not cached
        pass


# -- functions and methods of C


@carries("builtins.builtin_function_or_method", "builtins.builtin_method")
def reduce_builtin(function: BuiltinFunctionType, packing: Packing) -> Reduced:
    """A function by its module, a method by the class that defines it and what it is bound to."""
    owner = function.__self__
    if (
        owner is None and "." in function.__qualname__
    ):  # a static method, whose class only the collector is shown
        owner = next((part for part in gc.get_referents(function) if isinstance(part, type)), None)
    if owner is None or isinstance(owner, ModuleType):
        return _reduce_global(function)
    if isinstance(owner, type):
        return _reduce_class_method(function, owner)
    name = function.__name__
    require(owner, packing)
    for kind in type(owner).__mro__:
        found = kind.__dict__.get(name)
        if found is not None and _is_bound_as(found, owner, function):
            # A class of C may be found by no name; its instances find the method themselves.
            if _is_plain(type(owner)):
                return getattr, (owner, name)
            return bind, (kind, name, owner)
    raise NotCarriedError(
        f"no class of its object defines {name!r}", "Pass the object and call the method there"
    )


def _is_bound_as(found: Any, owner: Any, function: Any) -> bool:
    get = getattr(type(found), "__get__", None)
    return (
        get is not None
        and type(found).__name__ == "method_descriptor"
        and bool(get(found, owner, type(owner)) == function)
    )


def _is_plain(kind: type) -> bool:
    """Tell whether `getattr` on an instance finds what the class has: it is not a class of Python code."""
    is_static = not kind.__flags__ & _HEAPTYPE or bool(kind.__flags__ & _IMMUTABLE)
    return is_static or "__module__" not in kind.__dict__


def _reduce_class_method(function: Any, owner: Any) -> Reduced:
    name = function.__name__
    if getattr(owner, name, None) == function:
        return getattr, (owner, name)
    for kind in owner.__mro__:
        found: Any = kind.__dict__.get(name)
        if type(found).__name__ == "classmethod_descriptor" and found.__get__(None, owner) == function:
            return bind_class, (kind, name, owner)
    for kind in type(owner).__mro__:  # of the metaclass: type.mro
        found = kind.__dict__.get(name)
        if found is not None and _is_bound_as(found, owner, function):
            return bind, (kind, name, owner)
    raise NotCarriedError(f"its class does not define {name!r}", "Pass the class and call the method there")


def _reduce_global(function: Any) -> Reduced:
    """A function of C by where it is found, or, where something else has its name by now, as the original."""
    place = _place_of(function)
    if place is not None:
        return find_function, place
    home = originals.home_of(function)
    if home is not None:
        return originals.original, home
    raise NotCarriedError("no module has it under its name", "Look it up in the process that calls it")


def _place_of(function: Any) -> tuple[str, str] | None:
    """Return a module and a name in it that are `function`, None where there is none."""
    name = function.__qualname__
    first = [function.__module__, getattr(getattr(function, "__self__", None), "__name__", None)]
    for place in first:
        if place and getattr(sys.modules.get(place), name, None) is function:
            return place, name
    for place, module in list(sys.modules.items()):
        if place != "__main__" and isinstance(module, ModuleType) and module.__dict__.get(name) is function:
            return place, name
    return None


def find_function(module: str, name: str) -> Any:
    """Return a global of a module."""
    import importlib

    return getattr(importlib.import_module(module), name)


def bind(kind: Any, name: str, owner: Any) -> Any:
    """Return the method that `kind` defines as `name`, bound to `owner`, which may call another one that."""
    return kind.__dict__[name].__get__(owner, type(owner))


def bind_class(kind: type, name: str, owner: type) -> Any:
    """Return the class method that `kind` defines as `name`, bound to `owner`."""
    return kind.__dict__[name].__get__(None, owner)


@carries("builtins.method-wrapper")
def reduce_method_wrapper(method: Any, packing: Packing) -> Reduced:
    """`(5).__add__`: of the class that defines it, not of one that overrides it."""
    require(method.__self__, packing)
    return bind, (method.__objclass__, method.__name__, method.__self__)


@carries(
    "builtins.wrapper_descriptor",
    "builtins.method_descriptor",
    "builtins.classmethod_descriptor",
    "builtins.getset_descriptor",
    "builtins.member_descriptor",
)
def reduce_descriptor(descriptor: Any, packing: Packing) -> Reduced:
    """What stands in the namespace of its class under its name."""
    kind, name = descriptor.__objclass__, descriptor.__name__
    if kind.__dict__.get(name) is not descriptor:  # since 3.15 all classes share `__dict__` and `__weakref__`
        kind = _Plain
        if kind.__dict__.get(name) is not descriptor:
            raise NotCarriedError(f"its class has another {name!r} by now", "Pass the class")
    return find_descriptor, (kind, name)


class _Plain:
    """Has the descriptors that classes have by default."""


def find_descriptor(kind: type, name: str) -> Any:
    """Return what the class itself has as `name`, unbound."""
    return kind.__dict__[name]


@carries("builtins.super", subclasses=True)
def reduce_super(above: super, packing: Packing) -> Reduced:
    """Asked through its type, since attributes of a super object are its object's."""
    kind = type(above)
    thisclass = super.__dict__["__thisclass__"].__get__(above)
    owner = super.__dict__["__self__"].__get__(above)
    return kind, ((thisclass,) if owner is None else (thisclass, owner))


@carries("builtins.property", "builtins.staticmethod", "builtins.classmethod", subclasses=True)
def reduce_wrapping(wrapper: Any, packing: Packing) -> Reduced:
    """An instance of a class derived from these: the functions that it wraps, attributes and slots."""
    kind = type(wrapper)
    base = next(base for base in (property, staticmethod, classmethod) if base in kind.__mro__)
    names = ("fget", "fset", "fdel") if base is property else ("__func__",)
    # Asked through the base: the user's class may have attributes of the same names.
    wrapped = tuple(base.__dict__[name].__get__(wrapper) for name in names)
    attributes = (instances.instance_dict(wrapper) or None, instances.read_slots(wrapper) or None, None)
    state = (base, wrapped, attributes)
    return instances.create, (kind, base, None), state, None, None, fill_wrapping


def fill_wrapping(wrapper: Any, state: tuple[Any, tuple[Any, ...], Any]) -> None:
    """Give a wrapper that `create` made its functions, attributes and slots."""
    base, wrapped, attributes = state
    base.__init__(wrapper, *wrapped)
    instances.fill(wrapper, attributes)


@carries("functools.partialmethod", subclasses=True)
def reduce_partial_method(method: Any, packing: Packing) -> Reduced:
    """By state: since 3.14 its `__new__` wants the function."""
    return instances.reduce_by_state(method)


# -- numpy


@carries("numpy._ArrayFunctionDispatcher")
def reduce_dispatcher(function: Any, packing: Packing) -> Reduced:
    """A function of numpy's that others may override for their arrays."""
    return packing.own_way(function) if "." in function.__qualname__ else _reduce_global(function)


@carries("numpy.ufunc")
def reduce_ufunc(function: Any, packing: Packing) -> Reduced:
    """A universal function by name, or, where `frompyfunc` has made it, by the function that it applies."""
    name = function.__name__
    for place in ("numpy", "numpy._core.umath", "numpy.core.umath"):
        if getattr(sys.modules.get(place), name, None) is function:
            return find_function, (place, name)
    for place, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and place != "__main__" and module.__dict__.get(name) is function:
            return find_function, (place, name)
    applied = [part for part in gc.get_referents(function) if callable(part)]
    if not applied:
        raise NotCarriedError("no module has it under its name", "Make it in the process that uses it")
    return make_ufunc, (applied[0], function.nin, function.nout, function.identity)


def make_ufunc(function: Callable[..., Any], nin: int, nout: int, identity: Any) -> Any:
    """Return `numpy.frompyfunc` of `function`."""
    import numpy

    return numpy.frompyfunc(function, nin, nout, **({} if identity is None else {"identity": identity}))
