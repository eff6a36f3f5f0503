"""Large arguments, results and captured objects, which go beside a worker's channel."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pool_tasks as tasks
import pytest

import bequest
from bequest.carry.buffers import THRESHOLD_BYTES
from bequest.pool.pool import Pool

LIMIT_S = 30.0  # reached only by a failing test, so it can be generous
COUNT = THRESHOLD_BYTES  # of numbers of 8 bytes: large enough


@pytest.mark.parametrize("chunksize", [1, 3])
def test_arrays_there_and_back(make_pool: Callable[..., Pool], chunksize: int) -> None:
    """Each task has an array of its own, which it may write to, and so has the caller."""
    pool = make_pool(2)
    arrays = [numpy.ones(COUNT) for _ in range(5)]
    results = pool.map(tasks.increment, arrays, chunksize)

    assert [int(result.sum()) for result in results] == [2 * COUNT] * 5
    assert [int(array.sum()) for array in arrays] == [COUNT] * 5
    results[0][:] = 7
    assert int(results[1][0]) == 2


def test_large_atoms_there_and_back(make_pool: Callable[..., Pool]) -> None:
    """Bytes and texts of any size arrive as they are."""
    pool = make_pool(1)
    content = os.urandom(THRESHOLD_BYTES * 3)

    assert pool.apply(tasks.give_back, (content,)) == content
    assert pool.apply(tasks.give_back, (content.hex(),)) == content.hex()


def test_executor_has_them_as_well(method: str) -> None:
    """The same through an executor."""
    with bequest.ProcessPoolExecutor(1, bequest.get_context(method)) as executor:
        assert int(executor.submit(tasks.increment, numpy.ones(COUNT)).result(LIMIT_S)[-1]) == 2


def test_captured_array_is_sent_once(make_pool: Callable[..., Pool]) -> None:
    """A function that holds a large array is the same function to the workers until the array changes."""
    pool = make_pool(1)
    array = numpy.zeros(COUNT, int)

    def look(index: int) -> tuple[int, int]:
        return int(array[index]), id(array)

    first, second = pool.apply(look, (1,)), pool.apply(look, (1,))
    array[1] = 5
    third = pool.apply(look, (1,))

    assert first == second == (0, first[1])
    assert third[0] == 5


def test_more_than_the_side_channel_holds(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    """What finds no room beside the channel goes through it."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    pool = make_pool(1)
    array = numpy.ones(COUNT)
    blocked = pool.apply_async(tasks.wait_for, (pipe,))
    with bequest.one_snapshot():
        results = [pool.apply_async(tasks.total, (array,)) for _ in range(500)]
    Path(pipe).write_text("go")

    assert blocked.get(LIMIT_S) == "go"
    assert {result.get(LIMIT_S) for result in results} == {float(COUNT)}


def test_task_taken_back_runs_elsewhere(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    """Tasks with large data that wait behind a slow one are done by another worker, and none is mixed up."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    pool = make_pool(2)

    def work(number: int, array: Any) -> Any:
        return tasks.wait_for(pipe) if number == 50 else (number, int(array[0]))

    arrays = [numpy.full(COUNT, number) for number in range(5)]
    pool.starmap(work, [(number, arrays[0]) for number in range(20)], 1)  # it is believed to be quick
    results = [pool.apply_async(work, (number, arrays[number % 5])) for number in range(20, 200)]
    done = [result.get(LIMIT_S) for number, result in enumerate(results, 20) if number != 50]
    Path(pipe).write_text("at last")

    assert done == [(number, number % 5) for number in range(20, 200) if number != 50]
    assert results[30].get(LIMIT_S) == "at last"


def test_death_with_large_tasks_in_the_worker(make_pool: Callable[..., Pool]) -> None:
    """Tasks that a killed worker had not begun take their large data to another."""
    pool = make_pool(1)
    array = numpy.ones(COUNT)
    pool.map(tasks.total, [array] * 10, 1)
    results = [pool.apply_async(tasks.total, (array,)) for _ in range(10)]
    fatal = pool.apply_async(tasks.kill_self)
    results += [pool.apply_async(tasks.total, (array,)) for _ in range(10)]

    with pytest.raises(bequest.WorkerDied):
        fatal.get(LIMIT_S)
    assert [result.get(LIMIT_S) for result in results] == [float(COUNT)] * 20
