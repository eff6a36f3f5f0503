"""Start a new interpreter that runs one call into a module of `bequest.launch`.

    start("lean.spawned(...)", fds) -> python FLAGS -c "... lean.spawned(...)"
    a frozen program                 -> PROGRAM --multiprocessing-fork pipe_handle=FD -> freeze_support()

It has this interpreter's flags and search path. What becomes of the process is the caller's to follow.
"""

from __future__ import annotations

import os
import pickle
import sys
from multiprocessing import spawn
from multiprocessing import util as _util

from bequest.launch import handoff

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

util: Any = _util  # private names of it are used: the same in all versions
_spawn: Any = spawn

# A program text on a command line may have 128 KiB on Linux; a search path that would not fit is left to the
# header.
_MAX_PATH_TEXT = 100_000


def start(call: str, fds: list[int]) -> int:
    """Start an interpreter that runs `call`, such as `"lean.spawned(3, 4)"`; return its process id.

    Args:
        call: Names a module of `bequest.launch` first.
        fds: Descriptors that it inherits, under their numbers. They stay the caller's.

    Raises:
        OSError: There is no such executable, or the system is at a limit. Nothing has been started.
    """
    program = _program(call)
    if not getattr(sys, "frozen", False):
        executable = _spawn.get_executable()
        command = [executable, *_interpreter_flags(), "-c", program, "--multiprocessing-fork"]
        return int(util.spawnv_passfds(executable, command, fds))
    # The executable is the program itself, which takes no -c: its `freeze_support()` reads a pickle, as from
    # the standard library, whose first object is this call.
    stored = handoff.store([pickle.dumps(_Run(program))])
    try:
        tracker = handoff.tracker_fd()
        command = _spawn.get_command_line(tracker_fd=tracker, pipe_handle=stored)
        return int(util.spawnv_passfds(os.fsencode(command[0]), command, [*{*fds, stored, tracker}]))
    finally:
        os.close(stored)


class _Run:
    """A program that runs where it is unpickled."""

    def __init__(self, program: str) -> None:
        self._program = program

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self._program, {})


def _program(call: str) -> str:
    """Return a program that searches where this process does from its first import on.

    Neither a `random.py` in the working directory nor another bequest must get in between.
    """
    program = f"from bequest.launch import {call.partition('.')[0]}; {call}"
    path = ascii(_search_path())
    return f"import sys; sys.path[:] = {path}; {program}" if len(path) < _MAX_PATH_TEXT else program


def _interpreter_flags() -> list[str]:
    """Return this interpreter's flags, with all of -X, of which the standard library passes on a part."""
    flags = util._args_from_interpreter_flags()
    for name, value in sys._xoptions.items():
        option = name if value is True else f"{name}={value}"
        if option not in flags:
            flags += ["-X", option]
    return list(flags)


def _search_path() -> list[str]:
    # What is not text (a pathlib.Path that a program put there) is never searched by the import system
    # either.
    path = [entry for entry in sys.path if isinstance(entry, str)]
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return path if home in path else [*path, home]
