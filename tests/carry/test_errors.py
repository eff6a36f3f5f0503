"""The errors that a user meets: one tree, and each survives the way to another process."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import bequest
from bequest import errors
from bequest.carry.pickler import dumps
from bequest.pool.executor_outcomes import ExecutorRebuildError, ExecutorWorkerDied
from receiving import Receiver

ABOUT = ("target work -> closure db", "Database", "it is elsewhere", "Open it inside")
EXAMPLES: dict[str, BaseException] = {
    "BequestError": errors.BequestError("a text"),
    "CarryError": errors.CarryError(*ABOUT),
    "SharingError": errors.SharingError(*ABOUT),
    "LostBuffersError": errors.LostBuffersError("its large data went beside it"),
    "LeftBehindError": errors.LeftBehindError(*ABOUT, "call"),
    "TemplateEndedError": errors.TemplateEndedError("a text"),
    "WorkerDied": errors.WorkerDied("task(1)", 7, -9, "was killed by SIGKILL", "the end\n"),
    "ExecutorWorkerDied": ExecutorWorkerDied("task(1)", 7, 1, "exited with code 1"),
    "ExecutorRebuildError": ExecutorRebuildError("a text"),
    "TaskTimeoutError": errors.TaskTimeoutError("task(1)", 0.5, 7),
    "PoolBrokenError": errors.PoolBrokenError("a text"),
    "PoolEndedError": errors.PoolEndedError("a text"),
}
WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    "dumps": lambda error: pickle.loads(dumps(error)),
    "copy": copy.copy,
    "args": lambda error: type(error)(*error.args),
}


def tree(root: type[BaseException]) -> set[type[BaseException]]:
    """Return a class and all that are derived from it."""
    return {root}.union(*(tree(kind) for kind in root.__subclasses__()))


def test_every_class_has_an_example_here() -> None:
    """No error class of bequest is left out of these tests."""
    found = {kind.__name__ for kind in tree(errors.BequestError) if kind.__module__.startswith("bequest.")}

    assert found <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("way", WAYS)
def test_error_survives(name: str, way: str) -> None:
    """Text and attributes of an error are the same after every way that an exception crosses."""
    error = EXAMPLES[name]
    again = WAYS[way](error)

    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


@pytest.mark.parametrize("name", EXAMPLES)
def test_error_survives_into_another_process(receiver: Receiver, name: str) -> None:
    """Another process reads an error and tells the same text."""
    assert receiver.ask("str(it)", dumps(EXAMPLES[name])) == str(EXAMPLES[name])


@pytest.mark.parametrize("attribute", ["path", "kind", "reason", "remedy"])
@pytest.mark.parametrize("name", ["CarryError", "LeftBehindError"])
def test_text_says_all_that_the_attributes_say(name: str, attribute: str) -> None:
    """What, where, why and what to do stand in the text."""
    for part in getattr(EXAMPLES[name], attribute).split(" -> "):  # a path is shown as a branch
        assert part in str(EXAMPLES[name])


def test_carry_error_is_a_pickling_error() -> None:
    """A program that catches what pickle raises catches CarryError."""
    assert issubclass(errors.CarryError, pickle.PicklingError)


def test_lock_outside_of_a_start_is_a_runtime_error() -> None:
    """A program that catches what multiprocessing's locks raise catches what they raise here."""
    with pytest.raises(RuntimeError, match="should only be shared between processes through inheritance"):
        dumps(bequest.get_context("spawn").Lock())


def test_errors_are_public() -> None:
    """The classes are names of the package."""
    assert (bequest.CarryError, bequest.LeftBehindError) == (errors.CarryError, errors.LeftBehindError)
