"""What every test shares: the start methods, the limit, and the proof that a test has left nothing behind.

    before a test: children, descriptors -> after it: the same, and none of the names that it made in /dev/shm

A test that has left something fails and says what.
What a program starts once and keeps (the resource tracker, the template) is no leftover.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory, synchronize
from pathlib import Path
from typing import Any

import pytest

from descriptors import open_descriptors
from receiving import Receiver

LIMIT_S = 30.0  # reached only by a failing test, so it can be generous
START_METHODS = ("fork", "spawn", "forkserver")
CLEAN_METHODS = ("spawn", "forkserver")  # those whose children do not share their parent's memory

_SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(params=START_METHODS)
def method(request: pytest.FixtureRequest) -> str:
    """Each start method."""
    return str(request.param)


@pytest.fixture(params=CLEAN_METHODS)
def clean_method(request: pytest.FixtureRequest) -> str:
    """Each start method whose children begin clean."""
    return str(request.param)


@pytest.fixture
def make_pool(method: str) -> Iterator[Callable[..., Any]]:
    """Make pools that are ended with the test."""
    import bequest

    made: list[Any] = []

    def make(*args: Any, **options: Any) -> Any:
        made.append(bequest.get_context(method).Pool(*args, **options))
        return made[-1]

    yield make
    for pool in made:
        pool.terminate()
        pool.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A process that reads messages and answers questions about them."""
    there = Receiver()
    yield there
    there.close()


@pytest.fixture(autouse=True)
def _nothing_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test that leaves a child, a descriptor or a named semaphore or block behind."""
    names = _noted_names(monkeypatch)
    kept_before, serving_before = _kept(), _is_serving()
    children, fds = _children(), open_descriptors()
    yield
    gc.collect()
    kept = _kept()
    left_children = _children() - children - set(kept)
    assert not left_children, f"the test left children: {[_command(pid) for pid in left_children]}"
    left_names = [name for name in names if (_SHARED_MEMORY / name).exists()]
    assert not left_names, f"the test left in {_SHARED_MEMORY}: {left_names}"
    # Else the test was the first to need a process, or a server, that stays, with its descriptors.
    if (kept, _is_serving()) == (kept_before, serving_before):
        left_fds = {fd: name for fd, name in open_descriptors().items() if fds.get(fd) != name}
        assert not left_fds, f"the test left descriptors: {left_fds}"


def _noted_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which each name that this process makes in /dev/shm will be added.

    What else appears there belongs to other programs of this machine.
    """
    names: list[str] = []

    def noting(make: Callable[[], str], before: str) -> Callable[[], str]:
        def noted() -> str:
            name = make()
            names.append(before + name.lstrip("/"))
            return name

        return noted

    lock: Any = synchronize.SemLock
    monkeypatch.setattr(lock, "_make_name", staticmethod(noting(lock._make_name, "sem.")))
    memory: Any = shared_memory
    monkeypatch.setattr(memory, "_make_filename", noting(memory._make_filename, ""))
    return names


def _is_serving() -> bool:
    """Tell whether this process answers those who ask for large state; once it does, it goes on."""
    deferred: Any = sys.modules.get("bequest.carry.deferred")
    return deferred is not None and deferred._server._listener is not None


def _kept() -> list[int]:
    """Return the ids of the processes that a program starts once: trackers, templates, fork servers."""
    found: list[Any] = []
    tracker: Any = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None:
        found.append(tracker._resource_tracker._pid)
    server: Any = sys.modules.get("multiprocessing.forkserver")
    if server is not None:
        found.append(server._forkserver._forkserver_pid)
    template: Any = sys.modules.get("bequest.launch.template")
    if template is not None:
        found.append(getattr(template.templates._current, "pid", None))
    return [pid for pid in found if pid is not None]


def _children() -> set[int]:
    """Return the ids of this process's children, ended ones that nobody has waited for included."""
    mine = str(os.getpid())
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:  # it has ended since it was listed
                continue
            if parent == mine:
                found.add(int(entry.name))
    return found


def _command(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it ended just now
        command = ""
    return f"{pid} {command[:200]}"
