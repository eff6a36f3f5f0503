"""What stands at the head of a message is each process's own, and everything behind it finds its place."""

from __future__ import annotations

import builtins
import io
import pickle
import sys
from typing import Any

import pytest

from bequest.carry import arrival, instances, wellknown


def through(obj: object, *, starting: bool) -> Any:
    """Return what becomes of an object in a message that begins as all do."""
    file = io.BytesIO()
    head, memo = wellknown.head(starting)
    file.write(head)
    pickler = pickle.Pickler(file, 5)
    pickler.memo = memo
    pickler.dump(obj)
    return pickle.loads(file.getvalue())


@pytest.mark.parametrize("starting", [True, False])
def test_namespaces_are_the_receivers_own(starting: bool) -> None:
    """The dicts that each process has one of are not copied."""
    known = [vars(sys.modules["__main__"]), vars(builtins), sys.modules]

    found = through([*known, "behind", known], starting=starting)

    assert all(a is b for a, b in zip(found[:3], known, strict=True))
    assert found[3:] == ["behind", found[:3]]


def test_lists_of_sys_are_the_childs_own() -> None:
    """In a start, the search path and the arguments are not copied."""
    path, argv, (again,) = through([sys.path, sys.argv, [sys.path]], starting=True)

    assert path is again is sys.path
    assert argv is sys.argv


def test_what_rebuilds_a_start_is_found() -> None:
    """Each function and class that is named at the head is the very one, whatever stands before it."""
    found = through((instances.create, arrival.first, object, instances.fill), starting=True)

    assert found == (instances.create, arrival.first, object, instances.fill)


def test_arguments_that_are_no_text_are_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of `sys` that holds more than text goes with its content."""
    monkeypatch.setattr(sys, "argv", ["program", 1])

    argv, path, create = through((sys.argv, sys.path, instances.create), starting=True)

    assert argv == ["program", 1]
    assert argv is not sys.argv
    assert path is sys.path
    assert create is instances.create
