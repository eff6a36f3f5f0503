"""Instances of a user's class derived from one whose content C code keeps: dates, decimals, deques, arrays.

    obj -> what its library class says about it, the class exchanged -> make_derived, then fill_derived

The library's reduction names the class of the object, so pickle would call the user's class with arguments
that only the library's constructor knows. Here that constructor gets them, and nothing of the user's class
runs; its attributes and slots, which most such reductions leave out, are put in as they are.
"""

from __future__ import annotations

import copyreg

from bequest.carry import instances, modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_PROTOCOL = 5
_BY_FACTORY, _BY_NEW, _BY_INIT, _LATE = range(4)
# These make an empty container of any arguments; the object can be made first, and given them when filled.
_NEW_OF_CONTAINERS: tuple[Any, ...] = (dict.__new__, list.__new__, set.__new__)


def library_base(kind: type) -> Any:
    """Return the nearest class above a user's class that is not user code, and has the state in C."""
    solid = instances.solid_base(kind)
    for base in kind.__mro__:
        if base is solid or (solid in base.__mro__ and not modules.is_users_class(base)):
            return base
    return solid


def reduce_derived(obj: Any) -> Any:
    """Reduce `obj` as its library base does, to be made by that base's constructor.

    Returns:
        The reduction; None where the base does not know how to make an object of another class.

    Raises:
        Exception: Whatever the base's own reduction raises.
    """
    kind = type(obj)
    base = library_base(kind)
    reduced = None if base is kind else _reduction(obj, base)
    if not isinstance(reduced, tuple):
        return None
    function, args, state, items, pairs, setter = (*reduced, None, None, None, None)[:6]
    way, args = _way_of(function, args, kind, base)
    if way is None:
        return None
    content = (_tuple_of(items), _tuple_of(pairs))
    attributes = (instances.instance_dict(obj) or None, instances.read_slots(obj) or None, None)
    if way == _LATE:
        made, late = (kind, base, way, None, ()), args
    else:
        made, late = (kind, base, way, function if way == _BY_FACTORY else None, args), None
    return make_derived, made, (base, late, (state, setter), content, attributes), None, None, fill_derived


def _reduction(obj: Any, base: Any) -> Any:
    """Ask `base` about `obj`, past what the user's class says about pickling."""
    if base.__reduce_ex__ is not object.__reduce_ex__:
        return base.__reduce_ex__(obj, _PROTOCOL)
    if base.__reduce__ is not object.__reduce__:
        return base.__reduce__(obj)
    args = base.__getnewargs__(obj) if hasattr(base, "__getnewargs__") else None
    has_state = base.__getstate__ is not object.__getstate__
    if args is None and not has_state:
        return None  # it keeps to itself what C code holds
    return copyreg.__newobj__, (type(obj), *(args or ())), base.__getstate__(obj) if has_state else None  # type: ignore[attr-defined]


def _way_of(
    function: Any, args: tuple[Any, ...], kind: type, base: Any
) -> tuple[int | None, tuple[Any, ...]]:
    if function is kind:
        if base.__init__ is object.__init__:
            return _BY_NEW, args
        return (_LATE if base.__new__ in _NEW_OF_CONTAINERS else _BY_INIT), args
    if function is copyreg.__newobj__ and args and args[0] is kind:  # type: ignore[attr-defined]
        return _BY_NEW, args[1:]
    is_factory = any(arg is kind for arg in args) or getattr(function, "__self__", None) is kind
    return (_BY_FACTORY if is_factory else None), args


def _tuple_of(items: Iterable[Any] | None) -> tuple[Any, ...] | None:
    return None if items is None else tuple(items)


def make_derived(kind: Any, base: Any, way: int, factory: Any, args: tuple[Any, ...]) -> Any:
    """Make an object of the user's class `kind` by the constructor of `base` or a function beside it."""
    if way == _BY_FACTORY:
        return factory(*args)
    made = base.__new__(kind, *args)
    if way == _BY_INIT:
        base.__init__(made, *args)
    return made


def fill_derived(obj: Any, state: tuple[Any, Any, tuple[Any, Any], tuple[Any, Any], Any]) -> None:
    """Give an object of `make_derived` what the base keeps, its content, its attributes and slots."""
    base, late, (kept, setter), (items, pairs), attributes = state
    if late is not None:
        base.__init__(obj, *late)
    if kept is not None and setter is not None:
        setter(obj, kept)
    elif kept is not None and hasattr(base, "__setstate__"):
        base.__setstate__(obj, kept)  # any other state is attributes and slots
    if items:
        base.extend(obj, items)
    for key, value in pairs or ():
        base.__setitem__(obj, key, value)
    instances.fill(obj, attributes)
