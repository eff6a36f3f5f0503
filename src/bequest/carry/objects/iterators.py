"""Iterators that pickle refuses or gets wrong: itertools, dict views, matches of `re`, sort keys.

    iterator -> its parts and its position, read without moving it -> the same kind of iterator, moved there

itertools objects could be pickled up to Python 3.13 (with a DeprecationWarning since 3.12) and cannot since
3.14. One way serves all versions: the parts come from the struct (`peek`), the rebuilding goes through the
public constructors. An odometer (`product`, `permutations` ...) takes again the steps that the sender's has
taken, which costs the receiver no more than it has cost the sender. Iterators that are not named here pickle
themselves well.
"""

from __future__ import annotations

import functools
import gc
import itertools
import sys

from bequest.carry import registry
from bequest.carry.objects import parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from bequest.carry.registry import Packing, Reduced, Reducer


# -- what rebuilds


def advanced(iterator: Iterator[Any], steps: int) -> Iterator[Any]:
    """Return `iterator` after taking `steps` items from it."""
    next(itertools.islice(iterator, steps, steps), None)
    return iterator


def rebuild_odometer(kind: Callable[..., Iterator[Any]], args: tuple[Any, ...], steps: int) -> Iterator[Any]:
    """Return `kind(*args)` after `steps` items."""
    return advanced(kind(*args), steps)


def rebuild_cycle(saved: list[Any], rest: Iterable[Any] | None, index: int) -> Iterator[Any]:
    """Return a cycle in its first pass (`rest` is not None), or at `index` of a later one."""
    if rest is None:
        return advanced(itertools.cycle(saved), index)
    return advanced(itertools.cycle(itertools.chain(saved, rest)), len(saved))


def rebuild_chain(active: Iterator[Any], rest: Iterator[Iterable[Any]]) -> Iterator[Any]:
    """Return a chain that is inside `active`."""
    return itertools.chain.from_iterable(itertools.chain((active,), rest))


def rebuild_accumulate(total: Any, rest: Iterator[Any], function: Any) -> Iterator[Any]:
    """Return an accumulate that has given out `total`."""
    if function is None and total is not None:
        return advanced(itertools.accumulate(rest, initial=total), 1)
    # None would mean "no initial value", so the total goes in as the first item, which is given out as it is.
    return advanced(itertools.accumulate(itertools.chain((total,), rest), function), 1)


def rebuild_pairwise(old: Any, rest: Iterator[Any]) -> Iterator[Any]:
    """Return a pairwise whose next pair starts with `old`."""
    return itertools.pairwise(itertools.chain((old,), rest))


def rebuild_groupby(target: Any, pending: list[Any], rest: Iterator[Any], key: Any) -> Iterator[Any]:
    """Return a groupby inside the group `target`, with what is in `pending` read but not given out."""
    # The first item stands for those of the group that are gone; it is its own key.
    late: Any = None if key is None else functools.partial(_same)
    groups = itertools.groupby(itertools.chain((target,), pending, rest), late)
    _, group = next(groups)
    next(group)
    if late is not None:
        late.__setstate__((key, (), {}, None))
    return groups


def rebuild_group(groups: Iterator[Any], target: Any) -> Iterator[Any]:
    """Return the iterator over the items of the present group of `groups`."""
    made: Iterator[Any] = itertools._grouper(groups, target)  # type: ignore[attr-defined]  # not in typeshed
    return made


def _same(item: Any) -> Any:
    return item


class TeeSource:
    """What the iterators of one `tee()` have in common; each joins as it arrives.

    Attributes:
        rest: The iterator that was given to `tee`.
    """

    __slots__ = ("_ahead", "_root", "rest")

    def __init__(self, rest: Iterator[Any]) -> None:
        self.rest = rest
        self._root: Any = None
        self._ahead = 0

    def join(self, ahead: list[Any]) -> Iterator[Any]:
        """Return the iterator that still has the items of `ahead` in front of `rest`."""
        if self._root is None:
            self._root, self._ahead = itertools.tee(itertools.chain(ahead, self.rest), 1)[0], len(ahead)
        older = len(ahead) - self._ahead
        shared = self._root.__copy__()
        if older > 0:
            return itertools.tee(itertools.chain(ahead[:older], shared), 1)[0]
        return advanced(shared, -older)


def rebuild_tee(source: TeeSource, ahead: list[Any]) -> Iterator[Any]:
    """Return one iterator of a tee."""
    return source.join(ahead)


def rebuild_memory_iterator(view: memoryview, index: int) -> Iterator[Any]:
    """Return an iterator over `view` that stands at `index`."""
    return advanced(iter(view), index)


def rebuild_view(kind: str, ordered: bool, table: dict[Any, Any]) -> Any:
    """Return `table.keys()`, `values()` or `items()`, as the base class makes it."""
    if ordered:
        import collections

        return getattr(collections.OrderedDict, kind)(table)
    return getattr(dict, kind)(table)


def rebuild_key(compare: Callable[[Any, Any], int], of: tuple[Any, ...]) -> Any:
    """Return a `cmp_to_key` factory, or the key that it makes of the one object in `of`."""
    factory: Any = functools.cmp_to_key(compare)
    return factory(*of)


def rebuild_key_factory(compare: Callable[[Any, Any], int]) -> Any:
    """Return `functools.cmp_to_key(compare)`."""
    return functools.cmp_to_key(compare)


# -- what packs: itertools


def carries(*names: str) -> Callable[[Reducer], Reducer]:
    """Register the decorated function as the reducer of iterators, whose makers use what they are made of."""
    return lambda reducer: registry.carries(*names)(parts.requiring(reducer))


@carries("builtins.map", "builtins.filter", "builtins.zip", "builtins.enumerate", "builtins.reversed")
def reduce_own_way(iterator: Any, packing: Packing) -> Reduced:
    """Reduce what pickles itself well, as long as what it goes through can be carried."""
    return packing.own_way(iterator)


@carries("itertools.count")
def reduce_count(counter: Any, packing: Packing) -> Reduced:
    """Its repr and its referents say all; needs no look at the struct."""
    parts = [part for part in gc.get_referents(counter) if part is not type(counter)]
    if len(parts) == 2:
        return itertools.count, tuple(parts)
    # Counting by one within the machine's integers, it keeps its number where only the repr shows it; the
    # last of these says <NULL>.
    shown = repr(counter).partition("(")[2].rstrip(")")
    return itertools.count, (sys.maxsize if shown == "<NULL>" else int(shown), *parts)


@registry.carries("itertools.repeat")
def reduce_repeat(repeater: Any, packing: Packing) -> Reduced:
    """As often as is left, or for ever."""
    (element,) = (part for part in gc.get_referents(repeater) if part is not type(repeater))
    try:
        return itertools.repeat, (element, repeater.__length_hint__())
    except TypeError:  # "len() of unsized object": it never ends
        return itertools.repeat, (element,)


@carries("itertools.cycle")
def reduce_cycle(cycle: Any, packing: Packing) -> Reduced:
    """What it has saved, and what is left of its first pass."""
    peek = _peek()
    # Up to 3.13 there is a fourth slot, set on a copy or a pickle: the rest is part of what has been saved.
    rest, saved, index, *copied = peek.slots(cycle)
    if rest is peek.NULL:
        return rebuild_cycle, (saved, None, peek.number(index))
    if copied and peek.low_half(copied[0]):
        return rebuild_chain, (rest, iter([itertools.cycle(saved)]))
    return rebuild_cycle, (saved, rest, 0)


@carries("itertools.islice")
def reduce_islice(part: Any, packing: Packing) -> Reduced:
    """The rest of the slice, counted from where its iterator stands."""
    peek = _peek()
    rest, upcoming, stop, step, seen = peek.slots(part)
    if rest is peek.NULL:
        return itertools.islice, ((), 0)
    seen = peek.number(seen)
    left = None if stop == -1 else max(0, peek.number(stop) - seen)
    return itertools.islice, (rest, max(0, peek.number(upcoming) - seen), left, step)


@carries("itertools.chain")
def reduce_chain(chain: Any, packing: Packing) -> Reduced:
    """The iterator it is in, and those that follow."""
    peek = _peek()
    source, active = peek.slots(chain)
    if active is not peek.NULL:
        return rebuild_chain, (active, iter(()) if source is peek.NULL else source)
    if source is peek.NULL:
        return itertools.chain, ()
    return itertools.chain.from_iterable, (source,)


@carries("itertools.compress", "itertools.starmap", "itertools.filterfalse")
def reduce_pair(iterator: Any, packing: Packing) -> Reduced:
    """Two parts and no state of its own."""
    return type(iterator), tuple(_peek().slots(iterator)[:2])


@carries("itertools.takewhile")
def reduce_takewhile(iterator: Any, packing: Packing) -> Reduced:
    """Ended, or as new."""
    peek = _peek()
    function, rest, ended = peek.slots(iterator)[:3]
    return itertools.takewhile, (function, () if peek.low_half(ended) else rest)


@carries("itertools.dropwhile")
def reduce_dropwhile(iterator: Any, packing: Packing) -> Reduced:
    """Still dropping, or passing everything on."""
    peek = _peek()
    function, rest, passing = peek.slots(iterator)[:3]
    # "is it in ()" is the cheapest predicate that is true of nothing.
    return itertools.dropwhile, (().__contains__ if peek.low_half(passing) else function, rest)


@carries("itertools.accumulate")
def reduce_accumulate(iterator: Any, packing: Packing) -> Reduced:
    """With its total so far."""
    peek = _peek()
    total, rest, function, initial = peek.slots(iterator)[:4]
    function = None if function is peek.NULL else function
    if initial is not None and initial is not peek.NULL:
        return functools.partial(itertools.accumulate, initial=initial), (rest, function)
    if total is peek.NULL:
        return itertools.accumulate, (rest, function)
    return rebuild_accumulate, (total, rest, function)


@carries("itertools.pairwise")
def reduce_pairwise(iterator: Any, packing: Packing) -> Reduced:
    """With the item that the next pair starts with."""
    peek = _peek()
    rest, old = peek.slots(iterator)[:2]
    if rest is peek.NULL:
        return itertools.pairwise, ((),)
    return (itertools.pairwise, (rest,)) if old is peek.NULL else (rebuild_pairwise, (old, rest))


@carries("itertools.batched")
def reduce_batched(iterator: Any, packing: Packing) -> Reduced:
    """With its size, and whether it is strict (since 3.13)."""
    peek = _peek()
    rest, size, *strict = peek.slots(iterator)
    size = peek.number(size)
    if rest is peek.NULL or size < 1:  # ended; since 3.14 it says so by its size
        rest, size = (), 1
    if strict and peek.low_half(strict[0]) & 1:
        kind: Any = type(iterator)
        return functools.partial(kind, strict=True), (rest, size)
    return type(iterator), (rest, size)


@carries("itertools.zip_longest")
def reduce_zip_longest(iterator: Any, packing: Packing) -> Reduced:
    """Iterators that have ended are empty pointers in a tuple, which nothing else may read."""
    peek = _peek()
    _, active, parts, _, fill = peek.slots(iterator)
    if not peek.number(active):
        return itertools.zip_longest, ()
    found = peek.items(gc.get_referents(parts), parts)
    again = tuple(() if part is peek.NULL else part for part in found)
    return functools.partial(itertools.zip_longest, fillvalue=fill), again


@carries("itertools.product")
def reduce_product(iterator: Any, packing: Packing) -> Reduced:
    """Its odometer, read as a number."""
    peek = _peek()
    pools, indices, result, stopped = peek.slots(iterator)
    if peek.low_half(stopped):
        return itertools.product, ((),)
    steps = 0
    if result is not peek.NULL:
        for index, pool in zip(peek.words_at(indices, len(pools)), pools, strict=True):
            steps = steps * len(pool) + index
        steps += 1
    return rebuild_odometer, (itertools.product, pools, steps)


@carries("itertools.permutations")
def reduce_permutations(iterator: Any, packing: Packing) -> Reduced:
    """Its cycles count down, each in the base of the items that are left for its place."""
    peek = _peek()
    pool, _, cycles, result, length, stopped = peek.slots(iterator)
    if peek.low_half(stopped):
        return itertools.permutations, ((), 1)
    length, steps = peek.number(length), 0
    if result is not peek.NULL:
        for place, cycle in enumerate(peek.words_at(cycles, length)):
            base = len(pool) - place
            steps = steps * base + (base - cycle)
        steps += 1
    return rebuild_odometer, (itertools.permutations, (pool, length), steps)


@carries("itertools.combinations", "itertools.combinations_with_replacement")
def reduce_combinations(iterator: Any, packing: Packing) -> Reduced:
    """The rank of its present choice, among all choices in their order."""
    peek = _peek()
    kind = type(iterator)
    pool, indices, result, length, stopped = peek.slots(iterator)
    if peek.low_half(stopped):
        return kind, ((), 1)
    length, steps = peek.number(length), 0
    if result is not peek.NULL:
        chosen, size = peek.words_at(indices, length), len(pool)
        if kind is itertools.combinations_with_replacement:
            # The same as choosing without replacement among more items: place k is shifted by k.
            chosen, size = [index + place for place, index in enumerate(chosen)], size + length - 1
        steps = _rank(chosen, size) + 1
    return rebuild_odometer, (kind, (pool, length), steps)


def _rank(chosen: list[int], size: int) -> int:
    """Return how many combinations of `size` items come before `chosen` in lexicographic order."""
    import math

    length = len(chosen)
    behind = sum(math.comb(size - 1 - index, length - place) for place, index in enumerate(chosen))
    return math.comb(size, length) - 1 - behind


@carries("itertools.groupby")
def reduce_groupby(groups: Any, packing: Packing) -> Reduced:
    """Inside a group, with the item that was read to find its end."""
    peek = _peek()
    rest, key, target, _, value = peek.slots(groups)[:5]
    if target is peek.NULL:
        return itertools.groupby, (rest, key)
    return rebuild_groupby, (target, [] if value is peek.NULL else [value], rest, key)


@carries("itertools._grouper")
def reduce_group(group: Any, packing: Packing) -> Reduced:
    """The present group goes on in its groupby; one that its groupby has left behind gives nothing."""
    peek = _peek()
    groups, target = peek.slots(group)[:2]
    # The groupby points to its present group without holding it, so the word is an address.
    if peek.body(groups)[5] != id(group):
        return iter, ((),)
    return rebuild_group, (groups, target)


@carries("itertools._tee")
def reduce_tee(iterator: Any, packing: Packing) -> Reduced:
    """The items in front of it, and the last link of the chain, which its siblings share."""
    peek = _peek()
    link, index = peek.slots(iterator)[:2]
    start, ahead = peek.low_half(index), list[object]()
    while True:
        _, read, following, *values = peek.slots(link)
        ahead += values[start : peek.low_half(read)]
        if following is peek.NULL:
            return rebuild_tee, (link, ahead)
        link, start = following, 0


@carries("itertools._tee_dataobject")
def reduce_tee_link(link: Any, packing: Packing) -> Reduced:
    """The last link of a chain stands for the whole `tee()`."""
    return TeeSource, (_peek().slots(link)[0],)


@carries("builtins.memory_iterator")
def reduce_memory_iterator(iterator: Any, packing: Packing) -> Reduced:
    """At its index; ended where it has let go of its view."""
    peek = _peek()
    index, view = peek.slots(iterator)[:2]
    if view is peek.NULL:
        return iter, ((),)
    return rebuild_memory_iterator, (view, peek.number(index))


# -- what packs: views, matches, keys


@carries("builtins.dict_keys", "builtins.dict_values", "builtins.dict_items")
def reduce_dict_view(view: Any, packing: Packing) -> Reduced:
    """A view follows its dict: the very dict, not the read-only `mapping`."""
    return rebuild_view, (type(view).__name__.removeprefix("dict_"), False, gc.get_referents(view)[0])


@carries("builtins.odict_keys", "builtins.odict_values", "builtins.odict_items")
def reduce_ordered_view(view: Any, packing: Packing) -> Reduced:
    """As `reduce_dict_view`."""
    return rebuild_view, (type(view).__name__.removeprefix("odict_"), True, gc.get_referents(view)[0])


@carries("functools.KeyWrapper")
def reduce_key(key: Any, packing: Packing) -> Reduced:
    """What `functools.cmp_to_key` returns, or a key that this has made."""
    compare, *of = (part for part in gc.get_referents(key) if part is not type(key))
    return (rebuild_key, (compare, tuple(of))) if of else (rebuild_key_factory, (compare,))


# -- the struct


def _peek() -> Any:
    """Return the module that reads structs, once it has shown that it reads these well."""
    from bequest.carry.objects import peek

    peek.expect(_layout_is_known)
    return peek


def _layout_is_known() -> bool:
    """Read one object of each shape, in a state that is known, where the reducers above expect its parts."""
    from bequest.carry.objects import peek

    rest = iter("abcdefghij")
    part = itertools.islice(rest, 2, 9, 3)
    next(part)
    odometer = advanced(itertools.permutations(range(7), 3), 45)
    pool, indices, cycles, result, length, stopped = peek.slots(odometer)
    pairs = itertools.tee(iter("ab"))[0]
    next(pairs)
    link, index = peek.slots(pairs)[:2]
    return (
        peek.slots(part) == [rest, 5, 9, 3, 3]
        and (pool, result, length, stopped) == (tuple(range(7)), (1, 3, 6), 3, peek.NULL)
        and peek.words_at(indices, 3) == [1, 3, 6]
        and peek.words_at(cycles, 3) == [6, 4, 1]
        and peek.low_half(index) == 1
        and peek.low_half(peek.slots(link)[1]) == 1
        and peek.items(("x", None), ("x", None)) == ["x", None]
    )
