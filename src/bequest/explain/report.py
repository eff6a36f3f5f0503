"""What `bequest explain PROGRAM` shows: a line for each process, pool and executor; a page; JSON.

FOLDER/PID.jsonl -> ExplainReport.look() while the program runs -> finish() -> exit status
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bequest.explain.commands import Lines, write_json
from bequest.explain.nodes import Inheritance, Node
from bequest.explain.text import duration, size

if TYPE_CHECKING:
    from bequest.explain.commands import Request


class Start:
    """One process, or one pool or executor with all its workers.

    Attributes:
        first: What was written down at the first start.
        workers: How many were started.
        total_bytes: What all of them were given.
        until_us: Microseconds from the call of `start` to the first instruction of the target, of the first;
            None where it never came to that.
    """

    def __init__(self, first: dict[str, Any]) -> None:
        self.first = first
        self.workers = 0
        self.total_bytes = 0
        self.until_us: float | None = None

    def add(self, record: dict[str, Any]) -> None:
        """Count one start."""
        self.workers += 1
        self.total_bytes += record["bytes"]

    @property
    def is_known(self) -> bool:
        """Whether there is nothing to wait for before its line is printed."""
        return self.until_us is not None or self.first["method"] == "fork"

    def title(self) -> str:
        """Return where it was started, how, and what it is."""
        about = self.first
        what = about["name"] if about["owner"] == "Process" else f"{about['owner']}, worker {about['name']}"
        return f"{about['where'] or '(thread)'}  {about['method']}  {what}"

    def line(self) -> str:
        """Return what is printed."""
        about = self.first
        if about["method"] == "fork":
            return f"{self.title()}  a copy of everything"
        until = (
            "its target was not reached" if self.until_us is None else f"runs after {duration(self.until_us)}"
        )
        left = about["left"]
        names = ", ".join(f"{path} ({kind})" for path, kind in left[:3]) + (" ..." if len(left) > 3 else "")
        return f"{self.title()}  {size(about['bytes'])}  {until}" + (
            f"  left behind: {names}" if left else ""
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        keys = ("where", "owner", "name", "method", "bytes", "left", "pid", "child", "tree")
        found = {key: self.first[key] for key in keys}
        return {**found, "workers": self.workers, "total_bytes": self.total_bytes, "until_us": self.until_us}


class ExplainReport:
    """Reads what the program's processes write down, and shows it; see the module's docstring."""

    def __init__(self, folder: Path, request: Request) -> None:
        self._lines, self._request = Lines(folder), request
        self.starts: list[Start] = []
        self._by_owner: dict[tuple[int, str, int], Start] = {}
        self._by_child: dict[int, Start] = {}
        self._begins: dict[int, int] = {}
        self._shown = 0

    def look(self) -> None:
        """Take in what is new, and print the lines of those starts of which all is known."""
        for record in self._lines.fresh():
            if record["kind"] == "begins":
                self._begins[record["pid"]] = record["at_ns"]
            else:
                self._take(record)
        for child, start in self._by_child.items():
            if child in self._begins:
                start.until_us = (self._begins[child] - start.first["began_ns"]) / 1000
        while self._shown < len(self.starts) and self.starts[self._shown].is_known:
            self._show_next()

    def _take(self, record: dict[str, Any]) -> None:
        key = (record["pid"], record["owner"], record["owner_id"])
        start = self._by_owner.get(key) if record["owner"] != "Process" else None
        if start is None:
            start = self._by_owner[key] = Start(record)
            self.starts.append(start)
            self._by_child[record["child"]] = start
        start.add(record)

    def _show_next(self) -> None:
        start = self.starts[self._shown]
        self._shown += 1
        sys.stderr.write(start.line() + "\n")
        if self._request.tree and start.first["tree"]:
            sys.stderr.write(
                Inheritance.from_dict(start.first["tree"]).to_text(color=sys.stderr.isatty()) + "\n"
            )

    def finish(self, status: int) -> int:
        """Show the rest and the sum, write the files that are asked for, and return `status`."""
        while self._shown < len(self.starts):
            self._show_next()
        workers = sum(start.workers for start in self.starts)
        total = sum(start.total_bytes for start in self.starts)
        sys.stderr.write(f"{workers} processes started, {size(total)} in all\n")
        if self._request.html:
            page = _together(self.starts).to_html(" ".join(self._request.run))
            Path(self._request.html).write_text(page, encoding="utf-8")
        if self._request.json:
            write_json(self._request.json, json.dumps([start.to_dict() for start in self.starts]))
        return status


def _together(starts: list[Start]) -> Inheritance:
    """Return one tree with those of all starts, numbered anew."""
    root = Node(0, "program", "program", "", "message")
    whole = Inheritance(root, "program", 0, 0.0)
    count = 1
    for start in starts:
        if not start.first["tree"]:
            continue
        told = Inheritance.from_dict(start.first["tree"])
        for node in told.walk():
            node.number += count
            node.same_as = None if node.same_as is None else node.same_as + count
        count += sum(1 for _ in told.walk())
        told.root.label = start.title()
        root.children.append(told.root)
        root.total_bytes += told.total_bytes
        root.total_us += told.root.total_us
        whole.pack_us += told.pack_us
        whole.descriptors += told.descriptors
    whole.total_bytes = root.total_bytes
    return whole
