"""A stand-in for what was left behind: every use raises and teaches; everything passive works."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import sent

from bequest.carry.leftbehind import Explanation, LeftBehind, explanation_of
from bequest.carry.pickler import dumps, pack
from bequest.errors import CarryError, LeftBehindError
from receiving import Receiver


async def _await(stand_in: Any) -> None:
    await stand_in


def _enter(stand_in: Any) -> None:
    with stand_in:
        pass


def _add_in_place(stand_in: Any) -> None:
    stand_in += 1


def _finish(stand_in: Any) -> None:
    _await(stand_in).send(None)


USES: dict[str, Callable[[Any], Any]] = {
    "attribute": lambda it: it.anything,
    "underscored attribute": lambda it: it._anything,
    "setting": lambda it: setattr(it, "x", 1),
    "deleting": lambda it: delattr(it, "x"),
    "call": lambda it: it(1, a=2),
    "iter": iter,
    "next": next,
    "for": list,
    "reversed": reversed,
    "async iter": aiter,
    "item": lambda it: it[0],
    "item set": lambda it: operator.setitem(it, 0, 1),
    "item deleted": lambda it: operator.delitem(it, 0),
    "contains": lambda it: 1 in it,
    "with": _enter,
    "await": _finish,
    "len": len,
    "int": int,
    "float": float,
    "complex": complex,
    "index": operator.index,
    "bytes": bytes,
    "round": round,
    "path": lambda it: open(it),  # noqa: SIM115 - never opened
    "less": lambda it: it < 1,
    "greater, from the right": lambda it: 1 > it,  # noqa: SIM300 - the right operand's method is meant
    "plus": lambda it: it + 1,
    "plus, from the right": lambda it: 1 + it,
    "in place": _add_in_place,
    "power": lambda it: it**2,
    "modulo": lambda it: it % 2,
    "or": lambda it: it | 1,
    "minus": lambda it: -it,
    "abs": abs,
    "hasattr": lambda it: hasattr(it, "x"),
}


@pytest.fixture
def stand_in() -> Any:
    """A stand-in as a child has it."""
    return LeftBehind(
        Explanation("target work -> closure db", "Database", "it is elsewhere", "Open it inside")
    )


@pytest.mark.parametrize("use", USES)
def test_every_use_raises(stand_in: Any, use: str) -> None:
    """Using a stand-in in any way raises LeftBehindError, which says what, where, why, and what to do."""
    with pytest.raises(LeftBehindError) as caught:
        USES[use](stand_in)

    error = caught.value
    assert (error.path, error.kind) == ("target work -> closure db", "Database")
    assert (error.reason, error.remedy) == ("it is elsewhere", "Open it inside")
    for part in (error.use, *error.path.split(" -> "), error.kind, error.reason, error.remedy):
        assert part
        assert part in str(error)


@pytest.mark.parametrize("method", ["acquire", "send", "__next__", "__call__", "__dict__"])
def test_attribute_is_named(stand_in: Any, method: str) -> None:
    """The error names the attribute that was asked for."""
    with pytest.raises(LeftBehindError, match=method):
        getattr(stand_in, method)


def test_passive_handling_works(stand_in: Any) -> None:
    """It can be printed, tested, compared, hashed, stored and passed on."""
    assert repr(stand_in) == str(stand_in) == "<left behind: target work -> closure db (Database)>"
    assert bool(stand_in)
    assert stand_in == stand_in
    assert stand_in != 1
    assert {stand_in: 1}[stand_in] == 1
    assert [stand_in].index(stand_in) == 0
    assert isinstance(stand_in, LeftBehind)
    assert f"{stand_in}".startswith("<left behind")


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy])
def test_copy_is_itself(stand_in: Any, way: Callable[[Any], Any]) -> None:
    """Copying what holds a stand-in does not use it."""
    assert way([stand_in])[0] is stand_in


@pytest.mark.parametrize("way", [dumps, pickle.dumps, lambda it: pack(it, starting=True).data])
def test_passed_on_it_is_still_a_stand_in(stand_in: Any, way: Callable[[Any], bytes]) -> None:
    """A stand-in that is sent on arrives as one, with the same explanation."""
    again = pickle.loads(way([stand_in]))[0]

    assert type(again) is LeftBehind
    assert explanation_of(again).path == "target work -> closure db"


def test_start_leaves_behind_what_is_not_bound_to_be_used(receiver: Receiver) -> None:
    """For a process that starts, an object deep in the graph is replaced, and the rest arrives."""
    packed = pack({"deep": [sent.Imported(sent.running_generator())], "fine": 1}, starting=True)

    assert len(packed.left) == 1
    assert receiver.ask("it['fine']", packed.data, starting=True) == 1
    with pytest.raises(Exception, match=r"(?s)LeftBehindError: iteration of generator.*object\['deep'\]"):
        receiver.ask("next(it['deep'][0].content)")


def test_one_object_has_one_stand_in(receiver: Receiver) -> None:
    """What was one object is one stand-in, wherever it stood."""
    generator = sent.running_generator()
    packed = pack([[generator], [generator]], starting=True)

    assert receiver.ask("it[0][0] is it[1][0]", packed.data, starting=True)


@pytest.mark.parametrize("strict", [True, False])
def test_strict_start_refuses(strict: bool) -> None:
    """In strict mode a start is refused for what would otherwise be left behind."""
    graph = {"deep": [[sent.running_generator()]]}
    if not strict:
        assert pack(graph, starting=True).left
        return

    with pytest.raises(CarryError, match="generator"):
        pack(graph, starting=True, strict=True)


def test_message_refuses() -> None:
    """A message is refused for any part that cannot be carried; the error says all about it."""
    with pytest.raises(CarryError) as caught:
        dumps({"deep": [sent.Imported(sent.running_generator())]})

    error = caught.value
    assert error.path == "object['deep'][0].content"
    assert "generator" in error.kind
    assert error.reason
    assert error.remedy
    for part in (error.path, error.kind, error.reason, error.remedy):
        assert part in str(error)


def test_refusal_tells_what_the_object_raised() -> None:
    """Where an object's own way raised, that error is the cause."""
    import ssl

    with pytest.raises(CarryError, match="cannot pickle '_ssl.MemoryBIO'") as caught:
        pack([ssl.MemoryBIO()], starting=True, strict=True)

    assert isinstance(caught.value.__cause__, TypeError)
