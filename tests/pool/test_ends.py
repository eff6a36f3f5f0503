"""How programs with pools end: by themselves, by ^C, by SIGKILL; and what forked children have of a pool."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pool_tasks as tasks
import pytest

import bequest
from programs import Programs

LIMIT_S = 30.0  # reached only by a failing test, so it can be generous

WAITING = """\
import os, signal, sys, threading
import bequest

def work(number):
    os.write(1, b"%d\\n" % os.getpid())
    threading.Event().wait()

if __name__ == "__main__":
    with bequest.get_context(sys.argv[1]).Pool(2) as pool:
        pool.map(work, range(8), 1)
"""

LEAVING = """\
import sys
import bequest

def double(number):
    return 2 * number

pool = bequest.get_context(sys.argv[1]).Pool(2)
executor = bequest.ProcessPoolExecutor(2, bequest.get_context(sys.argv[1]))
print(pool.apply(double, (1,)))
executor.submit(print, "done at the end")
"""


@pytest.fixture
def waiting(tmp_path: Path, method: str) -> Any:
    """A program whose two workers are both in a task, with descriptors of those."""
    programs = Programs(tmp_path)
    path = programs.write("program.py", WAITING)
    program = subprocess.Popen(
        [sys.executable, str(path), method],
        env=programs.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    workers = [os.pidfd_open(int(program.stdout.readline())) for _ in range(2)]
    yield program, workers
    for worker in workers:
        os.close(worker)
    program.kill()
    program.communicate(timeout=LIMIT_S)


def _ends(worker: int) -> bool:
    return bool(select.select([worker], [], [], LIMIT_S)[0])


def test_killed_parent_takes_its_workers_along(waiting: tuple[subprocess.Popen[str], list[int]]) -> None:
    """Workers end with the process that made the pool, though they are in a task."""
    program, workers = waiting
    program.kill()

    assert [_ends(worker) for worker in workers] == [True, True]


def test_interrupt_ends_all_without_noise(waiting: tuple[subprocess.Popen[str], list[int]]) -> None:
    """After ^C there is the traceback of the program, none of a worker, and nothing is left."""
    program, workers = waiting
    os.killpg(program.pid, signal.SIGINT)
    _, errors = program.communicate(timeout=LIMIT_S)

    assert [_ends(worker) for worker in workers] == [True, True]
    assert errors.count("Traceback") == 1, errors


def test_program_ends_with_a_pool_open(tmp_path: Path, method: str) -> None:
    """At the end of a program its pools are ended; executors do first what they were given."""
    programs = Programs(tmp_path)
    path = programs.write("program.py", LEAVING)
    ended = programs.python(str(path), method)

    assert sorted(ended.lines) == ["2", "done at the end"]
    assert "Traceback" not in ended.errors


def _try(call: Callable[[], Any]) -> str:
    try:
        return str(call())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        return type(error).__name__


def test_forked_child_is_told_that_a_pool_is_not_its_own() -> None:
    """In a forked child a call of the parent's pool raises; the pool works on in the parent."""
    with bequest.get_context("forkserver").Pool(1) as pool:
        pool.apply(tasks.double, (1,))
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, _try(lambda: pool.apply(tasks.double, (2,))).encode())
            os._exit(0)
        os.waitpid(child, 0)

        assert os.read(reading, 100) == b"PoolEndedError"
        assert pool.apply(tasks.double, (3,)) == 6
    os.close(reading)
    os.close(writing)
