"""Iterators go on in the receiver from where they stand in the sender, whose own do not move."""

from __future__ import annotations

import collections
import functools
import itertools
import operator
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bequest.carry.pickler import pack

SHOWN = 40


def again(obj: Any) -> Any:
    """Return `obj` as a child would have it."""
    return pickle.loads(pack(obj, starting=True, strict=True).data)


def _shown(iterator: Iterator[Any]) -> list[Any]:
    return list(itertools.islice(iterator, SHOWN))


MAKERS: dict[str, Callable[[], Any]] = {
    "count": lambda: itertools.count(5),
    "count by two": lambda: itertools.count(5, 2),
    "count in fractions": lambda: itertools.count(1.5, 0.5),
    "count past the word": lambda: itertools.count(sys.maxsize - 3),
    "repeat": lambda: itertools.repeat("x", 4),
    "repeat for ever": lambda: itertools.repeat("x"),
    "cycle": lambda: itertools.cycle("abc"),
    "cycle of nothing": lambda: itertools.cycle(""),
    "islice": lambda: itertools.islice(range(30), 2, 25, 3),
    "islice without end": lambda: itertools.islice(itertools.count(), 5, None, 4),
    "chain": lambda: itertools.chain("ab", "", "cd"),
    "chain from iterable": lambda: itertools.chain.from_iterable(["ab", "c"]),
    "compress": lambda: itertools.compress("abcdef", [1, 0, 1, 1, 0, 1]),
    "filterfalse": lambda: itertools.filterfalse(lambda n: n % 2, range(20)),
    "starmap": lambda: itertools.starmap(pow, [(2, n) for n in range(9)]),
    "takewhile": lambda: itertools.takewhile(lambda n: n < 5, range(20)),
    "dropwhile": lambda: itertools.dropwhile(lambda n: n % 7 < 5, range(20)),
    "accumulate": lambda: itertools.accumulate(range(10)),
    "accumulate from": lambda: itertools.accumulate(range(1, 10), operator.mul, initial=100),
    "accumulate to None": lambda: itertools.accumulate(range(1, 10), lambda a, b: None),
    "pairwise": lambda: itertools.pairwise("abcdef"),
    "product": lambda: itertools.product("abc", "xy", [1, 1]),
    "product of nothing": lambda: itertools.product(),
    "permutations": lambda: itertools.permutations("abcd", 3),
    "permutations of none": lambda: itertools.permutations("abcd", 0),
    "combinations": lambda: itertools.combinations("abcde", 3),
    "combinations with replacement": lambda: itertools.combinations_with_replacement("abc", 3),
    "zip_longest": lambda: itertools.zip_longest("ab", "cdef", "", fillvalue="-"),
    "zip": lambda: zip("ab", "cd", strict=True),
    "enumerate": lambda: enumerate("ab", 4),
    "reversed": lambda: reversed([1, 2]),
    "dict": lambda: iter({1: 2, 3: 4}),
    "deque": lambda: iter(collections.deque([1, 2])),
    "long range": lambda: iter(range(2**70, 2**70 + 4)),
    "memoryview": lambda: iter(memoryview(b"abc")),
}
if hasattr(itertools, "batched"):
    MAKERS["batched"] = lambda: getattr(itertools, "batched")("abcdefg", 3)  # noqa: B009 - since 3.12


@pytest.mark.parametrize("name", MAKERS)
def test_iterator_goes_on_from_any_position(name: str) -> None:
    """After any number of steps, the receiver's iterator gives what the sender's gives, unmoved."""
    for steps in range(14):
        sent, untouched = MAKERS[name](), MAKERS[name]()
        for _ in range(steps):
            next(sent, None)
            next(untouched, None)

        arrived = again(sent)

        assert _shown(arrived) == _shown(untouched), f"after {steps} steps"
        assert type(arrived) is type(sent) or "dict" in name or steps


@pytest.mark.parametrize("size", range(5))
def test_odometers_of_every_size(size: int) -> None:
    """Permutations and combinations are found again at each of their positions."""
    kinds: tuple[Any, ...] = (
        itertools.permutations,
        itertools.combinations,
        itertools.combinations_with_replacement,
    )
    for kind in kinds:
        whole = list(kind("abcd", size))
        for steps in range(len(whole) + 2):
            sent = kind("abcd", size)
            next(itertools.islice(sent, steps, steps), None)
            assert list(again(sent)) == whole[steps:]


def _grouped(groups: Any) -> list[tuple[Any, list[Any]]]:
    return [(key, list(group)) for key, group in groups]


@pytest.mark.parametrize("key", [None, lambda n: n % 2], ids=["no key", "key"])
@pytest.mark.parametrize("steps", ["", "g", "gi", "gii", "giii", "gg", "ggi", "gigi", "ggg", "gggi", "gggg"])
def test_groupby_and_its_group(key: Any, steps: str) -> None:
    """A groupby and the iterator of its present group go on together (g: next group, i: next item of it)."""

    def stepped() -> tuple[Any, Any]:
        groups, group = itertools.groupby([1, 1, 1, 3, 3, 2], key), iter(())
        for step in steps:
            if step == "g":
                _, group = next(groups, (None, iter(())))
            else:
                next(group, None)
        return groups, group

    arrived, arrived_group = again(stepped())
    groups, group = stepped()

    assert list(arrived_group) == list(group)
    assert _grouped(arrived) == _grouped(groups)
    assert _grouped(again(stepped()[0])) == _grouped(stepped()[0])


@pytest.mark.parametrize("taken", [(0, 0, 0), (1, 0, 0), (2, 5, 1), (60, 3, 58), (130, 0, 57), (200, 200, 3)])
def test_tee_shares_its_source(taken: tuple[int, ...]) -> None:
    """The iterators of a tee still read one source, each from its own position."""
    siblings = itertools.tee(iter(range(200)), 3)
    for iterator, steps in zip(siblings, taken, strict=True):
        next(itertools.islice(iterator, steps, steps), None)

    assert [list(iterator) for iterator in again(siblings)] == [list(range(n, 200)) for n in taken]


def test_iterator_that_leads_back_to_itself() -> None:
    """An iterator whose function belongs to an object that holds the iterator arrives as one cycle."""

    class Feed:
        rows: Any

        def parse(self, row: int) -> tuple[Feed, int]:
            return self, row

    feed = Feed()
    feed.rows = map(feed.parse, [1, 2])

    rows = again(feed.rows)

    assert next(rows)[0].rows is rows


def test_views_follow_their_dict() -> None:
    """Views of a dict see what is put into the dict that came with them."""
    table = {"a": 1}
    arrived, keys, values, items = again((table, table.keys(), table.values(), table.items()))

    arrived["b"] = 2

    assert (list(keys), list(values), len(items), keys.mapping["a"]) == (["a", "b"], [1, 2], 2, 1)


def test_view_of_ordered_dict_keeps_its_type() -> None:
    """The view of an OrderedDict can still be reversed."""
    keys = again(collections.OrderedDict(a=1, b=2).keys())

    assert list(reversed(keys)) == ["b", "a"]


def test_match_keeps_pattern_and_string() -> None:
    """A match refers to the pattern and the string that came with it."""
    pattern, text = re.compile(r"(?P<number>\d+)", re.ASCII), "ab 12 34"
    arrived, same_pattern, same_text = again((pattern.search(text), pattern, text))

    assert arrived.re is same_pattern
    assert arrived.string is same_text
    assert (arrived["number"], arrived.span("number"), arrived.pos) == ("12", (3, 5), 0)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"\d+", "1 22 333"),
        ("x*", "axxb"),
        ("", "abc"),
        ("é|漢", "aé漢é"),
        ("(?=b)", "abbb"),
        (b"b*", b"abba"),
    ],
)
def test_finditer_goes_on(pattern: Any, text: Any) -> None:
    """What `finditer` has left comes, empty matches included; each match of it comes as it is."""
    compiled: Any = re.compile(pattern)
    spans = [match.span() for match in compiled.finditer(text)]
    for steps in range(len(spans) + 2):
        found = compiled.finditer(text)
        for _ in range(steps):
            match = next(found, None)
            assert match is None or again(match).regs == match.regs
        assert [match.span() for match in again(found)] == spans[steps:]


def test_sort_key_of_a_lambda() -> None:
    """A `cmp_to_key` factory and keys made by it still compare with the function."""
    compare: Any = lambda a, b: b - a  # noqa: E731 - that it is a lambda is the point
    factory = functools.cmp_to_key(compare)

    assert sorted([1, 3, 2], key=again(factory)) == [3, 2, 1]
    one, two = again([factory(1), factory(2)])
    assert one > two
    assert one.obj == 1
