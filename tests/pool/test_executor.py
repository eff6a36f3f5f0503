"""The executor: what it does beyond the standard one, and what becomes of calls and workers in bad times."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pool_tasks as tasks
import pytest

import bequest

LIMIT_S = 30.0  # reached only by a failing test, so it can be generous


@pytest.fixture
def make_executor(method: str) -> Iterator[Callable[..., bequest.ProcessPoolExecutor]]:
    """Make executors that are shut down with the test."""
    made: list[bequest.ProcessPoolExecutor] = []

    def make(max_workers: int, **options: Any) -> bequest.ProcessPoolExecutor:
        options.setdefault("mp_context", bequest.get_context(method))
        made.append(bequest.ProcessPoolExecutor(max_workers, **options))
        return made[-1]

    yield make
    for executor in made:
        executor.shutdown(cancel_futures=True)


def test_calls_in_every_way(make_executor: Callable[..., bequest.ProcessPoolExecutor]) -> None:
    """Calls return what the function does, to every kind of waiter."""
    executor = make_executor(2)
    futures: Any = [executor.submit(lambda number: number + 1, number) for number in range(20)]

    async def wait() -> Any:
        return await asyncio.wrap_future(executor.submit(tasks.add, 1, 2, more=3))

    assert isinstance(executor, concurrent.futures.ProcessPoolExecutor)
    assert concurrent.futures.wait(futures, LIMIT_S).not_done == set()
    assert sum(future.result() for future in concurrent.futures.as_completed(futures)) == sum(range(1, 21))
    assert asyncio.run(wait()) == 6
    assert list(executor.map(tasks.add, range(10), range(10))) == list(range(0, 20, 2))
    assert list(executor.map(tasks.add, range(10), range(10), chunksize=3)) == list(range(0, 20, 2))


def test_death_breaks_the_executor(make_executor: Callable[..., bequest.ProcessPoolExecutor]) -> None:
    """As in the standard executor, but the call that its worker had begun is told how that died."""
    executor = make_executor(1)
    fatal = executor.submit(tasks.kill_self)
    later = executor.submit(tasks.double, 1)

    with pytest.raises(bequest.WorkerDied, match="SIGKILL"):
        fatal.result(LIMIT_S)
    assert isinstance(fatal.exception(), BrokenProcessPool)
    assert "exit code -9" in str(getattr(fatal.exception(), "__cause__", None))
    with pytest.raises(BrokenProcessPool):
        later.result(LIMIT_S)
    with pytest.raises(BrokenProcessPool):
        executor.submit(tasks.double, 1)


def test_death_fails_one_call_if_so_chosen(make_executor: Callable[..., bequest.ProcessPoolExecutor]) -> None:
    """With "fail_task" the executor goes on."""
    executor = make_executor(1, on_worker_death="fail_task")
    fatal, later = executor.submit(tasks.kill_self), executor.submit(tasks.double, 1)

    with pytest.raises(bequest.WorkerDied):
        fatal.result(LIMIT_S)
    assert later.result(LIMIT_S) == 2


def test_call_that_waits_in_a_worker_is_cancelled(
    make_executor: Callable[..., bequest.ProcessPoolExecutor], tmp_path: Path
) -> None:
    """What a worker has not begun can be cancelled, and is never run; what it has begun cannot."""
    pipe, mark = str(tmp_path / "pipe"), tmp_path / "mark"
    os.mkfifo(pipe)
    executor = make_executor(1)
    blocked = executor.submit(tasks.wait_for, pipe)
    waiting = executor.submit(Path.touch, mark)
    end = os.open(pipe, os.O_WRONLY)  # opened when the call has opened the other end: it has begun

    assert not blocked.cancel()
    assert blocked.running()
    assert waiting.cancel()
    os.write(end, b"go")
    os.close(end)
    assert blocked.result(LIMIT_S) == "go"
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.result()
    assert executor.submit(tasks.double, 1).result(LIMIT_S) == 2
    assert not mark.exists()


def test_map_reads_no_further_than_it_must(
    make_executor: Callable[..., bequest.ProcessPoolExecutor],
) -> None:
    """An endless input is read as results are taken."""
    read = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    results = make_executor(2).map(tasks.double, numbers(), buffersize=4)

    assert [next(results) for _ in range(10)] == list(range(0, 20, 2))
    assert len(read) <= 10 + 4 + 1


def test_map_whose_results_nobody_wants_is_made(
    make_executor: Callable[..., bequest.ProcessPoolExecutor], tmp_path: Path
) -> None:
    """Calls of a map whose iterator is dropped unused are made, before shutdown() returns."""
    executor = make_executor(2)
    executor.map(Path.touch, [tmp_path / str(number) for number in range(100)])
    executor.shutdown()

    assert len(list(tmp_path.iterdir())) == 100


def test_map_with_a_buffer_reads_no_more_than_that(
    make_executor: Callable[..., bequest.ProcessPoolExecutor],
) -> None:
    """Where a buffer was asked for, no more is read for an iterator that is dropped, or after shutdown()."""
    executor = make_executor(2)
    dropped, kept = iter(range(10)), iter(range(10))
    executor.map(tasks.double, dropped, buffersize=2)
    results = executor.map(tasks.double, kept, buffersize=3)
    executor.shutdown()

    assert (next(dropped), next(kept)) == (2, 3)
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    with pytest.raises(RuntimeError, match="after shutdown"):
        next(results)


def test_idle_workers_are_let_go(make_executor: Callable[..., bequest.ProcessPoolExecutor]) -> None:
    """A worker without work ends after `idle_timeout`; a later call has another one."""
    executor = make_executor(1, idle_timeout=0.1)
    pid = executor.submit(os.getpid).result(LIMIT_S)
    for process in executor._processes.values():
        process.join(LIMIT_S)

    assert executor.submit(os.getpid).result(LIMIT_S) != pid


def test_timeout_stops_the_call(
    make_executor: Callable[..., bequest.ProcessPoolExecutor], tmp_path: Path
) -> None:
    """A call that is out of time is stopped; that breaks nothing."""
    os.mkfifo(tmp_path / "pipe")
    executor = make_executor(1, task_timeout=0.2)

    with pytest.raises(bequest.TaskTimeoutError):
        executor.submit(tasks.wait_for, str(tmp_path / "pipe")).result(LIMIT_S)
    assert executor.submit(tasks.double, 1).result(LIMIT_S) == 2


def test_initializer_that_fails_breaks_the_executor(
    make_executor: Callable[..., bequest.ProcessPoolExecutor],
) -> None:
    """Calls raise BrokenProcessPool, with what the initializer raised as its cause."""
    executor = make_executor(1, initializer=tasks.fail_to_begin)

    with pytest.raises(BrokenProcessPool) as caught:
        executor.submit(tasks.double, 1).result(LIMIT_S)
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize("operation", ["terminate_workers", "kill_workers"])
def test_workers_are_stopped(
    make_executor: Callable[..., bequest.ProcessPoolExecutor], tmp_path: Path, operation: str
) -> None:
    """Begun calls fail, no more are taken, and the workers end."""
    os.mkfifo(tmp_path / "pipe")
    executor = make_executor(1)
    future = executor.submit(tasks.wait_for, str(tmp_path / "pipe"))
    end = os.open(tmp_path / "pipe", os.O_WRONLY)  # opened when the call has opened the other: it has begun
    processes = list(executor._processes.values())
    getattr(executor, operation)()

    with pytest.raises(BrokenProcessPool):
        future.result(LIMIT_S)
    with pytest.raises(RuntimeError):
        executor.submit(tasks.double, 1)
    for process in processes:
        process.join(LIMIT_S)
        assert process.exitcode in (-signal.SIGTERM, -signal.SIGKILL)
    os.close(end)
