"""The resource tracker cleans up after a program that was killed, and says so where that is news."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from programs import Programs

_KILLED = """
import os, signal, sys
import bequest
from multiprocessing.shared_memory import SharedMemory

def work():
    print("worked", flush=True)

if __name__ == "__main__":
    kind, starts = sys.argv[1:]
    context = bequest.get_context("spawn")
    made = [context.Lock() if kind == "semaphore" else SharedMemory(create=True, size=8) for _ in range(2)]
    if starts == "starts":
        process = context.Process(target=work)
        process.start()
        process.join()
    print(*(each._semlock.name if kind == "semaphore" else each._name for each in made), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="names are looked for there")
@pytest.mark.parametrize("starts", ["starts", "starts none"])
@pytest.mark.parametrize("kind", ["semaphore", "shared_memory"])
def test_tracker_of_a_killed_program(tmp_path: Path, kind: str, starts: str) -> None:
    """What a killed program made is removed; the tracker is silent on semaphores if it started a process."""
    programs = Programs(tmp_path)
    programs.write("program.py", _KILLED)
    ended = programs.python("program.py", kind, starts)  # the tracker holds the pipes: this waits for it too
    names = ended.output.split()[-2:]
    silent = kind == "semaphore" and starts == "starts"

    assert ended.status == -9, ended
    assert ("worked" in ended.output) == (starts == "starts")
    assert (f"2 leaked {kind} objects" in ended.errors) != silent, ended
    if silent or sys.version_info < (3, 13):  # which names them, in no order
        assert not any(name in ended.errors for name in names)
    else:
        assert (
            f"{{'{names[0]}', '{names[1]}'}}" in ended.errors
            or f"{{'{names[1]}', '{names[0]}'}}" in ended.errors
        )
    made = [Path("/dev/shm", ("sem." if kind == "semaphore" else "") + name.lstrip("/")) for name in names]
    assert [path for path in made if path.exists()] == []
