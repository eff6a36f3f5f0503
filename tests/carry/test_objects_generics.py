"""Type aliases that no import finds arrive with their parameters and values, as one object each."""

from __future__ import annotations

import typing
from typing import Any

import pytest

from bequest.carry.pickler import dumps
from receiving import Receiver

ALIAS: Any = getattr(typing, "TypeAliasType", None)  # since 3.12
if ALIAS is None:
    pytest.skip("this Python has no type statement", allow_module_level=True)

STATEMENTS = """
type Pair = tuple[int, int]
type Tree[T] = T | list[Tree[T]]
given = kind("given", list[int])
"""


def aliases() -> dict[str, Any]:
    """Return the aliases that a program's main module might define."""
    space: dict[str, Any] = {"__name__": "nowhere", "kind": ALIAS}
    exec(STATEMENTS, space)
    return {name: space[name] for name in ("Pair", "Tree", "given")}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("str(it['Pair'].__value__)", "tuple[int, int]"),
        ("it['Tree'].__value__.__args__[0] is it['Tree'].__type_params__[0]", True),
        ("it['Tree'].__value__.__args__[1].__args__[0].__origin__ is it['Tree']", True),
        ("it['Tree'][int].__args__", (int,)),
        ("(str(it['given'].__value__), it['given'].__module__)", ("list[int]", "nowhere")),
    ],
)
def test_alias(receiver: Receiver, question: str, answer: Any) -> None:
    """Values are computed there, recursive ones too, and type parameters are the ones in the value."""
    assert receiver.ask(question, dumps(aliases())) == answer


def test_one_object_in_every_message(receiver: Receiver) -> None:
    """Two messages bring the same alias."""
    pair = aliases()["Pair"]
    receiver.ask("None", dumps(pair), name="first")

    assert receiver.ask("it is first", dumps(pair))
