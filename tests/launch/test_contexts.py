"""Contexts: names, options and the default start method."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest

from bequest.contexts import default_context
from bequest.launch.handoff import chosen


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Give every test a default context that has not been set."""
    before, chosen.method = chosen.method, None
    yield
    chosen.method = before


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_names(method: str) -> None:
    """A context and its process class are called after their start method, and extend the standard ones."""
    ctx = default_context.get_context(method)
    standard: Any = multiprocessing.get_context(method)
    assert ctx.get_start_method() == method
    assert type(ctx).__name__ == type(standard).__name__
    assert ctx.Process.__name__ == standard.Process.__name__
    assert isinstance(ctx, type(standard))
    assert issubclass(ctx.Process, standard.Process)
    assert default_context.get_context(method) is ctx
    assert ctx.get_context() is ctx


def test_methods_are_those_of_the_standard_library() -> None:
    """The start methods are the standard ones."""
    assert set(default_context.get_all_start_methods()) == set(multiprocessing.get_all_start_methods())


def test_default_is_clean_and_can_be_set_once() -> None:
    """The default is forkserver; it can be set once, and again only by force."""
    assert default_context.get_start_method(allow_none=True) is None
    default_context.set_start_method("spawn")
    assert default_context.get_context().get_start_method() == "spawn"
    with pytest.raises(RuntimeError):
        default_context.set_start_method("fork")
    default_context.set_start_method(None, force=True)
    assert default_context.get_start_method() == "forkserver"


def test_options() -> None:
    """Contexts with options are kept apart from those without, one for each combination."""
    strict = default_context.get_context("spawn", strict=True)
    assert strict is not default_context.get_context("spawn")
    assert strict is default_context.get_context("spawn", strict=True)
    assert (strict.strict, strict.main) == (True, "replay")
    assert default_context.get_context("fork", main="never").main == "never"


@pytest.mark.parametrize("arguments", [{"method": "teleport"}, {"method": "spawn", "main": "perhaps"}])
def test_unknown_names_are_refused(arguments: dict[str, Any]) -> None:
    """A start method or an option that does not exist is refused."""
    with pytest.raises(ValueError, match=r"teleport|perhaps"):
        default_context.get_context(**arguments)
