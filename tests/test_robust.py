"""Locks, conditions, events and queues go on when a process that had one, or waited for one, was killed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bequest
import robust_tasks as tasks
from bequest import robust
from programs import Programs

LIMIT_S = 30.0  # reached only by a failing test, so it can be generous


@pytest.fixture
def ctx(method: str) -> Any:
    """A context of each start method."""
    return bequest.get_context(method)


@pytest.fixture
def start(ctx: Any) -> Iterator[Callable[..., Any]]:
    """Start a process with a pipe as its last argument; return it and the pipe."""
    started: list[Any] = []

    def begin(target: Callable[..., None], *args: Any) -> tuple[Any, Any]:
        ours, theirs = ctx.Pipe()
        process = ctx.Process(target=target, args=(*args, theirs))
        process.start()
        theirs.close()
        started.append((process, ours))
        return process, ours

    yield begin
    for process, pipe in started:
        process.kill()
        process.join()
        process.close()
        pipe.close()


def hear(pipe: Any) -> Any:
    """Return the next thing that a child says."""
    assert pipe.poll(LIMIT_S), f"nothing was said for {LIMIT_S} s"
    return pipe.recv()


def kill(process: Any) -> None:
    """End a process by SIGKILL."""
    process.kill()
    process.join()


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_lock_of_a_killed_process_is_given_on(ctx: Any, start: Callable[..., Any], kind: str) -> None:
    """A lock whose holder was killed can be acquired, again and again."""
    lock = getattr(ctx, kind)()
    for _ in range(2):
        process, pipe = start(tasks.hold, lock)
        assert hear(pipe) == "held"
        kill(process)

        assert lock.acquire(timeout=LIMIT_S)
        lock.release()
    with lock:
        assert lock._semlock._is_mine()


def test_lock_is_given_to_one_only(ctx: Any, start: Callable[..., Any], tmp_path: Path) -> None:
    """Of several who wait for a dead process's lock, one has it at a time."""
    lock, number = ctx.Lock(), tmp_path / "number"
    number.write_text("0")
    holder, pipe = start(tasks.hold, lock)
    assert hear(pipe) == "held"
    waiting = [ctx.Process(target=tasks.count, args=(lock, number, 300)) for _ in range(4)]
    for process in waiting:
        process.start()
    kill(holder)
    for process in waiting:
        process.join(LIMIT_S)
        assert process.exitcode == 0
        process.close()

    assert int(number.read_text()) == 4 * 300
    assert lock._semlock._get_value() == 1


def test_lock_of_a_process_that_lives_is_not_given_on(ctx: Any, start: Callable[..., Any]) -> None:
    """However long one waits, a lock that somebody has is not to be had."""
    lock = ctx.Lock()
    _, pipe = start(tasks.hold, lock)
    assert hear(pipe) == "held"

    assert not lock.acquire(timeout=4 * robust._FIRST_LOOK_S)
    assert not lock.acquire(False)


def test_process_that_has_the_number_of_a_dead_one_is_another() -> None:
    """A record names a process by its number and when it began; an ended one is not mistaken for it."""
    mine = robust._self.look()

    assert not robust._has_ended(mine)
    assert robust._has_ended(mine + (1 << robust._PID_BITS))


def test_process_that_nobody_has_reaped_has_ended() -> None:
    """A lock does not wait for somebody to take note of its holder's end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, robust._self.look().to_bytes(8, "little"))
        os._exit(0)
    word = int.from_bytes(os.read(reading, 8), "little")
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)

    assert robust._pid_of(word) == child
    assert robust._has_ended(word)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("call", ["notify_all", "notify"])
def test_condition_whose_waiter_was_killed(ctx: Any, start: Callable[..., Any], call: str) -> None:
    """Notifying ends, and wakes those who live."""
    condition = ctx.Condition()
    dead, dead_pipe = start(tasks.wait_for, condition)
    assert hear(dead_pipe) == "waiting"
    _, pipe = start(tasks.wait_for, condition)
    assert hear(pipe) == "waiting"
    with condition:  # so both have given the lock back: they wait
        kill(dead)
    with condition:
        getattr(condition, call)()

    assert hear(pipe) == "woken"
    with condition:
        condition.notify_all()  # of whom nobody is left


def test_event_whose_waiter_was_killed(ctx: Any, start: Callable[..., Any]) -> None:
    """Setting it ends, and wakes those who live."""
    event = ctx.Event()
    dead, dead_pipe = start(tasks.wait_for_event, event)
    _, pipe = start(tasks.wait_for_event, event)
    assert hear(dead_pipe) == hear(pipe) == "waiting"
    kill(dead)
    event.set()

    assert hear(pipe) == "woken"


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_queue_whose_reader_was_killed(ctx: Any, start: Callable[..., Any], kind: str) -> None:
    """The next reader gets what is put."""
    queue = getattr(ctx, kind)()
    dead, dead_pipe = start(tasks.take_one, queue)
    assert hear(dead_pipe) == "waiting"
    record = queue._rlock._record
    while not record.words[record.at]:  # it has the lock for readers, and is known to
        os.sched_yield()
    kill(dead)
    _, pipe = start(tasks.take_one, queue)
    assert hear(pipe) == "waiting"
    queue.put("item")

    assert hear(pipe) == "item"
    queue.close()
    if kind != "SimpleQueue":
        queue.join_thread()


INSTALLED = """\
import multiprocessing as mp
import os
import signal


def hold(lock, ready):
    with lock:
        ready.set()
        signal.pause()


if __name__ == "__main__":
    mp.set_start_method(os.environ["START_METHOD"])
    lock, ready = mp.Lock(), mp.Event()
    process = mp.Process(target=hold, args=(lock, ready))
    process.start()
    ready.wait()
    process.kill()
    process.join()
    print(lock.acquire(timeout=30), type(lock).__module__)
"""


def test_installed_the_standard_ones_do_the_same(tmp_path: Path, method: str) -> None:
    """Under `bequest run`, locks of multiprocessing are given on."""
    ended = Programs(tmp_path).run(INSTALLED, "script run", method)

    assert ended.lines == ["True multiprocessing.synchronize"]
