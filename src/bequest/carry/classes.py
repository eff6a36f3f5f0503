"""How classes are reduced and rebuilt: verbatim, as fork has them.

    class -> make_class(metaclass, name, bases, ...), then set_class(attributes)

No metaclass, `__init_subclass__` or `__set_name__` runs again in the receiver: what they did is in the
attributes, in the registries, and on the bases, which are carried as well. An enum comes with its members, a
dataclass with its methods. Where a metaclass is written in C (ctypes) there is no way around calling it.
"""

from __future__ import annotations

import sys
import types
from types import GetSetDescriptorType, MemberDescriptorType

from bequest.carry import identity, instances, modules, namespaces, registry
from bequest.carry.registry import NotCarriedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.pickler import PackingPickler

# What `type.__new__` makes by itself, or what cannot leave its process.
_MADE_BY_TYPE = frozenset(("__dict__", "__weakref__", "_abc_impl", "__annotations_cache__"))
_HEAPTYPE = 1 << 9

_versions: dict[identity.Token, tuple[int, int]] = {}


def reduce_class(kind: Any, packing: PackingPickler) -> Any:
    """Reduce a class by name where a child finds it so, else by value."""
    if any(kind is single for single in (type(None), type(...), type(NotImplemented))):
        return NotImplemented
    if modules.goes_by_name(kind):
        packing.reach.by_name(kind)
        return NotImplemented
    if not kind.__flags__ & _HEAPTYPE or kind.__flags__ & instances._IMMUTABLE:
        return _reduce_hidden_class(kind)
    if not _is_python_metaclass(type(kind)):
        found = registry.find(type(kind))
        if found is not None:
            return found(kind, packing)
    token = identity.token_of(kind)
    attributes = _own_attributes(kind)
    essentials: dict[str, Any] = {
        name: attributes.pop(name) for name in ("__slots__", "__module__") if name in attributes
    }
    essentials["__qualname__"] = kind.__qualname__
    metaclass = type(kind)
    if not _is_python_metaclass(metaclass):  # it has to see them all when it is called
        essentials |= attributes
        attributes = {}
    made = (metaclass, kind.__name__, kind.__bases__, essentials, token)
    bindings = packing.bindings_of_class(kind)
    state = (_version(kind, token), attributes, bindings, _abc_registry(kind))
    return make_class, made, state, None, None, set_class


def _reduce_hidden_class(kind: type) -> Any:
    """Reduce a builtin class that its module does not offer by its name, such as a generator's."""
    for place in ("types", "_collections_abc", *sys.modules):
        names = {} if place == "__main__" else getattr(sys.modules.get(place), "__dict__", {})
        for name, value in list(names.items()):
            if value is kind:
                return namespaces.find_attribute, (place, name)
            if type(value) is kind and issubclass(kind, type) and modules.goes_by_name(value):
                return type, (value,)  # a metaclass written in C: it is that of a class which has a name
    raise NotCarriedError(
        "it is a type of the interpreter that no module names", "Pass something made of it instead"
    )


def _own_attributes(kind: type) -> dict[str, Any]:
    found = {}
    for name, value in list(kind.__dict__.items()):
        if name in _MADE_BY_TYPE:
            continue
        if isinstance(value, MemberDescriptorType | GetSetDescriptorType) and value.__objclass__ is kind:
            continue  # a slot: type.__new__ makes it
        found[name] = value
    return found


def _is_python_metaclass(metaclass: type) -> bool:
    return instances.solid_base(metaclass) is type


def _version(kind: type, token: identity.Token) -> int:
    """Return a number that grows when an attribute of the class has been bound anew since."""
    content = _content(kind)
    number, known = _versions.get(token, (0, None))
    if known != content:
        number += 1
        _versions[token] = (number, content)
    return number


def _content(kind: type) -> int:
    return hash(tuple((name, id(value)) for name, value in list(kind.__dict__.items())))


def _abc_registry(kind: type) -> tuple[type, ...] | None:
    if "_abc_impl" not in kind.__dict__:
        return None
    import _abc  # type: ignore[import-not-found]  # what the abc module itself is made with

    registered: tuple[type, ...] = tuple(
        r for r in (weak() for weak in _abc._get_dump(kind)[0]) if r is not None
    )
    return registered


class _Silent:
    """First among the bases while a class is made, so that no other's `__init_subclass__` is heard."""

    __slots__ = ()

    def __init_subclass__(cls, **named: Any) -> None:
        pass


class _SilentWithDict:
    """The same for classes whose bases give their instances a `__dict__`."""

    def __init_subclass__(cls, **named: Any) -> None:
        pass


def make_class(
    metaclass: Any, name: str, bases: tuple[type, ...], essentials: dict[str, Any], token: identity.Token
) -> Any:
    """Make the class that `token` stands for, without its attributes, or find the one that is here."""
    known = identity.find(token, type)
    if known is not None:
        return known
    made = _new_class(metaclass, name, bases, essentials)
    identity.remember(made, token)
    return made


def _new_class(metaclass: Any, name: str, bases: tuple[type, ...], essentials: dict[str, Any]) -> Any:
    if not _is_python_metaclass(metaclass):
        return metaclass.__new__(metaclass, name, bases, dict(essentials))
    if any("__init_subclass__" in base.__dict__ for b in bases for base in b.__mro__ if base is not object):
        for silent in (_Silent, _SilentWithDict):
            try:
                made: Any = type.__new__(metaclass, name, (silent, *bases), dict(essentials))
                made.__bases__ = bases
            except TypeError:  # the layouts differ: with a `__dict__`, or neither (then it is heard)
                continue
            return made
    return type.__new__(metaclass, name, bases, dict(essentials))


def set_class(kind: Any, state: tuple[int, dict[str, Any], Any, tuple[type, ...] | None]) -> None:
    """Set the attributes of a class that `make_class` returned, unless it has this version of them."""
    version, attributes, bindings, registered = state
    if not identity.is_at_home(kind) and _is_python_metaclass(type(kind)):
        token = identity.token_of(kind)
        if _versions.get(token, (0, 0))[0] < version:
            _set_attributes(kind, attributes, registered)
            _versions[token] = (version, _content(kind))
    if bindings is not None:
        namespaces.bind(*bindings)


def _set_attributes(kind: Any, attributes: dict[str, Any], registered: tuple[type, ...] | None) -> None:
    for name in [n for n in kind.__dict__ if n not in attributes and _is_stale(kind, n)]:
        type.__delattr__(kind, name)
    if registered is not None:
        import _abc  # as above

        type.__setattr__(kind, "__abstractmethods__", frozenset())
        _abc._abc_init(kind)
    for name, value in attributes.items():
        if kind.__dict__.get(name, _SilentWithDict) is not value:
            type.__setattr__(kind, name, value)
    for subclass in registered or ():
        kind.register(subclass)


def _is_stale(kind: type, name: str) -> bool:
    """Tell whether an attribute that the sender's class does not have is one that it has lost."""
    if name in _MADE_BY_TYPE or name in ("__slots__", "__module__", "__qualname__", "__doc__"):
        return False
    return not isinstance(
        kind.__dict__[name], MemberDescriptorType | GetSetDescriptorType | types.BuiltinFunctionType
    )


def is_enum_member(obj: Any) -> bool:
    """Tell whether `obj` is a member of an enum."""
    enum = sys.modules.get("enum")
    return enum is not None and isinstance(obj, enum.Enum)


def reduce_enum_member(member: Any, packing: PackingPickler) -> Any:
    """Reduce a member of an enum: by name in its class, or, where that comes along, by what it holds."""
    kind = type(member)
    if modules.goes_by_name(kind):
        return NotImplemented
    _, (_, base, value), state, *_ = instances.reduce_by_state(member)
    return (
        find_enum_member,
        (kind, base, value, member._name_, member._value_),
        state,
        None,
        None,
        set_enum_member,
    )


def find_enum_member(kind: Any, base: type, value: Any, name: str | None, enum_value: Any) -> Any:
    """Return the member of that name or value, or an empty one where the class is still being made."""
    members = kind.__dict__.get("_member_map_", {})
    if name in members:
        return members[name]
    by_value = kind.__dict__.get("_value2member_map_", {})
    try:
        if enum_value in by_value:
            return by_value[enum_value]
    except TypeError:  # a value that cannot be hashed
        pass
    return instances.create(kind, base, value)


def set_enum_member(member: Any, state: Any) -> None:
    """Fill a member that was made just now; one that was found has it all."""
    if "_value_" not in member.__dict__:
        instances.fill(member, state)
