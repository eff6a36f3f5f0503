"""Shows an explanation in a terminal: a tree by rich, largest first, what is small folded.

    tree(Inheritance) -> rich's Tree          render(Inheritance) -> text

`rich` is imported here, when something is shown, and never by a child.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from bequest.explain.nodes import Inheritance, Node

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

_STYLES = {
    "by name": "green",
    "by value": "cyan",
    "rebuilt": "blue",
    "shared memory": "magenta",
    "descriptor": "magenta",
    "module global": "yellow",
    "ambient": "yellow",
    "made again": "yellow",
    "on demand": "green",
    "left behind": "bold red",
    "reference": "dim",
    "message": "dim",
}
_SMALL_SHARE = 0.02  # of the whole; a smaller node is folded, unless something below it was left behind
_MOST_SHOWN = 8  # nodes below one other


def size(count: int) -> str:
    """Return a number of bytes as people say it: "812 B", "14.2 kB", "3.1 MB"."""
    if count < 1000:
        return f"{count} B"
    number = float(count)
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.95 or unit == "GB":
            break
    return f"{number:.1f} {unit}"


def duration(microseconds: float) -> str:
    """Return a duration as people say it: "12 µs", "3.4 ms", "1.2 s"."""
    if microseconds < 1000:
        return f"{microseconds:.0f} µs"
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:.1f} ms"
    return f"{microseconds / 1_000_000:.1f} s"


def summary(explained: Inheritance) -> str:
    """Return one line that says how much is carried and how long packing it took."""
    left, total = len(explained.left), explained.total_bytes
    return (
        f"{explained.method}: {size(total)} ({total:,} bytes) packed in {duration(explained.pack_us)}"
        + (f", {size(explained.beside_bytes)} beside it" if explained.beside_bytes else "")
        + (f", {explained.descriptors} descriptors" if explained.descriptors else "")
        + (f", {left} left behind" if left else "")
        + (", REFUSED" if explained.error is not None else "")
    )


def line(node: Node) -> Text:
    """Return what is shown of one node."""
    from rich.text import Text

    text = Text()
    text.append(node.label, style="bold")
    if node.type:
        text.append(f"  {node.type}", style="dim")
    text.append(f"  {node.crosses}", style=_STYLES[node.crosses])
    text.append(f"  {size(node.total_bytes)}", style="bold")
    if node.beside_bytes:
        text.append(f" and {size(node.beside_bytes)} beside", style="bold magenta")
    if node.children and node.own_bytes != node.total_bytes:
        text.append(f" (own {size(node.own_bytes)})", style="dim")
    if node.total_us >= 1:
        text.append(f"  {duration(node.total_us)}", style="dim")
    if node.detail and node.detail not in node.label:
        text.append(f"  {node.detail}", style="dim italic")
    if node.read_at:
        text.append(f"  read at {node.read_at}", style="dim")
    if node.reason:
        text.append(
            f"\n{'REFUSED' if node.is_refused else 'left'}: {node.reason}. {node.remedy}.", style="red"
        )
    return text


def tree(explained: Inheritance, *, everything: bool = False) -> Tree:
    """Return the tree that rich shows."""
    from rich.text import Text
    from rich.tree import Tree

    grown = Tree(Text(summary(explained), style="bold"))
    small = 0.0 if everything else _weight(explained.root) * _SMALL_SHARE
    most = 10**9 if everything else _MOST_SHOWN
    _grow(grown, explained.root, small, most)
    return grown


def _grow(branch: Tree, node: Node, small_bytes: float, most: int) -> None:
    by_size = sorted(node.children, key=lambda child: -_weight(child))
    folded: list[Node] = []
    for place, child in enumerate(by_size):
        if not _has_left(child) and (place >= most or _weight(child) < small_bytes):
            folded.append(child)
        else:
            _grow(branch.add(line(child)), child, small_bytes, most)
    if folded:
        branch.add(_folded(folded))


def _weight(node: Node) -> int:
    return node.total_bytes + node.beside_bytes


def _has_left(node: Node) -> bool:
    return any(below.crosses == "left behind" for below in node.walk())


def _folded(nodes: list[Node]) -> Text:
    from rich.text import Text

    names = ", ".join(node.label for node in nodes[:3]) + (" ..." if len(nodes) > 3 else "")
    return Text(f"{len(nodes)} more: {names}  {size(sum(node.total_bytes for node in nodes))}", style="dim")


def render(explained: Inheritance, *, width: int, color: bool, everything: bool = False) -> str:
    """Return the tree as text; see `Inheritance.to_text`."""
    from rich.console import Console

    console = Console(
        file=io.StringIO(), width=width, force_terminal=color, no_color=not color, legacy_windows=False
    )
    console.print(tree(explained, everything=everything), soft_wrap=False)
    written: str = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO above
    return "\n".join(text.rstrip() for text in written.splitlines())
