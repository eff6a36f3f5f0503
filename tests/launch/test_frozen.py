"""A program that was frozen into an executable starts its children by itself: there is no other Python."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from programs import Programs, importing

_PROGRAM = """
import os
import sys

# What a freezer does before the program begins.
sys.frozen = True
sys.executable = os.environ["FROZEN_EXECUTABLE"]
if sys.argv[1:] and sys.argv[-2] == "-c":  # the resource tracker, which freezers know by its command line
    exec(sys.argv[-1])
    sys.exit()

import multiprocessing

def work(function):
    process = multiprocessing.current_process()
    print(process.name, function(2), sys.argv[1:], sys.frozen, flush=True)
    if process.name == "child":
        multiprocessing.Process(target=work, args=(function,), name="grandchild").start()

if __name__ == "__main__":
    multiprocessing.freeze_support()
    print("main", sys.argv[1:], flush=True)
    multiprocessing.set_start_method(sys.argv[1])
    number = 40
    process = multiprocessing.Process(target=work, args=(lambda other: number + other,), name="child")
    process.start()
    process.join()
    print(process.exitcode)
"""


@pytest.mark.parametrize("way", ["import", "run"])
def test_frozen_program(tmp_path: Path, clean_method: str, way: str) -> None:
    """Its children and theirs run their targets, and the program's own main part runs once."""
    programs = Programs(tmp_path)
    script = programs.write("program.py", importing(_PROGRAM) if way == "import" else _PROGRAM)
    before = "" if way == "import" else "-m bequest run"
    executable = programs.write("program", f'#!/bin/sh\nexec "{sys.executable}" {before} "{script}" "$@"\n')
    executable.chmod(0o755)
    programs.environment["FROZEN_EXECUTABLE"] = str(executable)

    ended = programs.execute(str(executable), clean_method)

    arguments = [clean_method]
    assert ended.lines == [
        f"main {arguments}",
        f"child 42 {arguments} True",
        f"grandchild 42 {arguments} True",
        "0",
    ]
