"""Weak references, weak containers and finalizers: as weak in the receiver as in the sender.

    ref -> (watch, referent, tally) -> a ref to the very object that the message brings

A message must bring the referent, but must not keep it alive where a forked child would not. A fork keeps it
as long as anything in the copied process does, and that includes what the message does not reach (a local
variable of the sender, a registry). So the sender counts the references to the referent, the receiver counts
those that have arrived, and where fewer did, the receiver keeps the referent alive itself: its other holders
are in the sender. Counting is exact but where the referent is on its way through the pickler at that moment;
then the count is too high, and the referent lives longer than under fork, never shorter.

In messages to a running process nothing is kept: a referent lives there as long as the message's objects hold
it.
"""

from __future__ import annotations

import gc
import sys
import weakref
from _weakref import ref
from types import MethodType

from bequest.carry import instances
from bequest.carry.registry import NotCarriedError, carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced

_kept: list[Any] = []
"""Referents whose other holders are in the process that this one was started from."""


def _references(holder: list[Any]) -> int:
    """Return how many references there are to the one object in `holder`."""
    return sys.getrefcount(holder[0])


_ONE_HOLDER = _references([object()])


class Watch:
    """Looks after referents from their arrival to the end of the message.

    The unpickler's memo alone holds it, so it goes when the message is complete. The memo is let go from its
    end, hence the references that it still has then are to what came before the watch.
    """

    __slots__ = ("_watched",)

    def __init__(self) -> None:
        self._watched: list[tuple[list[Any], int, bool]] = []

    def look_after(self, referent: Any, tally: tuple[int, bool] | None) -> None:
        """Expect as many references to `referent` as the sender has counted."""
        if tally is not None:
            self._watched.append(([referent], *tally))

    def __del__(self) -> None:
        for holder, expected, is_new in self._watched:
            in_memo = 0 if is_new else 1
            if _references(holder) - _ONE_HOLDER - in_memo < expected:
                _kept.append(holder[0])


class _Opening:
    """Stands before referents in a message: reduced when the pickler may or may not have them in its memo."""

    def __init__(self, referents: list[Any]) -> None:
        self.holders = [[referent] for referent in referents]
        self.counts: list[int] = []


class _Tally:
    """Stands behind a referent in a message: reduced when the pickler's memo has it for certain."""

    def __init__(self, opening: _Opening, number: int) -> None:
        self.opening, self.number = opening, number


@carries(f"{__name__}.Watch")
def _reduce_watch(watch: Watch, packing: Packing) -> Reduced:
    return Watch, ()


@carries(f"{__name__}._Opening")
def _reduce_opening(opening: _Opening, packing: Packing) -> Reduced:
    opening.counts = [_references(holder) for holder in opening.holders]
    return bool, ()


@carries(f"{__name__}._Tally")
def _reduce_tally(tally: _Tally, packing: Packing) -> Reduced:
    opening, number = tally.opening, tally.number
    count = _references(opening.holders[number])
    # Apart from the holders, there is one reference more from the tuple next to this tally, and one from the
    # memo.
    is_new = not opening.counts or count > opening.counts[number]
    return expected, (count - _ONE_HOLDER - 2, is_new)


def expected(count: int, is_new: bool) -> tuple[int, bool]:
    """Return what `Watch.look_after` takes."""
    return count, is_new


def _census(referents: list[Any], packing: Packing) -> tuple[Any, Any, list[Any]]:
    """Return what to pack before the referents (in this order), and what to pack behind each of them."""
    if not packing.starting:
        return None, None, [None] * len(referents)
    opening = _Opening(referents)
    return Watch(), opening, [_Tally(opening, number) for number in range(len(referents))]


def _attend(watch: Watch | None, referent: Any, tally: tuple[int, bool] | None) -> None:
    if watch is not None:
        watch.look_after(referent, tally)


# -- references


class _Gone:
    """What a dead reference has referred to."""

    __slots__ = ("__weakref__",)


def _extras(obj: Any, *names: str) -> Any:
    """Return the attributes that a subclass has added, for `instances.fill`; None if there are none."""
    attributes = {
        name: value for name, value in (instances.instance_dict(obj) or {}).items() if name not in names
    }
    slots = {name: value for name, value in instances.read_slots(obj).items() if name not in names}
    return (attributes or None, slots or None, None) if attributes or slots else None


@carries("weakref.ReferenceType", "weakref.ref", subclasses=True)
def reduce_reference(reference: Any, packing: Packing) -> Reduced:
    """Reduce a `weakref.ref`, also of a subclass that adds attributes."""
    kind, referent = type(reference), reference()
    if referent is None:
        return dead_reference, (kind,)
    watch, opening, (tally,) = _census([referent], packing)
    args = (kind, watch, opening, referent, tally, reference.__callback__)
    return make_reference, args, _extras(reference), None, None, instances.fill


def make_reference(*args: Any) -> Any:
    """Return a reference, as `reduce_reference` packed it."""
    kind, watch, _, referent, tally, callback = args
    _attend(watch, referent, tally)
    return ref.__new__(kind, referent, callback) if callback is not None else ref.__new__(kind, referent)


def dead_reference(kind: type[ref[Any]]) -> ref[Any]:
    """Return a reference whose referent is gone."""
    return ref.__new__(kind, _Gone())


@carries("weakref.WeakMethod", subclasses=True)
def reduce_method(reference: Any, packing: Packing) -> Reduced:
    """Reduce a `weakref.WeakMethod`; its own callback is a closure that holds the user's."""
    kind, method = type(reference), reference()
    if method is None:
        return dead_method, (kind,)
    referent, function, bind = method.__self__, method.__func__, type(method)
    del method
    watch, opening, (tally,) = _census([referent], packing)
    args = (kind, watch, opening, referent, tally, function, bind, _callback_of_method(reference))
    return make_method, args, _extras(reference, *_METHOD_PARTS), None, None, instances.fill


_METHOD_PARTS = ("_func_ref", "_meth_type", "_alive")


def _callback_of_method(reference: Any) -> Any:
    function = reference.__callback__
    cells = dict(zip(function.__code__.co_freevars, function.__closure__, strict=True))
    return cells["callback"].cell_contents


def make_method(*args: Any) -> Any:
    """Return a weak method, as `reduce_method` packed it."""
    kind, watch, _, referent, tally, function, bind, callback = args
    _attend(watch, referent, tally)
    return weakref.WeakMethod.__new__(kind, bind(function, referent), callback)


def dead_method(kind: type[weakref.WeakMethod[Any]]) -> Any:
    """Return a weak method whose object is gone."""
    method: Any = MethodType(len, _Gone())  # never called
    return weakref.WeakMethod.__new__(kind, method)


@carries("weakref.ProxyType", "weakref.CallableProxyType")
def reduce_proxy(proxy: Any, packing: Packing) -> Reduced:
    """Reduce a proxy; its callback is all that the garbage collector sees of it."""
    try:
        referent = _behind(proxy)
    except ReferenceError:
        return dead_proxy, (type(proxy) is weakref.CallableProxyType,)
    callback = next(iter(gc.get_referents(proxy)), None)
    watch, opening, (tally,) = _census([referent], packing)
    return make_proxy, (watch, opening, referent, tally, callback)


def _behind(proxy: Any) -> Any:
    """Return the object that `proxy` stands for: what its methods are bound to."""
    for name in ("__reduce_ex__", "__init__", "__setattr__", "__dir__", "__repr__"):
        referent = getattr(getattr(proxy, name, None), "__self__", None)
        if any(known is proxy for known in weakref.getweakrefs(referent)):
            return referent
    raise NotCarriedError("the object behind this proxy hides itself", "Pass a weakref.ref to it")


def make_proxy(*args: Any) -> Any:
    """Return a proxy, as `reduce_proxy` packed it."""
    watch, _, referent, tally, callback = args
    _attend(watch, referent, tally)
    return weakref.proxy(referent) if callback is None else weakref.proxy(referent, callback)


def dead_proxy(is_callable: bool) -> Any:
    """Return a proxy whose referent is gone."""
    return weakref.proxy(type("Gone", (), {"__call__": None})() if is_callable else _Gone())


# -- containers


@carries("_weakrefset.WeakSet", "weakref.WeakSet", subclasses=True)
def reduce_set(members: Any, packing: Packing) -> Reduced:
    """Reduce a `WeakSet` to its members that are alive."""
    alive = [member for member in [reference() for reference in list(members.data)] if member is not None]
    watch, opening, tallies = _census(alive, packing)
    pairs = list(zip(alive, tallies, strict=True))
    extras = _extras(members, "data", "_remove", "_pending_removals", "_iterating")
    return make_container, (type(members), 0), (watch, opening, pairs, extras), None, None, fill_set


@carries("weakref.WeakValueDictionary", subclasses=True)
def reduce_values(table: Any, packing: Packing) -> Reduced:
    """Reduce a `WeakValueDictionary` to its items that are alive."""
    found = [(key, reference()) for key, reference in list(table.data.items())]
    alive = [(key, value) for key, value in found if value is not None]
    watch, opening, tallies = _census([value for _, value in alive], packing)
    triples = [(value, tally, key) for (key, value), tally in zip(alive, tallies, strict=True)]
    extras = _extras(table, *_TABLE_PARTS)
    return make_container, (type(table), 1), (watch, opening, triples, extras), None, None, fill_values


@carries("weakref.WeakKeyDictionary", subclasses=True)
def reduce_keys(table: Any, packing: Packing) -> Reduced:
    """Reduce a `WeakKeyDictionary` to its items that are alive."""
    found = [(reference(), value) for reference, value in list(table.data.items())]
    alive = [(key, value) for key, value in found if key is not None]
    watch, opening, tallies = _census([key for key, _ in alive], packing)
    triples = [(key, tally, value) for (key, value), tally in zip(alive, tallies, strict=True)]
    extras = _extras(table, *_TABLE_PARTS)
    return make_container, (type(table), 2), (watch, opening, triples, extras), None, None, fill_keys


_TABLE_PARTS = ("data", "_remove", "_pending_removals", "_iterating", "_dirty_len")


def make_container(kind: Any, base: int) -> Any:
    """Return an empty weak container, without running code of a subclass."""
    made = object.__new__(kind)
    bases: Any = (weakref.WeakSet, weakref.WeakValueDictionary, weakref.WeakKeyDictionary)
    bases[base].__init__(made)
    return made


def fill_set(members: Any, state: tuple[Any, ...]) -> None:
    """Put members into a set of `make_container`."""
    watch, _, pairs, extras = state
    for member, tally in pairs:
        _attend(watch, member, tally)
        members.data.add(ref(member, members._remove))
    if extras is not None:
        instances.fill(members, extras)


def fill_values(table: Any, state: tuple[Any, ...]) -> None:
    """Put items into a dictionary of `make_container`."""
    watch, _, triples, extras = state
    for value, tally, key in triples:
        _attend(watch, value, tally)
        table.data[key] = weakref.KeyedRef(value, table._remove, key)
    if extras is not None:
        instances.fill(table, extras)


def fill_keys(table: Any, state: tuple[Any, ...]) -> None:
    """Put items into a dictionary of `make_container`."""
    watch, _, triples, extras = state
    for key, tally, value in triples:
        _attend(watch, key, tally)
        table.data[ref(key, table._remove)] = value
    if extras is not None:
        instances.fill(table, extras)


# -- finalizers


@carries("weakref.finalize")
def reduce_finalizer(finalizer: Any, packing: Packing) -> Reduced:
    """Reduce a `weakref.finalize`.

    The sender still owns what it cleans up. So the receiver's is alive, can be called and detached, but
    neither the end of its object nor the end of the process sets it off: cleaning up happens once.
    """
    finalize: Any = weakref.finalize
    info = finalize._registry.get(finalizer)  # nothing public shows its parts
    referent = None if info is None else info.weakref()
    if referent is None:
        return make_finalizer, (type(finalizer),)
    watch, opening, (tally,) = _census([referent], packing)
    state = (watch, opening, referent, tally, info.func, info.args, info.kwargs, info.index)
    return make_finalizer, (type(finalizer),), state, None, None, arm_finalizer


def make_finalizer(kind: Any) -> Any:
    """Return a finalizer that is dead."""
    return object.__new__(kind)


def arm_finalizer(finalizer: Any, state: tuple[Any, ...]) -> None:
    """Bring a finalizer of `make_finalizer` to life."""
    watch, _, referent, tally, function, args, kwargs, index = state
    _attend(watch, referent, tally)
    finalize: Any = weakref.finalize
    registry, info = finalize._registry, finalize._Info()
    info.weakref = ref(referent, lambda _: registry.pop(finalizer, None))
    info.func, info.args, info.kwargs, info.atexit, info.index = function, args, kwargs, False, index
    registry[finalizer] = info
