"""Descriptors in a message: each is duplicated once, for its receiver, and is the one that was meant."""

from __future__ import annotations

import copyreg
from multiprocessing import resource_sharer
from typing import Any

import launch_children as children
import pytest

import bequest

LIMIT_S = 30.0  # reached only by a failing test, so it can be generous


class Holder:
    """Holds a connection, and says itself what is pickled."""

    def __init__(self, end: Any) -> None:
        self.end = end

    def __getstate__(self) -> dict[str, Any]:
        return vars(self)


class Probe:
    """Tries out, while it is packed, whether something else can be packed."""


def reduce_probe(probe: Probe) -> tuple[Any, ...]:
    """Reduce a probe after a message that fails."""
    begun = (number for number in range(2))
    next(begun)
    with pytest.raises(bequest.CarryError):
        bequest.dumps(begun)
    return object, ()


def hear(pipe: Any) -> Any:
    """Return the next thing that a child says."""
    assert pipe.poll(LIMIT_S), f"nothing was said for {LIMIT_S} s"
    return pipe.recv()


def end(process: Any) -> None:
    """Wait for a process that has nothing more to do."""
    process.join(LIMIT_S)
    assert process.exitcode == 0
    process.close()


def test_nested_failure_leaves_descriptors(clean_method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that fails within the packing of a start takes none of the start's descriptors with it."""
    monkeypatch.setitem(copyreg.dispatch_table, Probe, reduce_probe)
    ctx = bequest.get_context(clean_method)
    pipes = [ctx.Pipe() for _ in range(3)]
    first, second, third = (theirs for _, theirs in pipes)
    process = ctx.Process(target=children.tell_of_probed, args=(first, second, Probe(), third))
    process.start()

    assert [hear(ours) for ours, _ in pipes] == ["first", "second", "third"]
    end(process)


def test_child_closes_its_only_duplicate(method: str) -> None:
    """When parent and child have closed their ends, the reader of a pipe sees its end."""
    ctx = bequest.get_context(method)
    reader, writer = ctx.Pipe(duplex=False)
    ours, theirs = ctx.Pipe()
    process = ctx.Process(target=children.greet_and_close, args=(Holder(writer), theirs))
    process.start()
    writer.close()

    assert hear(reader) == "hello"
    with pytest.raises(EOFError):
        hear(reader)
    ours.send("go")
    end(process)


def test_side_channel_goes_with_its_connection(clean_method: str) -> None:
    """A connection carries large data wherever it has been sent, at a start or by a message."""
    ctx = bequest.get_context(clean_method)
    reader, writer = ctx.Pipe(duplex=False)
    ours, theirs = ctx.Pipe()
    process = ctx.Process(target=children.send_large, args=(writer, theirs))
    process.start()
    try:
        ours.send(writer)
        first = hear(reader), hear(ours)
        second = hear(reader), hear(ours)
    finally:
        resource_sharer.stop(LIMIT_S)

    assert first == second == (bytes(children.LARGE_BYTES), type(writer._beside).__name__)
    end(process)


def test_message_costs_the_sender_no_descriptor(clean_method: str) -> None:
    """A connection that a user's module holds is shared once with each receiver, not kept for another."""
    ctx = bequest.get_context(clean_method)
    ours, theirs = ctx.Pipe()
    process = ctx.Process(target=children.hold_ends, args=(theirs,))
    process.start()
    children.shared_end, other = ctx.Pipe()
    try:
        for _ in range(3):
            ours.send(children.tell_shared_end)
        ours.send(None)

        assert hear(ours) == 3
        sharer: Any = vars(resource_sharer)["_resource_sharer"]  # private, in all versions
        assert sharer._cache == {}  # duplicates that still wait for a receiver
    finally:
        children.shared_end.close()
        other.close()
        children.shared_end = None
        resource_sharer.stop(LIMIT_S)  # its listener; begins again when needed
    end(process)
