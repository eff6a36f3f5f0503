"""Run the text of a program the ways a user runs one, and say how it ended.

    text -> Programs.run(text, way, method) -> Ended(status, output, errors)

The text is a program that uses plain `multiprocessing`. For the ways "... import", its imports of
multiprocessing are made imports of bequest; for "... run" it is left alone.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 60.0  # reached only by a failing test, so it can be generous
SOURCE = str(Path(__file__).resolve().parent.parent / "src")
WAYS = (
    "script import",
    "script run",
    "command import",
    "command run",
    "stdin import",
    "stdin run",
    "interactive import",
)


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Attributes:
        status: Its exit status; -n after signal n.
        output: What it wrote to standard output.
        errors: What it wrote to standard error.
    """

    status: int
    output: str
    errors: str

    @property
    def lines(self) -> list[str]:
        """The lines of the output, provided that the program ended well; else the assertion shows all."""
        assert self.status == 0, self
        return self.output.splitlines()


class Programs:
    """A folder for programs and the modules that they import."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([SOURCE, *_inherited_path()]),
            "PYTHONUNBUFFERED": "1",
            "PYTHON_BASIC_REPL": "1",  # one dialogue on every version: no colours, no screen (since 3.13)
        }

    def write(self, name: str, text: str) -> Path:
        """Write a file of the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def python(self, *command: str, stdin: str = "", start_method: str = "") -> Ended:
        """Run the interpreter of the tests with `command`, in the folder."""
        return self.execute(sys.executable, *command, stdin=stdin, start_method=start_method)

    def execute(self, *command: str, stdin: str = "", start_method: str = "") -> Ended:
        """Run any program, in the folder."""
        chosen = {"START_METHOD": start_method} if start_method else {}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **chosen},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def run(self, text: str, way: str, method: str) -> Ended:
        """Run a program.

        Args:
            text: The program; it takes its start method from the environment variable START_METHOD.
            way: One of `WAYS`.
            method: That start method.
        """
        form, _, how = way.partition(" ")
        before = () if how == "import" else ("-m", "bequest", "run")
        if how == "import":
            text = importing(text)
        if form == "script":
            self.write("program.py", text)
            return self.python(*before, "program.py", start_method=method)
        if form == "command":
            return self.python(*before, "-c", text, start_method=method)
        if form == "stdin":
            return self.python(*before, "-", stdin=text, start_method=method)
        return self.python("-i", "-q", stdin=as_dialogue(text), start_method=method)


def _inherited_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def importing(text: str) -> str:
    """Return a program with bequest in place of multiprocessing."""
    text = re.sub(r"^(\s*)import multiprocessing$", r"\1import bequest as multiprocessing", text, flags=re.M)
    text = re.sub(r"^(\s*)import multiprocessing as (\w+)", r"\1import bequest as \2", text, flags=re.M)
    return re.sub(r"^(\s*)from multiprocessing(?=[. ])", r"\1from bequest", text, flags=re.M)


def as_dialogue(text: str) -> str:
    """Return what a person would type for a program: blank lines end blocks, and stand nowhere else."""
    typed: list[str] = []
    body = ast.parse(text).body
    if isinstance(body[0], ast.Expr):  # the documentation, which a prompt would answer
        text = "\n".join(text.splitlines()[body[0].end_lineno :])
    for line in text.splitlines():
        if not line.strip():
            continue
        continues = line[0] in " \t)]}" or line.startswith(("else", "elif", "except", "finally"))
        if typed and typed[-1].startswith((" ", "\t")) and not continues:
            typed.append("")
        typed.append(line)
    return "\n".join([*typed, "", ""])
