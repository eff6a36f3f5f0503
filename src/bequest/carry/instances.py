"""Copy an object by what it holds, without running a line of its class: as fork does.

    obj -> (create, (cls, base, value[, state]), (dict, slots, items), None, None, fill)

`base` is the builtin type under the class (object, dict, int ...), which makes the new object and holds
`value` or `items`. Part of the state of an object that hashes itself goes to `create` already (`hashed`). No
`__init__`, `__new__`, `__reduce__`, `__getstate__` or `__setstate__` of the user is called.
"""

from __future__ import annotations

from types import MemberDescriptorType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import Any

ATOMS: frozenset[type] = frozenset((int, float, str, bytes, bool, type(None), complex))
"""Types whose objects hold no other object; most of what a message has is of these."""

# How each builtin base holds its content: by value, handed to `base.__new__`, or as items filled in
# afterwards.
_BY_VALUE: tuple[Any, ...] = (int, float, complex, str, bytes, tuple)
_BY_ITEMS = (dict, list, set, bytearray)
_HEAPTYPE, _IMMUTABLE = 1 << 9, 1 << 8
_MISSING: Any = object()


def solid_base(kind: type) -> type:
    """Return the class nearest above `kind` (or itself) that holds C state of its own."""
    while _adds_no_c_state(kind):
        kind = kind.__base__ or object
    return kind


def _adds_no_c_state(kind: type) -> bool:
    """Tell whether a class was made by a class statement, or might as well have been.

    C extensions make heap types too; those that add fields are larger than their base and have none of the
    entries that a class statement leaves.
    """
    flags = kind.__flags__
    if not flags & _HEAPTYPE or flags & _IMMUTABLE:
        return False
    own = kind.__dict__
    if "__slots__" in own or "__dict__" in own or "__weakref__" in own:
        return True
    return kind.__basicsize__ == (kind.__base__ or object).__basicsize__


def can_copy(kind: type) -> bool:
    """Tell whether `reduce_by_state` knows how the builtin base of `kind` holds its content."""
    base = solid_base(kind)
    return base is object or base in _BY_VALUE or base in _BY_ITEMS or base is frozenset


def reduce_by_state(
    obj: Any, *, replace: dict[str, Any] | None = None, drop: tuple[str, ...] = ()
) -> tuple[Any, ...]:
    """Reduce `obj` to its class, its builtin content, its `__dict__` and its slots.

    Args:
        obj: An instance of a class for which `can_copy` holds.
        replace: Attributes that get another value in the copy.
        drop: Attributes that the copy does not have.
    """
    from bequest.carry import hashed

    kind = type(obj)
    base: Any = solid_base(kind)
    value: Any = None
    items: Any = None
    if base is frozenset:
        value = tuple(frozenset.__iter__(obj))
    elif base is complex:
        value = complex.__pos__(obj)
    elif base in _BY_VALUE:
        value = base.__getnewargs__(obj)[0]
    elif base in _BY_ITEMS:
        items = _items(base, obj)
    attributes = dict(instance_dict(obj) or {})
    slots = read_slots(obj)
    for name in drop:
        attributes.pop(name, None)
        slots.pop(name, None)
    for name, other in (replace or {}).items():
        (slots if name in slots else attributes)[name] = other
    later = hashed.leading_back(obj, attributes | slots) if hashed.hashes_itself(kind) else ()
    if not later:
        return create, (kind, base, value), (attributes or None, slots or None, items), None, None, fill
    first, attributes = _part(attributes, later)
    first_slots, slots = _part(slots, later)
    made = (kind, base, value, (first or None, first_slots or None, None))
    return create, made, (attributes or None, slots or None, items), None, None, fill


def _part(attributes: dict[str, Any], later: Container[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    first = {name: value for name, value in attributes.items() if name not in later}
    return first, {name: value for name, value in attributes.items() if name in later}


def _items(base: type, obj: Any) -> Any:
    if base is dict:
        return tuple(dict.items(obj))
    if base is bytearray:
        return bytes(obj)
    return tuple(base.__iter__(obj))  # type: ignore[attr-defined]


def instance_dict(obj: Any) -> dict[str, Any] | None:
    """Return the `__dict__` of an object, past its class's `__getattribute__`; None where it has none."""
    try:
        found = object.__getattribute__(obj, "__dict__")
    except AttributeError:
        return None
    return found if type(found) is dict else dict(found)


def read_slots(obj: Any) -> dict[str, Any]:
    """Return the slots of `obj` that are set, under the names by which `fill` sets them (mangled too)."""
    found: dict[str, Any] = {}
    for kind in type(obj).__mro__:
        if not kind.__flags__ & _HEAPTYPE or "__slots__" not in kind.__dict__:
            continue
        for name, member in kind.__dict__.items():
            if isinstance(member, MemberDescriptorType) and name not in found:
                value = _read_member(member, obj)
                if value is not _MISSING:
                    found[name] = value
    return found


def _read_member(member: MemberDescriptorType, obj: Any) -> Any:
    try:
        return member.__get__(obj)
    except AttributeError:  # a slot that was never set
        return _MISSING


def create(kind: type, base: type, value: Any, first: Any = None) -> Any:
    """Make the object, empty but for the `first` part of its state; `kind`'s own `__new__` is passed over."""
    new: Any = base.__new__
    made = new(kind) if value is None else new(kind, value)
    if first is not None:
        fill(made, first)
    return made


def fill(obj: Any, state: tuple[dict[str, Any] | None, dict[str, Any] | None, Any]) -> None:
    """Put attributes, slots and items into an object that `create` made; `__setattr__` is passed over."""
    attributes, slots, items = state
    if attributes is not None:
        try:
            object.__getattribute__(obj, "__dict__").update(attributes)
        except AttributeError:
            slots = {**attributes, **(slots or {})}
    for name, value in (slots or {}).items():
        object.__setattr__(obj, name, value)
    if items is not None:
        _fill_items(obj, items)


def _fill_items(obj: Any, items: Any) -> None:
    if isinstance(obj, dict):
        dict.update(obj, items)
    elif isinstance(obj, list):
        list.extend(obj, items)
    elif isinstance(obj, bytearray):
        bytearray.extend(obj, items)
    else:
        set.update(obj, items)
