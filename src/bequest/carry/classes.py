"""How classes are reduced and rebuilt: verbatim, as fork has them.

    class -> make_class(metaclass, name, bases, ...), then set_class(attributes)

No metaclass, `__init_subclass__` or `__set_name__` runs again in the receiver: what they did is in the
attributes, in the registries, and on the bases, which are carried as well. An enum comes with its members, a
dataclass with its methods. Where a metaclass is written in C (ctypes) there is no way around calling it.
"""

from __future__ import annotations

import gc
import sys
from types import GetSetDescriptorType, MemberDescriptorType

from bequest.carry import bindings, identity, instances, modules, namespaces, registry
from bequest.carry.deferred import UNDER_WAY, Deferred
from bequest.carry.registry import NotCarriedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.graph import PackingPickler

# What `type.__new__` makes by itself, or what cannot leave its process.
_MADE_BY_TYPE = frozenset(
    (
        "__dict__",
        "__weakref__",
        "_abc_impl",
        "__ctype_be__",  # made by ctypes for its numbers
        "__ctype_le__",
    )
)

# What `type` keeps in the namespace of a class when it is set; its other descriptors, and those of a user's
# metaclass, do something else with the value, or refuse it (`__class__`).
_KEPT_BY_TYPE = frozenset(
    (
        "__module__",
        "__doc__",
        "__abstractmethods__",
        "__annotations__",
        "__annotate__",
        "__type_params__",
    )
)
_HEAPTYPE = 1 << 9

# What `type.__new__` must be given.
_ESSENTIAL = ("__slots__", "__module__", "__doc__", "__orig_bases__")


def reduce_class(kind: Any, packing: PackingPickler) -> Any:
    """Reduce a class by name where a child finds it so, else by value."""
    if any(kind is single for single in (type(None), type(...), type(NotImplemented))):
        return NotImplemented
    if modules.goes_by_name(kind):
        packing.named.add(kind.__module__)
        packing.reach.by_name(kind)
        return NotImplemented
    if not kind.__flags__ & _HEAPTYPE or kind.__flags__ & instances._IMMUTABLE:
        return _reduce_hidden_class(kind)
    if not _is_python_metaclass(type(kind)):
        found = registry.find(type(kind))
        reduced = None if found is None else found(kind, packing)
        if reduced is not None:
            return reduced
    packing.reach.annotated(kind)
    token = identity.token_of(kind)
    attributes = _own_attributes(kind)
    essentials = {name: attributes.pop(name) for name in _ESSENTIAL if name in attributes}
    essentials["__qualname__"] = kind.__qualname__
    metaclass = type(kind)
    if not _is_python_metaclass(metaclass):  # it has to see them all when it is called
        essentials |= attributes
        attributes = {}
    packing.dependence.on_names(kind.__dict__, attributes)
    numbers = bindings.numbers_of(token, attributes)
    attributes = packing.lightened(attributes, kind)
    made = (metaclass, kind.__name__, kind.__bases__, essentials, token)
    sent = (identity.maker(), bindings.versions.next_number())
    state = (sent, attributes, numbers, packing.bindings_of_class(kind), _abc_registry(kind))
    return make_class, made, state, None, None, set_class


def _reduce_hidden_class(kind: type) -> Any:
    """Reduce a builtin class that its module does not offer by its name, such as a generator's."""
    for place in ("types", "_collections_abc", *sys.modules):
        names = (
            {} if modules.is_main(sys.modules.get(place)) else getattr(sys.modules.get(place), "__dict__", {})
        )
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


def _abc_registry(kind: type) -> tuple[tuple[type, ...], tuple[type, ...]]:
    """Return the classes registered with an abstract class, and the standard ones it is registered with."""
    registered = _registered_with(kind) if "_abc_impl" in kind.__dict__ else ()
    return registered, _standard.of(kind)


class _StandardRegistrations:
    """With which abstract classes of the standard library classes have been registered."""

    def __init__(self) -> None:
        self._token: object = None
        self._found: dict[type, tuple[type, ...]] = {}

    def of(self, kind: type) -> tuple[type, ...]:
        """Return those with which `kind` has been."""
        import abc

        if self._token != abc.get_cache_token():  # it grows with every registration
            self._token = abc.get_cache_token()
            self._found = self._look()
        return self._found.get(kind, ())

    @staticmethod
    def _look() -> dict[type, tuple[type, ...]]:
        found: dict[type, tuple[type, ...]] = {}
        for name in ("collections.abc", "numbers"):
            for abstract in list(getattr(sys.modules.get(name), "__dict__", {}).values()):
                if isinstance(abstract, type) and "_abc_impl" in vars(abstract):
                    for kind in _registered_with(abstract):
                        found[kind] = (*found.get(kind, ()), abstract)
        return found


_standard = _StandardRegistrations()


def _registered_with(abstract: type) -> tuple[type, ...]:
    import _abc  # type: ignore[import-not-found]  # what the abc module itself is made with

    weak: Any = _abc._get_dump(abstract)[0]
    return tuple(found for found in (reference() for reference in weak) if found is not None)


class _Silent:
    """First among the bases while a class is made, so that no other's `__init_subclass__` is heard."""

    __slots__ = ()

    def __init_subclass__(cls, **named: Any) -> None:
        pass


_silent: dict[tuple[type, tuple[str, ...]], type] = {(object, ()): _Silent}


def _silent_base(bases: tuple[type, ...]) -> type:
    """Return a class to put first that can be taken away again: its layout is that of the first base.

    A class that does not fit would not do for a try: it would stay among the `__subclasses__` of the bases.
    """
    base = max(bases, key=lambda base: len(instances.solid_base(base).__mro__))
    while base.__base__ is not None and _layout(base) == _layout(base.__base__):
        base = base.__base__
    below = base.__base__ or object
    if any(isinstance(value, MemberDescriptorType) for value in vars(base).values()):
        return _Silent  # one with slots of its own is the base that counts, whatever stands beside it
    added = []
    if base.__dictoffset__ and not below.__dictoffset__:
        added.append("__dict__")
    if base.__weakrefoffset__ and not below.__weakrefoffset__:
        added.append("__weakref__")
    key = (below, tuple(added))
    if key not in _silent:
        space = {**vars(_Silent), "__slots__": key[1], "__orig_bases__": ()}  # Generic asks for the latter
        _silent[key] = type.__new__(type(below), "_Silent", (below,), space)
    return _silent[key]


def _layout(kind: type) -> tuple[int, int, int]:
    return kind.__basicsize__, kind.__dictoffset__, kind.__weakrefoffset__


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
        in_c: Any = instances.solid_base(metaclass)
        made: Any = in_c.__new__(metaclass, name, bases, dict(essentials))
        in_c.__init__(made, name, bases, dict(essentials))  # that of ctypes does the work there, since 3.13
        return made
    if any("__init_subclass__" in base.__dict__ for b in bases for base in b.__mro__ if base is not object):
        silent = _silent_base(bases)
        try:
            made = type.__new__(metaclass, name, (silent, *bases), dict(essentials))
            type.__setattr__(made, "__bases__", bases)  # a metaclass may have a `__setattr__` of its own
        except TypeError:  # a layout like none above: then `__init_subclass__` is heard
            pass
        else:
            return made
    return type.__new__(metaclass, name, bases, dict(essentials))


def set_class(kind: Any, state: tuple[tuple[str, int], dict[str, Any], tuple[int, ...], Any, Any]) -> None:
    """Set the attributes of a class that `make_class` returned, by the rule of `bindings`."""
    sent, attributes, numbers, bound, registered = state
    if not identity.is_at_home(kind) and _is_python_metaclass(type(kind)):
        _set_attributes(kind, sent, attributes, numbers)
        for subclass in registered[0]:
            kind.register(subclass)
        for abstract in registered[1]:
            abstract.register(kind)
    if bound is not None:
        bindings.bind(*bound)


def _set_attributes(
    kind: Any, sent: tuple[str, int], attributes: dict[str, Any], numbers: tuple[int, ...]
) -> None:
    token, sender = identity.token_of(kind), sent[0]
    for name in bindings.lost(kind.__dict__, token, sent, attributes):
        type.__delattr__(kind, name)
    for (name, value), number in zip(attributes.items(), numbers, strict=True):
        if bindings.wins(kind.__dict__, (token, name), sender, number):
            if type(value) is Deferred and (value := value.fetch()) is UNDER_WAY:
                continue
            if _is_taken_by_metaclass(type(kind), name):
                _put_into_namespace(kind, name, value)
            else:
                type.__setattr__(kind, name, value)
            if isinstance(value, property):
                # Its errors tell it, and nothing else shows it.
                property.__set_name__(value, kind, name)  # type: ignore[attr-defined]  # not in typeshed
            bindings.note((token, name), sender, number, value)
    if "__abstractmethods__" in attributes and "_abc_impl" not in kind.__dict__:
        import _abc  # as above

        _abc._abc_init(kind)


def _is_taken_by_metaclass(metaclass: Any, name: str) -> bool:
    """Tell whether setting an attribute of a class calls a descriptor of its metaclass."""
    for above in metaclass.__mro__:
        if name in above.__dict__:
            is_kept = above is type and name in _KEPT_BY_TYPE
            return not is_kept and hasattr(type(above.__dict__[name]), "__set__")
    return False


def _put_into_namespace(kind: Any, name: str, value: Any) -> None:
    """Give a class an attribute past all descriptors, as the class statement has."""
    gc.get_referents(kind.__dict__)[0][name] = value  # the dict under the read-only proxy
    # Setting any attribute has the interpreter forget what it has looked up in this class and those below.
    type.__setattr__(kind, "_bequest", None)
    type.__delattr__(kind, "_bequest")


def is_enum_member(obj: Any) -> bool:
    """Tell whether `obj` is a member of an enum."""
    enum = sys.modules.get("enum")
    return enum is not None and issubclass(type(obj), enum.Enum)


def reduce_enum_member(member: Any, packing: PackingPickler) -> Any:
    """Reduce a member of an enum: by name in its class, or, where that comes along, by what it holds."""
    kind = type(member)
    if modules.goes_by_name(kind):
        return NotImplemented
    _, (_, *how), state, *_ = instances.reduce_by_state(member)
    return (
        find_enum_member,
        (kind, member._name_, member._value_, *how),
        state,
        None,
        None,
        set_enum_member,
    )


def find_enum_member(kind: Any, name: str | None, enum_value: Any, *how: Any) -> Any:
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
    made = instances.create(kind, *how)
    _made_members.add(id(made))
    return made


_made_members: set[int] = set()  # by id: until each is filled the stream holds it


def set_enum_member(member: Any, state: Any) -> None:
    """Fill a member that was made just now; one that was found has it all."""
    if id(member) in _made_members:
        _made_members.discard(id(member))
        instances.fill(member, state)
