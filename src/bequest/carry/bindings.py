"""Who wins where a name is bound in two processes: globals of namespaces that travel, attributes of classes.

    sender:    pack(key, namespace, names) -> values and their numbers, in a function's or class's state
    receiver:  bind() lays them over what is here, never undoing what the process itself has bound

The rule for a name that is bound already: the message that starts a process wins. A later one wins where its
sender has rebound a name that it sent before and the receiver has not (nor changed a builtin container in
place); or where the receiver's starter sends a module's global that is as the import has left it. All else
leaves it alone. Messages may overtake one another: an older one never wins over a newer one.
"""

from __future__ import annotations

import itertools
import sys
from _weakref import ref

from bequest.carry import identity
from bequest.carry.deferred import UNDER_WAY, Deferred

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    Key = Any  # of a namespace: the name of its module, or the token of a class

_ABSENT: Any = object()
_MOST_LOOKED_AT = 1000  # items of a container, or of a text, that are looked at for a change in place
_CONTAINERS = (dict, list, set, tuple, frozenset)
_TEXTS = (str, bytes, bytearray)
_NUMBERS = (int, float, complex)


def _mark(value: Any) -> Any:
    """Return what tells `value` from any other object: a weak reference, or else `(value,)`."""
    try:
        return ref(value)
    except TypeError:
        return (value,)


def _is_marked(mark: Any, value: Any) -> bool:
    return (mark() if type(mark) is ref else mark[0]) is value


class _Versions:
    """Sender's side: a number for each binding, which grows when the name is bound to another object.

    Builtin containers cannot be remembered weakly: they are kept, so that a new one at the old address is not
    taken for the old one, until a later message finds them unbound.

    Attributes:
        modules: Of each module by name: of each global, the mark of its value and the number.
        classes: The same of each class by token; the collector may remove entries at any time.
    """

    def __init__(self) -> None:
        self.modules: dict[str, dict[str, tuple[Any, int]]] = {}
        self.classes: dict[identity.Token, dict[str, tuple[Any, int]]] = {}
        self._numbers = itertools.count(1)  # one row for all bindings: they tell which message is the newer

    def of(self, key: Key, name: str, value: Any) -> int:
        """Return the number of the present binding of `name`."""
        table: dict[Key, Any] = self.modules if isinstance(key, str) else self.classes
        known = table.setdefault(key, {})
        mark, number = known.get(name, (None, 0))
        if not number or not _is_marked(mark, value):
            number = self.next_number()
            known[name] = (_mark(value), number)
        return int(number)

    def next_number(self) -> int:
        """Return a number larger than that of any binding so far."""
        return next(self._numbers)

    def give_up(self) -> None:
        """Give up containers that modules have unbound since they were sent."""
        for key, known in self.modules.copy().items():  # copied at one go: other threads pack as well
            module = sys.modules.get(key)
            namespace = {} if module is None else module.__dict__
            for name, (mark, number) in known.copy().items():
                if type(mark) is tuple and namespace.get(name, _ABSENT) is not mark[0]:
                    known[name] = ((_ABSENT,), number)


versions = _Versions()


class _Phase:
    """Whether the message that starts this process is being read, and which process has sent it."""

    starting = False
    starter: str | None = None


phase = _Phase()

# Of each name here that a message has bound: its sender, the number, and what tells the value that came.
_received: dict[Key, dict[str, tuple[str, int, Any]]] = {}
identity.forgotten_with_class += [versions.classes, _received]
_pristine: dict[tuple[str, str], tuple[int, int]] = {}  # user modules' globals as the start has left them


def end_start(starter: str, namespaces: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Say that the message that starts this process, sent by the process `starter`, has been read.

    What the user modules hold now is remembered, so that a later message of the same sender can bring what it
    does not: until this process itself has changed it.
    """
    phase.starting, phase.starter = False, starter
    for key, namespace in namespaces:
        for name, value in list(namespace.items()):
            _pristine[key, name] = _fingerprint(value)


def _fingerprint(value: Any) -> tuple[int, int]:
    """Return what changes when a name is bound anew, or a container is changed in place."""
    kind = type(value)
    if kind in _NUMBERS:
        return id(value), hash((kind, value))
    if kind in _TEXTS:
        start = value[:_MOST_LOOKED_AT]
        return id(value), hash((kind, len(value), bytes(start) if kind is bytearray else start))
    if kind in _CONTAINERS:
        held = value.values() if kind is dict else value
        return id(value), hash((kind, len(value), *map(id, itertools.islice(held, _MOST_LOOKED_AT))))
    return id(value), hash(kind)


def is_from_starter(sender: str) -> bool:
    """Tell whether a message comes from the process that started this one, or starts it."""
    return phase.starting or sender == phase.starter


def pack(key: Key, namespace: Mapping[str, Any], names: Iterable[str]) -> tuple[Any, ...] | None:
    """Return what `bind` needs to bind `names` as they are bound in `namespace` now, or None for none."""
    found = {name: namespace.get(name, _ABSENT) for name in names}  # once: threads may unbind at any time
    values = {name: value for name, value in found.items() if value is not _ABSENT}
    return (identity.maker(), key, values, numbers_of(key, values)) if values else None


def numbers_of(key: Key, values: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the number of each binding, in order."""
    return tuple(versions.of(key, name, value) for name, value in values.items())


def bind(namespace: dict[str, Any], packed: tuple[str, Key, dict[str, Any], tuple[int, ...]]) -> None:
    """Bind names in `namespace` by the rule in the module's docstring."""
    sender, key, values, numbers = packed
    if sender == identity.maker():
        return
    for (name, value), number in zip(values.items(), numbers, strict=True):
        if wins(namespace, (key, name), sender, number):
            if type(value) is Deferred and (value := value.fetch()) is UNDER_WAY:
                continue
            namespace[name] = value
            note((key, name), sender, number, value)


def note(slot: tuple[Key, str], sender: str, number: int, value: Any) -> None:
    """Remember which of the sender's bindings a name has here, without keeping the value alive."""
    try:
        mark: Any = ref(value)
    except TypeError:
        mark = _fingerprint(value)
    _received.setdefault(slot[0], {})[slot[1]] = (sender, number, mark)


def _is_as_received(mark: Any, here: Any) -> bool:
    return bool(mark() is here if type(mark) is ref else mark == _fingerprint(here))


def wins(
    namespace: Mapping[str, Any],
    slot: tuple[Key, str],
    sender: str,
    number: int,
    *,
    is_owner: bool = False,
) -> bool:
    """Tell whether a binding that arrives replaces the one that is here; see the module's docstring.

    Args:
        namespace: What the name is bound in.
        slot: The key of the namespace, and the name.
        sender: Which process binds it.
        number: Of its binding.
        is_owner: Whether the value owns something that it releases: then what the import made stays.
    """
    key, name = slot
    here = namespace.get(name, _ABSENT)
    if here is _ABSENT or phase.starting:
        return True
    known = _received.get(key, {}).get(name)
    if known is not None:
        return known[0] == sender and known[1] < number and _is_as_received(known[2], here)
    if sender != phase.starter or key == "__main__" or is_owner:
        return False
    return _pristine.get((key, name)) in (None, _fingerprint(here))


def forget(key: Key) -> None:
    """Forget all that is known of the names of `key`."""
    for table in (versions.modules, versions.classes, _received):
        table.pop(key, None)


def lost(
    namespace: Mapping[str, Any], key: Key, sent: tuple[str, int], present: Mapping[str, Any]
) -> list[str]:
    """Return the names that a sender has bound here, nobody has bound since, and that it no longer has.

    Args:
        namespace: What the names are bound in.
        key: Its key.
        sent: The sender, and a number drawn when its message was packed.
        present: What the message brings.
    """
    sender, packed_at = sent
    known = _received.get(key, {})
    return [
        name
        for name, (origin, number, mark) in known.items()
        if name not in present
        and name in namespace
        and origin == sender
        and number < packed_at
        and _is_as_received(mark, namespace[name])
    ]
