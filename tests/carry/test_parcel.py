"""What a start is packed into, and what the child makes of it."""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterator
from multiprocessing import context
from typing import Any

import pytest
import sent

import bequest
from bequest.carry import start
from bequest.errors import CarryError


@pytest.fixture
def packed() -> Iterator[Callable[..., start.Parcel]]:
    """Pack a process as a start would, without starting it."""

    class Popen:
        """Stands for the start that is under way."""

        DupFd = staticmethod(lambda fd: fd)
        method = "spawn"
        duplicate_for_child = staticmethod(lambda fd: fd)

    def pack(target: Any, *args: Any, strict: bool = False, **named: Any) -> start.Parcel:
        process = bequest.get_context("spawn").Process(target=target, args=args, **named)
        return start.pack(process, context=start.StartOptions("spawn", strict, "never"))

    context.set_spawning_popen(Popen())  # type: ignore[arg-type]
    yield pack
    context.set_spawning_popen(None)


def test_header_is_plain_data(packed: Callable[..., start.Parcel]) -> None:
    """What a child applies before it unpickles anything is read by marshal alone."""
    parcel = packed(print, name="a name")

    assert marshal.loads(marshal.dumps(parcel.header))["name"] == "a name"
    assert marshal.loads(marshal.dumps(parcel.template)) == parcel.template


def test_what_is_left_behind_is_listed(packed: Callable[..., start.Parcel]) -> None:
    """The parcel names path and type of what will be a stand-in."""
    parcel = packed(print, [[sent.running_generator()]])
    (entry,) = parcel.left_behind

    assert str(entry[0]).startswith("args[0][0]")
    assert "generator" in entry[1]


def test_nothing_is_left_of_an_ordinary_start(packed: Callable[..., start.Parcel]) -> None:
    """A target and arguments that can be carried leave nothing behind."""
    assert packed(sent.add(1), sent.local_class()(1)).left_behind == ()


def test_what_is_bound_to_be_used_is_refused(packed: Callable[..., start.Parcel]) -> None:
    """An argument that cannot be carried is refused before anything starts."""
    with pytest.raises(CarryError, match="generator"):
        packed(print, sent.running_generator())


def test_strict_start_is_refused(packed: Callable[..., start.Parcel]) -> None:
    """A strict start refuses what another would leave behind."""
    with pytest.raises(CarryError, match="generator"):
        packed(print, [[sent.running_generator()]], strict=True)


def test_parcel_of_a_process_with_attributes(packed: Callable[..., start.Parcel]) -> None:
    """Packing does not change the process object."""
    process = bequest.get_context("spawn").Process(target=sent.add(1), args=(2,))
    before = dict(vars(process))
    start.pack(process, context=start.StartOptions("spawn"))

    assert vars(process) == before
