"""What `bequest.explain` returns: a tree of what is carried, as data.

    explain(...) -> Inheritance(root=Node(children=[Node ...]), left=[Node ...], ...) -> text, HTML, JSON

Plain data: no node holds the object that it tells of, so an explanation keeps nothing else alive.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from bequest.errors import CarryError

Crossing: TypeAlias = Literal[
    "by name",
    "by value",
    "rebuilt",
    "shared memory",
    "descriptor",
    "module global",
    "ambient",
    "made again",
    "on demand",
    "left behind",
    "reference",
    "message",
]
"""How an object crosses.

- by name: the receiver imports it
- by value: its content is in the message
- rebuilt: made anew there by a function, out of what its reducer gave
- shared memory: both processes map the same memory, or the receiver maps a copy made outside the message
- descriptor: a duplicate of an open file, socket or pipe goes beside the message
- module global: laid over what the import of its module makes
- ambient: state around the objects (logging, warnings, signals ...)
- made again: the statement of the main module that made it is run again
- on demand: large state of a module, class or function, which a running process asks for if it has none
- left behind: a stand-in takes its place
- reference: it is in the message already, at another place
- message: not an object: a part of the message that holds others
"""


@dataclass(slots=True)
class Read:
    """An instruction that reads a closure variable or a global.

    Attributes:
        name: The variable.
        scope: Where it is: "closure" or "global".
        file: Path of the source file, as the code object says it.
        line: Line in it; 0 where the code does not say.
    """

    name: str
    scope: str
    file: str
    line: int


@dataclass(slots=True)
class Node:
    """One object of what is carried, or one part of the message.

    Attributes:
        number: Its number in the tree; the root has 0.
        label: Its place in what holds it, in the user's names: "closure packer", "[0]", ".feed".
        path: The whole way to it, as errors tell it: "target work (job.py:12) -> closure packer".
        type: Qualified name of its type.
        crosses: How it crosses; see `Crossing`.
        own_bytes: Bytes of the message that stand for it, less those of `children`.
        total_bytes: `own_bytes` and the `total_bytes` of all children.
        beside_bytes: Bytes of it, and of all children, that go beside the message: large buffers, which the
            receiver maps.
        own_us: Microseconds that packing it took, less those of `children`.
        total_us: The same with all children.
        children: What it holds and is worth a node of its own, in the order in which it is packed.
        folded: How many small plain values (numbers, texts, None) it holds that are in `own_bytes` instead.
        detail: What else is to say: the value of a small one, file and line of a function.
        reads: Of functions: which instruction reads which variable first.
        read_at: Of what a function reads: "job.py:14", where that is known; else empty.
        same_as: Of a reference: the number of the node that it refers to; else None.
        reason: Of what is left behind: why.
        remedy: Of what is left behind: what to do.
        is_refused: Whether the child is bound to use it, so that it is refused instead of left behind.
    """

    number: int
    label: str
    path: str
    type: str
    crosses: Crossing
    own_bytes: int = 0
    total_bytes: int = 0
    beside_bytes: int = 0
    own_us: float = 0.0
    total_us: float = 0.0
    children: list[Node] = field(default_factory=list)
    folded: int = 0
    detail: str = ""
    reads: list[Read] = field(default_factory=list)
    read_at: str = ""
    same_as: int | None = None
    reason: str = ""
    remedy: str = ""
    is_refused: bool = False

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it, each before its children."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(slots=True)
class Inheritance:
    """What a child, or the receiver of a message, would be given; see `bequest.explain`.

    Attributes:
        root: The whole message.
        method: Start method for which it was packed; "message" for what goes to a process that runs.
        total_bytes: Length of all that is sent: `root.total_bytes`. Where the pickle itself is large, its
            part of this is in sealed memory rather than in a pipe.
        pack_us: Microseconds that packing it took, as observed; observing makes it some tenths slower.
        error: What a start or a send would raise, or None.
        descriptors: How many descriptors go beside the message.
    """

    root: Node
    method: str
    total_bytes: int
    pack_us: float
    error: CarryError | None = None
    descriptors: int = 0

    def walk(self) -> Iterator[Node]:
        """Yield every node, each before its children."""
        return self.root.walk()

    def find(self, text: str) -> list[Node]:
        """Return the nodes whose path, type or way of crossing contains `text`, whatever its case."""
        wanted = text.lower()
        return [n for n in self.walk() if wanted in f"{n.path}\n{n.type}\n{n.crosses}".lower()]

    @property
    def beside_bytes(self) -> int:
        """Bytes of large buffers that go beside the message, in memory that the receiver maps."""
        return self.root.beside_bytes

    @property
    def left(self) -> list[Node]:
        """What cannot be carried: stand-ins take its place, or it is refused."""
        return [node for node in self.walk() if node.crosses == "left behind"]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain data; the keys are the attributes of `Inheritance` and `Node`."""
        error = None if self.error is None else {"type": "CarryError", "text": str(self.error)}
        return {
            "method": self.method,
            "total_bytes": self.total_bytes,
            "pack_us": round(self.pack_us, 1),
            "beside_bytes": self.beside_bytes,
            "descriptors": self.descriptors,
            "error": error,
            "root": asdict(self.root),
        }

    def to_json(self, indent: int | None = None) -> str:
        """Return `to_dict()` as JSON."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_text(self, *, width: int = 110, color: bool = False, everything: bool = False) -> str:
        """Return the tree as text: largest first, what is small folded.

        Args:
            width: Columns.
            color: Whether to write the escape sequences of a terminal.
            everything: Whether to fold nothing.
        """
        from bequest.explain.text import render

        return render(self, width=width, color=color, everything=everything)

    def to_html(self, title: str = "") -> str:
        """Return one page that needs nothing else: tree, picture of sizes, search, what is left behind."""
        from bequest.explain.page import render

        return render(self, title)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Inheritance:
        """Return what `to_dict` was made of; of an error only the tree remembers where it stood."""
        return cls(
            _node_of(data["root"]), data["method"], data["total_bytes"], data["pack_us"],
            descriptors=data["descriptors"],
        )  # fmt: skip

    def __str__(self) -> str:
        return self.to_text()

    def __rich__(self) -> Any:
        """Return what `rich.print` shows."""
        from bequest.explain.text import tree

        return tree(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the tree, to be opened level by level, without scripts."""
        from bequest.explain.page import render_inline

        return render_inline(self)


def _node_of(data: dict[str, Any]) -> Node:
    children = [_node_of(child) for child in data["children"]]
    reads = [Read(**read) for read in data["reads"]]
    return Node(**{**data, "children": children, "reads": reads})
