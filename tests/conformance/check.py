"""Run CPython's suites with bequest in place of multiprocessing, and judge them by this folder's lists.

    runner's verdicts (JSON) + the lists of this folder -> a table, and what stands in no list

The runner is a program of its own, which knows how each test ends with plain multiprocessing:

    check.py RUNNER [--mode MODE] [--quick] [arguments of the runner ...]

Without --mode all three are run: "everywhere" (bequest installed in every interpreter that a test starts),
"installed" (in the process of the test alone) and "module" (the suite imports bequest).
Exit status: 0 where every test that fails with bequest alone stands in a list; else 1.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MODES = ("everywhere", "installed", "module")
_BAD = ("fail", "error", "hang", "crash", "unrun")

Entries = list[tuple[re.Pattern[str], str]]


def read_list(name: str) -> Entries:
    """Return the entries of a list of this folder: pattern and reason.

    Raises:
        ValueError: A line has no reason.
    """
    entries: Entries = []
    for line in (HERE / name).read_text().splitlines():
        if line and not line.startswith("#"):
            pattern, gap, reason = line.partition("  ")
            if not gap:
                raise ValueError(f"{name}: no reason in {line!r}")
            entries.append((re.compile(pattern), reason.strip()))
    return entries


def reason_of(key: str, entries: Entries) -> str | None:
    """Return why test `key` stands in a list; None where it does not."""
    return next((reason for pattern, reason in entries if pattern.search(key)), None)


def run_mode(runner: str, mode: str, arguments: list[str]) -> dict[str, Any]:
    """Run the suites in one mode; return what the runner says, with `rows`, one for each test.

    Raises:
        SystemExit: The runner itself has failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, runner, "--mode", mode, "--json", str(report), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not report.exists():
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        said: dict[str, Any] = json.loads(report.read_text())
    return said


def judge(said: dict[str, Any], lists: dict[str, Entries]) -> tuple[list[str], int]:
    """Return the report on one mode, as lines, and how many tests count against bequest."""
    counts: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    told, against = [], 0
    for row in said["rows"]:
        tally = counts[row["suite"], row["method"]]
        tally["tests"] += 1
        tally[row["verdict"]] += 1
        if row["verdict"] not in _BAD or row["baseline"] not in ("ok", "?"):
            continue  # it ends well, or as it does without bequest
        names = [name for name, entries in lists.items() if reason_of(row["key"], entries)]
        kind = names[0] if names else "AGAINST BEQUEST"
        tally[kind] += 1
        against += not names
        told.append(f"  {kind}: {row['verdict']} {row['method']} {row['key']}: {row['last']}")
    lines = [f"{said['mode']}, Python {said['python']}, {said['wall']} s"]
    for (suite, method), tally in counts.items():
        lines.append(
            f"  {suite} {method}: " + ", ".join(f"{number} {what}" for what, number in tally.items())
        )
    notes = [f"  note: {unit}: {note}" for unit, found in said["notes"].items() for note in found]
    return lines + sorted(set(told)) + notes, against


def main() -> int:
    """Run what the command line asks for; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runner", help="the program that runs the suites")
    parser.add_argument("--mode", action="append", choices=MODES)
    options, arguments = parser.parse_known_args()
    against = 0
    for mode in options.mode or MODES:
        lists = {
            "intended": read_list("intended-differences.txt"),
            "unsteady without bequest": read_list("unsteady.txt"),
        }
        if mode == "module":
            lists["not reached"] = read_list("unreached-by-module.txt")
        lines, more = judge(run_mode(options.runner, mode, arguments), lists)
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        against += more
    return int(against > 0)


if __name__ == "__main__":
    sys.exit(main())
