"""concurrent.futures and asyncio on bequest's processes: what is submitted and returned may be local.

Installed, or with a context of bequest in `mp_context`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

import bequest

# Python 3.12 and later warn of a fork while a thread runs: here the executor's own.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

LIMIT_S = 30.0  # reached only by a failing test

Make = Callable[..., ProcessPoolExecutor]


@pytest.fixture(params=["installed", "mp_context"])
def make(request: pytest.FixtureRequest, method: str) -> Iterator[Make]:
    """What makes an executor of one worker, which is shut down at the end."""
    made: list[ProcessPoolExecutor] = []
    installed = request.param == "installed"
    if installed:
        bequest.install()
    context: Any = (multiprocessing if installed else bequest).get_context(method)

    def begin(**options: Any) -> ProcessPoolExecutor:
        made.append(ProcessPoolExecutor(1, mp_context=context, **options))
        return made[-1]

    yield begin
    for executor in made:
        executor.shutdown()
    if installed:
        bequest.uninstall()


def test_lambdas_and_closures(make: Make) -> None:
    """A task may be a lambda, and return a function that has closed over what it was given."""
    factor = 3
    executor = make()

    def scale(number: int = 4) -> Callable[[int], int]:
        return lambda more: number * factor + more

    result = executor.submit(scale).result(LIMIT_S)

    assert result(1) == 13
    assert list(executor.map(lambda number: number + factor, range(4), timeout=LIMIT_S)) == [3, 4, 5, 6]


def test_local_classes(make: Make) -> None:
    """Instances of a local class are arguments and results, and come home as instances of that very class."""

    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

        def moved(self, by: int) -> Any:
            return Point(self.x + by)

    executor = make()
    moved = executor.submit(Point(1).moved, 2).result(LIMIT_S)

    assert type(moved) is Point
    assert moved.x == 3
    made = executor.submit(lambda: Point).result(LIMIT_S)
    assert made is Point


def test_errors_of_local_classes(make: Make) -> None:
    """An exception of a local class, whatever its constructor takes, is raised as that class."""

    class RefusedError(Exception):
        def __init__(self, *, reason: str) -> None:
            super().__init__(f"refused: {reason}")
            self.reason = reason

    def refuse() -> None:
        raise RefusedError(reason="on purpose")

    with pytest.raises(RefusedError, match="refused: on purpose") as caught:
        make().submit(refuse).result(LIMIT_S)
    assert caught.value.reason == "on purpose"


def test_initializer(make: Make) -> None:
    """An initializer may be local, and what it sets is there for every task of its worker."""
    import os

    def set_up(name: str) -> None:
        os.environ["EXECUTOR_TEST"] = name

    executor = make(initializer=set_up, initargs=("set",))

    assert executor.submit(lambda: os.environ["EXECUTOR_TEST"]).result(LIMIT_S) == "set"


def test_initializer_that_fails(make: Make) -> None:
    """The executor is broken, and says so."""

    def fail() -> None:
        raise ValueError("on purpose")

    with pytest.raises(BrokenProcessPool):
        make(initializer=fail).submit(int).result(LIMIT_S)


def test_what_cannot_be_carried_fails_its_task_alone(make: Make) -> None:
    """An argument or a result that cannot be carried fails its future; the executor goes on."""
    executor = make()
    with pytest.raises(Exception, match="frame"):
        executor.submit(id, sys._getframe()).result(LIMIT_S)
    with pytest.raises(Exception, match="frame"):
        executor.submit(lambda: sys._getframe()).result(LIMIT_S)

    assert executor.submit(lambda: "going on").result(LIMIT_S) == "going on"


def test_worker_that_is_replaced(make: Make, method: str) -> None:
    """With `max_tasks_per_child` each new worker takes local tasks as the first did."""
    import os

    if method == "fork":  # it is the executor that refuses
        with pytest.raises(ValueError, match="fork"):
            make(max_tasks_per_child=1)
        return
    executor = make(max_tasks_per_child=1)
    seen = [executor.submit(lambda: os.getpid()).result(LIMIT_S) for _ in range(3)]

    assert len(set(seen)) == 3


def test_asyncio(make: Make) -> None:
    """run_in_executor takes and returns what is local."""
    executor, factor = make(), 2

    async def ask() -> list[Any]:
        loop = asyncio.get_running_loop()
        tasks = [loop.run_in_executor(executor, lambda given: given * factor, number) for number in range(3)]
        return await asyncio.wait_for(asyncio.gather(*tasks), LIMIT_S)

    assert asyncio.run(ask()) == [0, 2, 4]
