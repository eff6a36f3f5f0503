"""What `bequest.explain` tells: all of it, exactly, under the user's names, and without a trace."""

from __future__ import annotations

import json
import os
import threading
from multiprocessing import process, shared_memory
from pathlib import Path
from typing import Any

import explained
import pytest

import bequest
from bequest.explain.nodes import Inheritance, Node
from bequest.launch import handoff, spawn, template


def start_context(method: str) -> Any:
    """Return bequest's context of a start method."""
    return bequest.get_context(method)


def node_at(told: Inheritance, path: str) -> Node:
    """Return the node with that path."""
    found = [node for node in told.walk() if node.path == path]
    assert found, f"no {path!r} among {[node.path for node in told.walk()]}"
    return found[0]


def test_total_is_what_a_start_sends(clean_method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes add up to the very bytes that the start of the same process sends."""
    child = start_context(clean_method).Process(
        target=explained.closing_over({"a": [1, 2]}, other=threading.Lock()), args=()
    )
    bequest.explain(child)  # a StringIO of the log makes its dict when it is first asked for its state
    told = bequest.explain(child)
    sent: list[int] = []
    popen = spawn.Popen if clean_method == "spawn" else template.Popen
    begin = popen._begin

    def noting(self: Any, parcel: Any, notes: Any) -> None:
        sent.append(sum(memoryview(p).nbytes for p in handoff.encode(parcel.header, notes, parcel.body)))
        begin(self, parcel, notes)

    monkeypatch.setattr(popen, "_begin", noting)
    child.start()
    child.join()
    child.close()

    assert sent == [told.total_bytes] == [told.root.total_bytes]


def test_every_byte_and_microsecond_is_somewhere() -> None:
    """Each node's total is its own and those of its children; nothing is negative."""
    told = bequest.explain(explained.closing_over(explained.Feed()), (explained.Feed(), [1, {"k": (2, 3)}]))

    for node in told.walk():
        assert node.total_bytes == node.own_bytes + sum(child.total_bytes for child in node.children), (
            node.path
        )
        assert node.own_bytes >= 0, node.path
        assert node.own_us >= 0, node.path
        assert node.total_us >= sum(child.total_us for child in node.children) - 0.01, node.path


def test_message_is_as_long_as_its_pickle() -> None:
    """An object that is no target is explained as a message: its total is the length of `dumps`."""
    sent = {"feed": [1, 2, 3], "text": "x" * 1000}

    assert bequest.explain(sent).total_bytes == len(bequest.dumps(sent))


@pytest.mark.parametrize(
    ("make", "crosses"),
    [
        (lambda: {"a": 1}, "by value"),
        (lambda: explained.closing_over, "by name"),
        (lambda: lambda: None, "by value"),
        (lambda: threading.Lock(), "rebuilt"),
        (lambda: explained.iterate, "by name"),
        (lambda: os.getpid, "by name"),
        (lambda: json, "by name"),
    ],
    ids=["dict", "function", "lambda", "lock", "generator function", "builtin", "module"],
)
def test_way_of_crossing(make: Any, crosses: str) -> None:
    """An argument's node says how it crosses."""
    told = bequest.explain(explained.read_settings, (make(),))

    assert node_at(told, "args[0]").crosses == crosses


def test_open_file_crosses_as_descriptor(tmp_path: Path) -> None:
    """An open file goes as a descriptor beside the message."""
    with open(tmp_path / "file", "w") as file:
        told = bequest.explain(explained.read_settings, (file,))
        without = bequest.explain(explained.read_settings)

    assert node_at(told, "args[0]").crosses == "descriptor"
    assert told.descriptors == without.descriptors + 1


def test_shared_memory_is_told(receiver: object) -> None:
    """A block of shared memory crosses as such."""
    block = shared_memory.SharedMemory(create=True, size=100)
    try:
        told = bequest.explain(explained.read_settings, (block,))
    finally:
        block.close()
        block.unlink()

    assert node_at(told, "args[0]").crosses == "shared memory"


def test_names_are_the_users() -> None:
    """Closure variables, arguments, keys and attributes are called as in the program."""
    told = bequest.explain(explained.closing_over({"k": explained.Feed()}), (), {"z": [explained.Feed()]})
    target = f"target closing_over.inner (explained.py:{explained.closing_over.__code__.co_firstlineno + 3})"

    assert node_at(told, f"{target} -> closure packer['k'].content").type == "bytes"
    assert node_at(told, "kwargs['z'][0].content").total_bytes > 10_000


def test_reading_instruction_is_told() -> None:
    """A function's node says which line reads which variable, and so does the variable's node."""
    told = bequest.explain(explained.closing_over([1]))
    first = explained.closing_over.__code__.co_firstlineno
    function = next(node for node in told.walk() if node.label.startswith("target"))
    packer = next(node for node in told.walk() if node.label == "closure packer")

    assert [(read.name, read.scope, read.line) for read in function.reads] == [
        ("packer", "closure", first + 4),
        ("other", "closure", first + 6),
    ]
    assert packer.read_at == f"explained.py:{first + 4}"


def test_shared_object_appears_once() -> None:
    """An object that two places hold has one node with its bytes, and a reference."""
    shared = ["x" * 300]
    told = bequest.explain(explained.read_settings, (shared, {"again": shared}))
    first, again = node_at(told, "args[0]"), node_at(told, "args[1]['again']")

    assert (again.crosses, again.same_as) == ("reference", first.number)
    assert again.total_bytes < 10 < first.total_bytes


def test_module_globals_are_told() -> None:
    """Globals of a user module that the target reads are nodes of their own."""
    told = bequest.explain(explained.read_settings)
    found = {node.label: node.crosses for node in told.walk() if node.label.startswith("explained.")}

    assert found == {"explained.SETTINGS": "module global", "explained.LIMIT": "module global"}


def test_left_behind_is_told_with_reason() -> None:
    """What a stand-in will replace has a node that says why and what to do; nothing is refused."""
    told = bequest.explain(explained.read_settings, ({"feed": explained.Feed()},))

    (left,) = told.left
    assert (left.path, left.is_refused, told.error) == ("args[0]['feed'].numbers", False, None)
    assert "it has begun" in left.reason
    assert left.remedy


def test_refusal_is_told_and_not_raised() -> None:
    """What a start would refuse is in `error`, and marked in the tree."""
    numbers = explained.iterate()
    next(numbers)

    told = bequest.explain(explained.read_settings, (numbers,))

    assert told.error is not None
    assert told.error.path == "args[0]"
    assert [node.path for node in told.left if node.is_refused] == ["args[0]"]


def test_explaining_leaves_no_trace() -> None:
    """No process is numbered or listed, and no start method is settled."""
    counter = repr(vars(process)["_process_counter"])
    listed = len(vars(process)["_dangling"])
    settled = bequest.get_start_method(allow_none=True)

    bequest.explain(explained.closing_over([1]), (open,))

    assert repr(vars(process)["_process_counter"]) == counter
    assert len(vars(process)["_dangling"]) == listed
    assert bequest.get_start_method(allow_none=True) == settled


def test_started_process_cannot_be_explained(clean_method: str) -> None:
    """A process that runs has been packed already: `explain` says so."""
    child = start_context(clean_method).Process(target=explained.read_settings)
    child.start()
    try:
        with pytest.raises(ValueError, match="started already"):
            bequest.explain(child)
    finally:
        child.join()
        child.close()


def test_deep_graph_is_explained() -> None:
    """A chain far deeper than any recursion is one tree of bounded depth, with all its bytes."""
    chain: Any = None
    for _ in range(30_000):
        chain = [chain]

    told = bequest.explain({"chain": chain})

    assert told.total_bytes == len(bequest.dumps({"chain": chain}))


def test_text_shows_the_largest_and_what_is_left() -> None:
    """The text names the largest part and, however small, what is left behind."""
    text = str(bequest.explain(explained.read_settings, ({"feed": explained.Feed(), "more": [0] * 99},)))

    assert ".content" in text
    assert "left: it has begun" in text


def test_json_has_every_node() -> None:
    """The JSON has the nodes as nested objects with their attributes."""
    told = bequest.explain(explained.read_settings, ([explained.Feed()],))
    data = json.loads(told.to_json())

    def count(node: dict[str, Any]) -> int:
        return 1 + sum(map(count, node["children"]))

    assert count(data["root"]) == len(list(told.walk()))
    assert data["total_bytes"] == told.total_bytes


def test_explain_is_function_and_package() -> None:
    """`bequest.explain` can be called after one of its modules was imported, too."""
    from bequest.explain import nodes

    assert isinstance(bequest.explain([1]), nodes.Inheritance)


def test_large_buffers_go_beside() -> None:
    """A large array's bytes are told apart from the message, and its node crosses as shared memory."""
    numpy = pytest.importorskip("numpy")
    array = numpy.zeros(1_000_000)

    told = bequest.explain(explained.read_settings, (array, {"again": array}))
    node = node_at(told, "args[0]")

    assert (node.crosses, node.beside_bytes) == ("shared memory", array.nbytes)
    assert told.beside_bytes == array.nbytes
    assert told.total_bytes < 100_000
    assert node_at(told, "args[1]['again']").crosses == "reference"


def test_notebook_shows_the_tree_without_scripts() -> None:
    """A notebook gets nested details, with the user's names escaped."""
    shown = bequest.explain(explained.read_settings, ({"<b>": "x" * 300},))._repr_html_()

    assert "<details" in shown
    assert "&lt;b&gt;" in shown
    assert "<script" not in shown
