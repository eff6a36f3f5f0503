"""Context variables are one object per process; contexts and tokens refer to them."""

from __future__ import annotations

import contextvars
import decimal
import pickle
from typing import Any

import pytest

from bequest.carry.objects import contexts
from bequest.carry.pickler import pack
from bequest.errors import CarryError


def again(obj: Any, *, starting: bool = True) -> Any:
    """Return `obj` carried within this process."""
    return pickle.loads(pack(obj, starting=starting, strict=True).data)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what carries an object to where none of its variables are known yet, any number of times."""

    def carry(obj: Any, times: int = 1) -> list[Any]:
        data = pack(obj, starting=True, strict=True).data
        for name in ("_variables", "_tokens", "_first"):
            monkeypatch.setattr(contexts, name, {})
        return [pickle.loads(data) for _ in range(times)]

    return carry


def test_variable_comes_home_as_itself() -> None:
    """Within one process a variable is one object."""
    variable = contextvars.ContextVar("variable", default=1)
    assert again(variable) is variable
    assert again(contexts._probe) is contexts._probe


def test_two_messages_bring_one_variable(elsewhere: Any) -> None:
    """The same variable in two messages is one object in the receiver, with name and default."""
    first, second = elsewhere(contextvars.ContextVar("variable", default=(1,)), times=2)
    assert first is second
    assert (first.name, first.get()) == ("variable", (1,))


def test_variable_without_default(elsewhere: Any) -> None:
    """A variable that has no default has none in the receiver."""
    (arrived,) = elsewhere(contextvars.ContextVar("variable"))
    with pytest.raises(LookupError):
        arrived.get()


def test_decimals_variable_is_decimals() -> None:
    """The variable that decimal keeps in C is the receiver's own."""
    decimal.getcontext()
    variable = next(v for v in contextvars.copy_context() if v.name == "decimal_context")
    assert again(variable) is variable


def test_context_and_token(elsewhere: Any) -> None:
    """A copied context keeps its values, and a token brings back that the variable was not set."""
    depth = contextvars.ContextVar("depth", default="default")
    token = depth.set("five")
    ((arrived, context, undo),) = elsewhere((depth, contextvars.copy_context(), token))

    arrived.set("six")

    assert context.run(arrived.get) == "five"
    arrived.reset(undo)
    assert arrived.get() == "default"


def test_token_brings_back_a_value(elsewhere: Any) -> None:
    """A token of a second change brings back the first."""
    depth = contextvars.ContextVar("depth", default=0)
    depth.set(1)
    token = depth.set(2)
    ((arrived, undo),) = elsewhere((depth, token))
    assert arrived.get() == 2
    arrived.reset(undo)
    assert arrived.get() == 1


def test_token_after_the_value_has_been_assigned(elsewhere: Any) -> None:
    """The order in which a variable's value and its token arrive does not matter."""
    depth = contextvars.ContextVar("depth", default="default")
    token = depth.set("five")
    ((arrived, undo),) = elsewhere((depth, token))
    contexts.assign(arrived, "five")
    arrived.reset(undo)
    assert arrived.get() == "default"


def test_used_token_stays_used(elsewhere: Any) -> None:
    """A token that has been used cannot be used again."""
    depth = contextvars.ContextVar("depth", default=0)
    token = depth.set(1)
    depth.reset(token)
    ((arrived, undo),) = elsewhere((depth, token))
    with pytest.raises(RuntimeError):
        arrived.reset(undo)


def test_token_of_another_context_is_refused() -> None:
    """A token is of use only in the context that is current in the sender, and in a child."""
    variable = contextvars.ContextVar("variable", default=0)
    foreign = contextvars.Context().run(variable.set, 1)
    with pytest.raises(CarryError, match="context"):
        again(foreign)
    with pytest.raises(CarryError, match="context"):
        again(variable.set(1), starting=False)
