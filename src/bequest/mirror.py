"""Modules of multiprocessing once more, with a few of their names changed and the rest as it is.

    reflect(multiprocessing.queues, globals(), connection=bequest.connection, ...)
      -> every name of the module; in place of each function and class that the change reaches, a twin

`multiprocessing` looks up its pickler, its `Connection` and its `Listener` as globals of its modules. To
give bequest's queues, pipes and managers another pickler, the choice is to patch those modules (which would
change every library in the process: that is what `bequest.install` is for, when asked), to copy them (and
to miss every later fix), or this: run the standard library's own functions with another set of globals. The
twin of a function has its code, defaults and closure, and the mirror module's namespace for globals. The
twin of a class is a subclass of it, so that `isinstance` holds for those who ask for the standard
library's; only the methods that need it are twins. What no change reaches is the very object of the
standard library: exceptions, `wait`, `Token`.

Nothing here knows which names are changed: that is said in `bequest.connection`, `bequest.queues` and so on.
"""

from __future__ import annotations

import types
from multiprocessing import context, reduction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# What `multiprocessing` and `bequest` both call so, but where bequest's differs: a method of a context whose
# code names one of them imports it, relative to its package.
_MIRRORED = frozenset(
    {"connection", "managers", "pool", "queues", "sharedctypes", "synchronize", "forkserver"}
)


def reflect(plain: types.ModuleType, namespace: dict[str, Any], **changed: Any) -> None:
    """Fill the namespace of a mirror module with what `plain` has, as it is once `changed` is true.

    Registered reducers of a class (`ForkingPickler.register`) are registered for its twin, as twins.

    Args:
        plain: The module of multiprocessing.
        namespace: `globals()` of the mirror module; it becomes the globals of every twin.
        changed: Names of `plain` that mean something else in the mirror.
    """
    names = {name: value for name, value in vars(plain).items() if not name.startswith("__")}
    namespace.update(names, **changed)
    if "__all__" in vars(plain):
        namespace["__all__"] = list(plain.__all__)
    twins: dict[int, Any] = {id(names[name]): value for name, value in changed.items() if name in names}
    own = {n: v for n, v in names.items() if n not in changed and _is_own(v, plain)}
    reached = _reached(own, set(changed))
    for name, value in own.items():
        if name not in reached:
            continue
        if id(value) not in twins:
            is_class = isinstance(value, type)
            twins[id(value)] = (
                _derive(value, namespace, reached, twins) if is_class else rebind(value, namespace)
            )
        namespace[name] = twins[id(value)]
    _register_reducers(own, twins, namespace)


def rebind(function: types.FunctionType, namespace: dict[str, Any]) -> types.FunctionType:
    """Return a twin of `function` that looks its globals up in `namespace`, and says it is from there."""
    twin = types.FunctionType(
        function.__code__, namespace, function.__name__, function.__defaults__, function.__closure__
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    twin.__qualname__, twin.__doc__ = function.__qualname__, function.__doc__
    twin.__annotations__ = function.__annotations__
    vars(twin).update(vars(function))
    return twin


def _is_own(value: object, plain: types.ModuleType) -> bool:
    """Whether `plain` defines `value`, and it may have a twin: errors must stay what callers catch."""
    if isinstance(value, type) and issubclass(value, BaseException):
        return False
    return isinstance(value, type | types.FunctionType) and value.__module__ == plain.__name__


def _reached(own: dict[str, Any], changed: set[str]) -> set[str]:
    """Return the names whose functions or classes lead to a changed name, directly or through others."""
    called = {id(value): name for name, value in own.items()}
    read = {name: {*_names_of(value), *_parts_of(value, called)} for name, value in own.items()}
    reached = set(changed)
    while more := {name for name in own if name not in reached and read[name] & reached}:
        reached |= more
    return reached


def _names_of(value: Any) -> Iterator[str]:
    """Yield the global names, and attributes too, that code, a function or the methods of a class use."""
    if isinstance(value, types.CodeType):
        yield from value.co_names
        for constant in value.co_consts:
            if isinstance(constant, types.CodeType):
                yield from _names_of(constant)
    elif isinstance(value, types.FunctionType):
        yield from _names_of(value.__code__)
    elif isinstance(value, type):
        for member in vars(value).values():
            for function in _functions_of(member):
                yield from _names_of(function)


def _parts_of(value: Any, called: dict[int, str]) -> list[str]:
    """Return the names, in their module, of the bases of a class and of the classes that it holds."""
    if not isinstance(value, type):
        return []
    return [called[id(part)] for part in (*value.__bases__, *vars(value).values()) if id(part) in called]


def _functions_of(member: Any) -> list[types.FunctionType]:
    if isinstance(member, staticmethod | classmethod):
        member = member.__func__
    if isinstance(member, property):
        return [f for f in (member.fget, member.fset, member.fdel) if isinstance(f, types.FunctionType)]
    return [member] if isinstance(member, types.FunctionType) else []


def _derive(kind: type, namespace: dict[str, Any], reached: set[str], twins: dict[int, Any]) -> type:
    """Return the twin of a class: below it, above the twins of its bases, so that `super()` meets those."""
    body = {"__module__": namespace["__name__"], "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    for name, member in vars(kind).items():
        if isinstance(member, type):
            if id(member) in twins:
                body[name] = twins[id(member)]
        elif any(not reached.isdisjoint(_names_of(function)) for function in _functions_of(member)):
            body[name] = _rebind_member(member, namespace)
    bases = (kind, *(twins[id(base)] for base in kind.__bases__ if id(base) in twins))
    return types.new_class(kind.__name__, bases, {}, lambda prepared: prepared.update(body))


def _rebind_member(member: Any, namespace: dict[str, Any]) -> Any:
    if type(member) in (staticmethod, classmethod):
        return type(member)(rebind(member.__func__, namespace))
    if isinstance(member, property):
        parts: list[Any] = [member.fget, member.fset, member.fdel]
        fget, fset, fdel = (part and rebind(part, namespace) for part in parts)
        return property(fget, fset, fdel, member.__doc__)
    return rebind(member, namespace)


def _register_reducers(own: dict[str, Any], twins: dict[int, Any], namespace: dict[str, Any]) -> None:
    registered: dict[type, Any] = reduction.ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    for value in own.values():
        if isinstance(value, type) and value in registered and id(value) in twins:
            reducer = registered[value]
            twin = twins.get(id(reducer)) or rebind(reducer, namespace)
            reduction.ForkingPickler.register(twins[id(value)], twin)


class Primitives(context.BaseContext):
    """What a context makes (queues, pipes, pools, managers ...), from bequest's modules.

    To be mixed in before a context class of multiprocessing. Each method is the standard library's, run in
    this package, where `from .queues import Queue` finds `bequest.queues`.
    """


def _fill(mixin: type, plain: type) -> None:
    namespace = {name: value for name, value in vars(context).items() if not name.startswith("__")}
    namespace |= {"__name__": "bequest.context", "__package__": "bequest"}
    for name, member in vars(plain).items():
        if isinstance(member, types.FunctionType) and not _MIRRORED.isdisjoint(_names_of(member)):
            setattr(mixin, name, rebind(member, namespace))


_fill(Primitives, context.BaseContext)
