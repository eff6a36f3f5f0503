"""`bequest explain PROGRAM` and `bequest check PROGRAM`: run a program watched, and report.

arguments -> Request -> python -m bequest run PROGRAM (BEQUEST_WATCH set) -> reports in a folder -> shown

The program runs in a process of its own, by `bequest run`, with the standard streams of this one; what is
said of it goes to standard error. Its exit status is passed on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import util as _util
from pathlib import Path
from typing import Any

from bequest.launch import watched

USAGE = """\
usage: python -m bequest explain [OPTION ...] PROGRAM [ARGUMENT ...]
       python -m bequest check   [OPTION ...] PROGRAM [ARGUMENT ...]

explain: run a program under bequest, and print one line for every process, pool and executor that it
         starts: where in the source, how, how many bytes, how long until its first instruction, what was
         left behind.
check:   run a program under bequest, and report what plain Python 3.14 (forkserver) and spawn would have
         done at each start, put, send and submit. Exit status 1 where something would break or differ.

PROGRAM is what `python -m bequest run` takes: script.py, -m MODULE, -c CODE, -

options:
  --start METHOD   as for run
  --strict         as for run
  --tree           explain: print the tree of what each start carries as well
  --html FILE      explain: write a page with those trees
  --json FILE      write all that was found as JSON; - is standard output
  -h, --help       show this and leave
"""

_USAGE_STATUS = 2
_LOOK_EVERY_S = 0.1


class UsageError(Exception):
    """The command line cannot be understood; its text says what is wrong with it."""


class Request:
    """What the command line asks for.

    Attributes:
        command: "explain" or "check".
        run: Arguments for `bequest run`, the program's included.
        tree: Whether trees are printed.
        html: File that the page goes to, or None.
        json: File that JSON goes to, "-" for standard output, or None.
    """

    def __init__(self, command: str, given: Sequence[str]) -> None:
        self.command = command
        self.tree, self.html, self.json = False, "", ""
        self.run: list[str] = []
        self.wants_help = False
        rest = list(given)
        while rest and rest[0].startswith("--"):
            option, _, value = rest.pop(0).partition("=")
            self._take(option, value, rest)
        self.run += rest
        if rest[:1] == ["-h"]:
            self.wants_help = True
        if not rest and not self.wants_help:
            raise UsageError("what to run is missing")

    def _take(self, option: str, value: str, rest: list[str]) -> None:
        if option in ("--start", "--html", "--json"):
            if not value:
                if not rest:
                    raise UsageError(f"{option} takes a value")
                value = rest.pop(0)
            if option == "--start":
                self.run += [option, value]
            else:
                setattr(self, option[2:], value)
        elif option == "--tree":
            self.tree = True
        elif option == "--strict":
            self.run.append(option)
        elif option == "--help":
            self.wants_help = True
        else:
            raise UsageError(f"unknown option {option}")

    @property
    def wants_trees(self) -> bool:
        """Whether trees have to be built."""
        return self.tree or bool(self.html) or bool(self.json)


def main(command: str, given: Sequence[str]) -> int:
    """Run `bequest explain` or `bequest check`.

    Args:
        command: Which of them.
        given: The arguments behind it.

    Returns:
        The exit status: the program's own; of `check` 1 where something would break.
    """
    try:
        request = Request(command, given)
    except UsageError as error:
        sys.stderr.write(f"{USAGE}\nbequest: {error}\n")
        return _USAGE_STATUS
    if request.wants_help:
        sys.stdout.write(USAGE)
        return 0
    with tempfile.TemporaryDirectory(prefix="bequest-") as folder:
        if command == "check":
            from bequest.explain.verdicts import CheckReport

            check = CheckReport(Path(folder), request)
            return check.finish(_run(request, f"check:{folder}", check.look))
        from bequest.explain.report import ExplainReport

        report = ExplainReport(Path(folder), request)
        what = "trees" if request.wants_trees else "explain"
        return report.finish(_run(request, f"{what}:{folder}", report.look))


def _run(request: Request, watch: str, look: Callable[[], None]) -> int:
    """Run the program to its end, calling `look` now and then; return its status as a shell has it."""
    flags = _util._args_from_interpreter_flags()  # type: ignore[attr-defined]  # private, in all versions
    command = [sys.executable, *flags, "-m", "bequest", "run", *request.run]
    # ^C comes to the program as well, which decides what it means; not ignored, or it would inherit that.
    with _handling(signal.SIGINT, lambda *_: None):
        program = subprocess.Popen(command, env={**os.environ, watched.VARIABLE: watch})
        with _handling(signal.SIGTERM, lambda number, _: program.send_signal(number)):
            while True:
                try:
                    status = program.wait(_LOOK_EVERY_S)
                except subprocess.TimeoutExpired:
                    look()
                else:
                    look()
                    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def _handling(number: int, handler: Callable[[int, Any], object]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def write_json(where: str, text: str) -> None:
    """Write text to a file, or to standard output where that is called "-"."""
    if where == "-":
        sys.stdout.write(text + "\n")
    else:
        Path(where).write_text(text + "\n", encoding="utf-8")


class Lines:
    """Reads the reports of a folder as they are written: each line once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def fresh(self) -> Iterator[dict[str, Any]]:
        """Yield what has been written since the last call, of each process in order."""
        import json

        for path in sorted(self._folder.glob("*.jsonl")):
            content = path.read_bytes()
            begin = self._read.get(path, 0)
            end = content.rfind(b"\n") + 1
            self._read[path] = end
            for line in content[begin:end].splitlines():
                yield json.loads(line)
