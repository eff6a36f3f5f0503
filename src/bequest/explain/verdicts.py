"""What `bequest check PROGRAM` shows: at each place what plain Python would have done, and a summary.

FOLDER/PID.jsonl -> CheckReport.look() -> finish() -> exit status: 1 where something would break or differ
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bequest.explain.commands import Lines, write_json

if TYPE_CHECKING:
    from bequest.explain.commands import Request

_BREAKS = 1
_ADDRESS = re.compile(" at 0x[0-9a-f]+")  # one function made twice is one finding
_MOST_SHOWN = 12  # findings of one place


class _Place:
    """A line of the program that starts or sends, and what was found there.

    Attributes:
        where: "app.py:31".
        call: What the line calls: "start", "put" ...
        count: How often it was met.
        findings: What would go otherwise, each once, with the number of times.
    """

    def __init__(self, where: str, call: str) -> None:
        self.where, self.call = where, call
        self.count = 0
        self.findings: dict[str, tuple[dict[str, str], int]] = {}

    def add(self, record: dict[str, Any]) -> None:
        """Count what was met there once."""
        self.count += 1
        for finding in record["findings"]:
            key = _ADDRESS.sub("", json.dumps([finding["what"], finding["path"], finding["error"]]))
            self.findings[key] = (finding, self.findings.get(key, (finding, 0))[1] + 1)

    @property
    def verdict(self) -> str:
        """One of "works", "differs", "fails"."""
        whats = {finding["what"] for finding, _ in self.findings.values()}
        if any(what.startswith("fails") for what in whats):
            return "fails"
        return "differs" if whats else "works"

    def lines(self) -> list[str]:
        """Return what is printed."""
        times = f" ({self.count} times)" if self.count > 1 else ""
        place = f"{self.where}  {self.call}" if self.where else "results, and tasks on their way"
        found = [f"{self.verdict:<8}{place}{times}"]
        for finding, _ in list(self.findings.values())[:_MOST_SHOWN]:
            if finding["what"] == "differs":
                there = finding["there"] or "its default"
                found.append(f"          {finding['path']}: {finding['here']} here, {there} there")
            else:
                at = f" at {finding['path']}" if finding["path"] else ""
                found.append(f"          {finding['what']}{at}: {finding['error']}")
        if len(self.findings) > _MOST_SHOWN:
            found.append(f"          and {len(self.findings) - _MOST_SHOWN} more: see --json")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        findings = [{**finding, "times": times} for finding, times in self.findings.values()]
        return {
            "where": self.where, "call": self.call, "times": self.count,
            "verdict": self.verdict, "findings": findings,
        }  # fmt: skip


def _key(record: dict[str, Any]) -> tuple[str, str]:
    """Return which place a record tells of: one for all that no line of the program does itself."""
    return (record["where"], record["call"]) if record["where"] else ("", "")


class CheckReport:
    """Reads what the program's processes write down, and sums it up; see the module's docstring."""

    def __init__(self, folder: Path, request: Request) -> None:
        self._lines, self._request = Lines(folder), request
        self._places: dict[tuple[str, str], _Place] = {}
        self._begins: dict[int, int] = {}
        self._gone: dict[str, int] = {}
        self._lending: list[dict[str, Any]] = []  # starts that hand semaphores over

    def look(self) -> None:
        """Take in what is new."""
        for record in self._lines.fresh():
            if record["kind"] == "begins":
                self._begins[record["pid"]] = record["at_ns"]
            elif record["kind"] == "gone":
                self._gone[record["semaphore"]] = record["at_ns"]
            else:
                key = _key(record)
                self._places.setdefault(key, _Place(*key)).add(record)
                if record.get("semaphores"):
                    self._lending.append(record)

    def _judge_semaphores(self) -> None:
        """Add to each start whether its semaphores had gone before the child had them; see `semaphores`."""
        for record in self._lending:
            began = self._begins.get(record["child"], 0)
            if any(self._gone.get(name, began) < began for name in record["semaphores"]):
                error = (
                    "FileNotFoundError: the last reference to a lock or the like goes before the child has it"
                )
                finding = {"what": "fails in the child", "path": "", "error": error, "here": "", "there": ""}
                place = self._places[_key(record)]
                place.add({"findings": [finding]})
                place.count -= 1  # it was counted with the record

    def finish(self, status: int) -> int:
        """Print the summary and write the JSON; return 1 where something would break or differ.

        Args:
            status: The program's own exit status, which is returned where nothing would.
        """
        self.look()
        self._judge_semaphores()
        order = {"fails": 0, "differs": 1, "works": 2}
        places = sorted(self._places.values(), key=lambda place: (order[place.verdict], place.where))
        counts = {verdict: sum(place.verdict == verdict for place in places) for verdict in order}
        if self._request.json:
            data = {"status": status, "counts": counts, "places": [place.to_dict() for place in places]}
            write_json(self._request.json, json.dumps(data, indent=1))
        out = sys.stderr
        out.write("\nbequest check: under plain Python 3.14 (forkserver), and under spawn,\n")
        for place in places:
            out.write("\n".join(place.lines()) + "\n")
        out.write(
            f"{counts['fails']} places would fail, {counts['differs']} would silently differ, "
            f"{counts['works']} would work\n"
        )
        return _BREAKS if counts["fails"] or counts["differs"] else status
