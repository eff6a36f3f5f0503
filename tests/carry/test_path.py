"""A path tells where in the graph a thing stands, in the names that the user gave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sent

import bequest
from bequest.carry.path import Path, describe_class, find_paths
from bequest.carry.pickler import pack
from bequest.errors import CarryError


class Marked:
    """What is looked for."""


def holding_by_closure(marked: Any) -> Any:
    """Return a function that closes over `marked`."""

    def work() -> Any:
        return marked

    return work


def holding_by_default(marked: Any) -> Any:
    """Return a function that has `marked` as a default."""

    def work(found: Any = marked) -> Any:
        return found

    return work


HOLDERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "itself": (lambda it: it, "object"),
    "list": (lambda it: [0, it], "object[1]"),
    "dict": (lambda it: {"a": {"b": it}}, "object['a']['b']"),
    "attribute": (sent.Imported, "object.content"),
    "mixture": (lambda it: [sent.Imported({"k": (it,)})], "object[0].content['k'][0]"),
    "keyword of a partial": (lambda it: __import__("functools").partial(print, a=it), "object.keywords['a']"),
    "set": (lambda it: {it}, "object -> member <Marked>"),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_path_reads_as_code(name: str) -> None:
    """Items and attributes stand in a path as they would in a program."""
    marked = Marked()
    hold, text = HOLDERS[name]

    assert str(find_paths(hold(marked), [marked])[id(marked)]) == text


@pytest.mark.parametrize(
    ("hold", "end"),
    [(holding_by_closure, " -> closure marked"), (holding_by_default, " -> default")],
    ids=["closure", "default"],
)
def test_path_through_a_function_says_where_it_is_defined(hold: Callable[[Any], Any], end: str) -> None:
    """A function is told with its name, file and line, then how it holds the thing."""
    marked = Marked()
    text = str(find_paths(hold(marked), [marked])[id(marked)])

    assert text.startswith(f"object {hold.__name__}.work (test_path.py:")
    assert text.endswith(end)


def test_shortest_path_is_told() -> None:
    """Of several ways to a thing the shortest is told."""
    marked = Marked()

    assert str(find_paths([[[marked]], marked], [marked])[id(marked)]) == "object[1]"


def test_cycle_ends() -> None:
    """A graph that holds itself is walked once."""
    ring: list[Any] = []
    ring.append(ring)
    marked = Marked()

    assert "something" in str(find_paths(ring, [marked])[id(marked)])


def test_long_path_is_cut_in_the_middle() -> None:
    """A path of thousands of steps keeps its beginning and its end."""
    text = str(Path((("root", "object"), *(("item", f"[{n}]") for n in range(5_000)))))

    assert text.startswith("object[0][1]")
    assert text.endswith("[4999]")
    assert "steps" in text
    assert len(text) < 1_000


PROCESSES: dict[str, tuple[dict[str, Any], str]] = {
    "argument": ({"target": print, "args": (1, sent.running_generator())}, "args[1]"),
    "keyword": ({"target": print, "kwargs": {"key": sent.running_generator()}}, "kwargs['key']"),
    "target": (
        {"target": holding_by_closure(sent.running_generator())},
        "target holding_by_closure.work (test_path.py:",
    ),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_path_in_a_process_begins_at_its_arguments(name: str) -> None:
    """What a process is bound to use is refused at once, told from `target`, `args` or `kwargs`."""
    given, beginning = PROCESSES[name]
    process = bequest.get_context("spawn").Process(**given)

    with pytest.raises(CarryError) as caught:
        pack(process, starting=True)

    assert caught.value.path.startswith(beginning)


@pytest.mark.parametrize(
    ("kinds", "bound"),
    [
        (("root",), True),
        (("root", "item"), True),
        (("root", "function", "closure"), True),
        (("root", "function", "global"), True),
        (("root", "item", "attribute"), False),
        (("root", "function", "closure", "item"), False),
    ],
    ids=str,
)
def test_what_a_child_is_bound_to_use(kinds: tuple[str, ...], bound: bool) -> None:
    """The target, its arguments, and what its code reads are bound to be used; what hangs on them is not."""
    assert Path(tuple((kind, "x") for kind in kinds)).is_bound_to_be_used is bound


def test_class_is_told_by_its_name() -> None:
    """A class is told by its qualified name."""
    assert describe_class(sent.Imported) == "class Imported"
