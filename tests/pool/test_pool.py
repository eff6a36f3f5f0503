"""The pool: what it does beyond the standard one, and what becomes of tasks and workers in bad times."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pool_tasks as tasks
import pytest

import bequest
from bequest.pool.intake import _load_atom
from bequest.pool.pool import Pool

LIMIT_S = 30.0  # reached only by a failing test, so it can be generous


def test_calls_in_every_way(make_pool: Callable[..., Pool]) -> None:
    """Each method returns what the function does."""
    pool = make_pool(2)
    offset = 3

    assert pool.apply(tasks.add, (1, 2), {"more": 4}) == 7
    assert pool.map(lambda number: number + offset, range(10)) == list(range(3, 13))
    assert pool.map(tasks.double, iter(range(10)), 1) == list(range(0, 20, 2))
    assert pool.starmap(tasks.add, [(1, 2), (3, 4)]) == [3, 7]
    assert list(pool.imap(tasks.double, range(7), 2)) == list(range(0, 14, 2))
    assert sorted(pool.imap_unordered(tasks.double, range(100))) == list(range(0, 200, 2))


def test_results_are_those_of_multiprocessing(make_pool: Callable[..., Pool]) -> None:
    """Programs that ask for the standard classes find them."""
    pool = make_pool(1)
    result = pool.apply_async(tasks.double, (1,))

    assert isinstance(pool, multiprocessing.pool.Pool)
    assert isinstance(result, multiprocessing.pool.AsyncResult)
    assert isinstance(pool.map_async(tasks.double, [1]), multiprocessing.pool.MapResult)
    assert result.get(LIMIT_S) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_dead_worker_fails_its_task_only(make_pool: Callable[..., Pool], number: signal.Signals) -> None:
    """The task that a worker had begun is told how it died; all others are done, also later ones."""
    pool = make_pool(2)
    fatal = pool.apply_async(tasks.kill_self, (int(number),))
    others = [pool.apply_async(tasks.double, (i,)) for i in range(50)]

    with pytest.raises(bequest.WorkerDied, match=f"{number.name}.*kill_self"):
        fatal.get(LIMIT_S)
    assert [other.get(LIMIT_S) for other in others] == list(range(0, 100, 2))
    assert pool.apply_async(tasks.double, (4,)).get(LIMIT_S) == 8


def test_one_item_of_a_map_kills(make_pool: Callable[..., Pool]) -> None:
    """Results that were not sent yet when a worker died are not lost: only one task has failed."""
    pool = make_pool(1)
    results = [pool.apply_async(tasks.kill_if, (i, 300)) for i in range(600)]
    failed = []
    for index, result in enumerate(results):
        try:
            assert result.get(LIMIT_S) == index
        except bequest.WorkerDied:
            failed.append(index)

    assert failed == [300]


def test_death_is_told_with_last_words(make_pool: Callable[..., Pool]) -> None:
    """The error of a lost task has the worker's last lines, its pid and exit code."""
    pool = make_pool(1)
    pid = pool.apply(os.getpid)

    with pytest.raises(bequest.WorkerDied) as caught:
        pool.apply(tasks.say_and_exit, ("the table is full",))

    assert (caught.value.pid, caught.value.exitcode) == (pid, 3)
    assert "the table is full" in caught.value.output
    assert "say_and_exit('the table is full')" in caught.value.task


def test_crash_is_told_with_its_traceback(make_pool: Callable[..., Pool]) -> None:
    """A crash in native code has the traceback that faulthandler writes."""
    pool = make_pool(1)

    with pytest.raises(bequest.WorkerDied, match="kill_self") as caught:
        pool.apply(tasks.kill_self, (int(signal.SIGSEGV),))

    assert "in kill_self" in caught.value.output


def test_idle_worker_dies(make_pool: Callable[..., Pool]) -> None:
    """A worker that dies without a task is replaced, and nobody else hears of it."""
    pool = make_pool(1)
    pid = pool.apply(os.getpid)
    os.kill(pid, signal.SIGKILL)

    assert pool.apply_async(os.getpid).get(LIMIT_S) != pid


def test_retries_are_opt_in(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    """A task whose worker died is run again as often as was asked for."""
    pool = make_pool(1)

    def die_once(place: str) -> str:
        if not os.path.exists(place):
            Path(place).touch()
            tasks.kill_self()
        return "done"

    assert pool.apply(die_once, (str(tmp_path / "mark"),), retries=1) == "done"


def test_initializer_that_keeps_failing_breaks_the_pool(make_pool: Callable[..., Pool]) -> None:
    """Calls raise, with what the initializer raised as the cause; workers are not started for ever."""
    pool = make_pool(1, tasks.fail_to_begin)

    with pytest.raises(bequest.PoolBrokenError, match="no such table") as caught:
        pool.apply_async(tasks.double, (1,)).get(LIMIT_S)

    assert isinstance(caught.value.__cause__, LookupError)
    with pytest.raises(bequest.PoolBrokenError):
        pool.apply_async(tasks.double, (1,)).get(LIMIT_S)


def test_exceptions_arrive_whole(make_pool: Callable[..., Pool]) -> None:
    """An exception keeps class, attributes, cause and notes, and has the remote traceback."""
    pool = make_pool(1)

    with pytest.raises(tasks.DemandingError, match="row 7: no date") as caught:
        pool.apply(tasks.raise_demanding)

    error = caught.value
    assert error.row == 7
    assert error.__notes__ == ["a note"]
    assert isinstance(error.__cause__, KeyError)
    assert "in raise_demanding" in str(error.__cause__.__cause__)


def test_what_cannot_be_rebuilt_fails_one_task(make_pool: Callable[..., Pool]) -> None:
    """A task, or a result, that cannot be rebuilt raises where it is waited for; the pool goes on."""
    pool = make_pool(1)

    for call in ((tasks.double, (tasks.Unloadable(),)), (tasks.make_unloadable, ())):
        with pytest.raises(ValueError, match="cannot load it"):
            pool.apply_async(*call).get(LIMIT_S)
    assert pool.apply(tasks.double, (1,)) == 2


def test_what_cannot_be_sent_fails_one_task(make_pool: Callable[..., Pool]) -> None:
    """An argument that cannot be carried is the error of its own call."""
    pool = make_pool(1)
    begun = iter(i for i in range(3))
    next(begun)
    results = [pool.apply_async(tasks.double, (value,)) for value in (1, begun, 3)]

    assert (results[0].get(LIMIT_S), results[2].get(LIMIT_S)) == (2, 6)
    with pytest.raises(bequest.CarryError):
        results[1].get(LIMIT_S)


def test_timeout_stops_the_task(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    """A task that is out of time is stopped, though it may wait for ever; the next has a new worker."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    pool = make_pool(1)
    pid = pool.apply(os.getpid)

    with pytest.raises(bequest.TaskTimeoutError, match="wait_for") as caught:
        pool.apply(tasks.wait_for, (pipe,), timeout=0.2)

    assert caught.value.pid == pid
    assert pool.apply(os.getpid) != pid


def test_imap_reads_no_further_than_it_must(make_pool: Callable[..., Pool]) -> None:
    """An endless input is read as results are taken, `buffersize` tasks ahead."""
    pool = make_pool(2)
    read = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    results = pool.imap(tasks.double, numbers(), buffersize=4)

    assert [next(results) for _ in range(10)] == list(range(0, 20, 2))
    assert len(read) <= 10 + 4 + 1


def test_pool_finishes_what_nobody_takes(make_pool: Callable[..., Pool]) -> None:
    """After close() and join() all results of an iterator are there, however many."""
    pool = make_pool(2)
    results = pool.imap(tasks.double, range(5000), buffersize=3)
    pool.close()
    pool.join()

    assert sum(results) == sum(range(0, 10000, 2))


def test_function_is_sent_once(make_pool: Callable[..., Pool]) -> None:
    """What a function holds is packed once for a call, and once more only for a worker that starts later."""
    table = tasks.Table(bytes(range(256)) * 1000)
    pool = make_pool(2)
    tasks.Table.packed = 0

    assert pool.map(table.look, range(200), chunksize=1) == list(range(200))
    assert tasks.Table.packed == 1


def test_rebound_variable_is_seen_by_the_next_task(make_pool: Callable[..., Pool]) -> None:
    """A function that workers have is sent again when a name that it reads has been bound anew."""
    factor = 2
    pool = make_pool(1)

    def times(number: int) -> int:
        return number * factor

    before = pool.apply(times, (5,))
    factor = 3

    assert (before, pool.apply(times, (5,))) == (10, 15)


def test_workers_may_have_pools(make_pool: Callable[..., Pool]) -> None:
    """A task may make a pool of its own."""

    def nested(numbers: list[int]) -> list[int]:
        with bequest.Pool(1) as inner:
            return list(inner.map(tasks.double, numbers))

    assert make_pool(1).apply(nested, ([1, 2],)) == [2, 4]


def test_slow_task_does_not_hold_up_others(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    """Tasks that wait in a worker behind one that takes long are done by another."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    pool = make_pool(2)

    def work(number: int) -> Any:
        return tasks.wait_for(pipe) if number == 700 else number

    pool.map(work, range(500), 1)  # so the pool believes that it is quick
    results = [pool.apply_async(work, (number,)) for number in range(500, 2000)]
    done = [result.get(LIMIT_S) for number, result in enumerate(results, 500) if number != 700]
    Path(pipe).write_text("at last")

    assert done == [number for number in range(500, 2000) if number != 700]
    assert results[200].get(LIMIT_S) == "at last"


def test_threads_that_call_at_once(make_pool: Callable[..., Pool]) -> None:
    """No task stays behind, however the calls of several threads and their results meet."""
    pool = make_pool(2)
    wrong: list[int] = []

    def call(seed: int) -> None:
        for count in (1, 2, 70, 5, 1, 200, 3) * 30:
            results = [pool.apply_async(tasks.add, (seed, number)) for number in range(count)]
            wrong.extend(n for n, result in enumerate(results) if result.get(LIMIT_S) != seed + n)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_callbacks_may_call_and_may_fail(
    make_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A callback can make calls; what it raises is reported, and the pool goes on."""
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))
    pool = make_pool(1)
    again: list[Any] = []

    def call_again(value: int) -> None:
        again.append(pool.apply_async(tasks.double, (value,)))
        raise LookupError("the callback's own")

    assert pool.apply_async(tasks.double, (1,), callback=call_again).get(LIMIT_S) == 2
    assert again[0].get(LIMIT_S) == 4
    assert reported == [LookupError]


def test_callback_cannot_wait_for_ever(make_pool: Callable[..., Pool]) -> None:
    """A callback that waits for a task of its pool is told that this would be for ever."""
    pool = make_pool(1)
    errors: list[Exception] = []

    def wait(value: int) -> None:
        try:
            pool.apply(tasks.double, (value,))
        except RuntimeError as error:
            errors.append(error)

    pool.apply_async(tasks.double, (1,), callback=wait).get(LIMIT_S)

    assert len(errors) == 1


def test_terminate_tells_those_who_wait(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    """A result that will never come raises PoolEndedError."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    pool = make_pool(1)
    results = [pool.apply_async(tasks.wait_for, (pipe,)) for _ in range(3)]
    pool.terminate()

    for result in results:
        with pytest.raises(bequest.PoolEndedError):
            result.get(LIMIT_S)
    with pytest.raises(ValueError, match="not running"):
        pool.apply(tasks.double, (1,))


def test_workers_are_replaced_after_their_tasks(make_pool: Callable[..., Pool]) -> None:
    """A worker does `maxtasksperchild` tasks."""
    pool = make_pool(1, maxtasksperchild=2)
    pids = [pool.apply(os.getpid) for _ in range(6)]

    assert [len(set(pids[i : i + 2])) for i in (0, 2, 4)] == [1, 1, 1]
    assert len(set(pids)) == 3


def test_workers_are_replaced_when_they_have_grown(make_pool: Callable[..., Pool]) -> None:
    """A worker with more than `max_memory_per_child` is replaced after its task."""
    pool = make_pool(1, max_memory_per_child=1)

    assert len({pool.apply(os.getpid) for _ in range(3)}) == 3


def test_workers_have_the_name_that_was_given(make_pool: Callable[..., Pool]) -> None:
    """Workers are called by `name` and a number."""
    pool = make_pool(1, name="reader")

    assert pool.apply(lambda: multiprocessing.current_process().name) == "reader-1"


def test_lines_and_log_records_come_through_the_parent(
    make_pool: Callable[..., Pool], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """What workers print and log has come through the parent's stream and handlers before the result."""
    pool = make_pool(1)

    assert pool.apply(tasks.log_and_print, (5,)) == 5
    assert capsys.readouterr().out == "printed 5\n"
    assert "logged 5" in caplog.messages


HOSTILE = {
    "random": bytes(range(256)) * 8,
    "truncated": bytes(5),
    "huge": b"\x10\x70\x71\x62" + b"\x01\0\0\0" + b"\0\0\0\0\0\0\0\x7f",
    "unknown": b"\xf0\x70\x71\x62" + b"\x01\0\0\0" + bytes(8),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_end_the_worker_only(make_pool: Callable[..., Pool], content: bytes) -> None:
    """A worker that sends what no worker sends is ended, whatever becomes of its task; the pool goes on."""
    pool = make_pool(1)
    pid = pool.apply(os.getpid)
    with contextlib.suppress(bequest.WorkerDied):
        pool.apply_async(tasks.write_into_channel, (content,)).get(LIMIT_S)

    assert pool.apply_async(tasks.double, (1,)).get(LIMIT_S) == 2
    assert pool.apply_async(os.getpid).get(LIMIT_S) != pid


@pytest.mark.parametrize("content", [b"(\xff\xff\xff\x7f", b"c", b""])
def test_hostile_atom_is_refused(content: bytes) -> None:
    """What claims to be a plain value and is something else, perhaps of an enormous size, is not loaded."""
    with pytest.raises((ValueError, IndexError)):
        _load_atom(memoryview(content))


ATOMS = (0, -1, 1 << 70, True, None, -0.0, float("inf"), 2.5e-320, 3 - 4j, b"\0\xff", "\udc80\u20ac", "", b"")


def test_plain_values_are_what_they_were(make_pool: Callable[..., Pool]) -> None:
    """Numbers, texts and bytes, as arguments, items and results, come as they went."""
    pool = make_pool(1)
    told = [repr(value) for value in ATOMS]

    assert [repr(pool.apply(tasks.give_back, (value,))) for value in ATOMS] == told
    assert [repr(value) for value in pool.map(tasks.give_back, ATOMS, 1)] == told
    assert [repr(value) for value in pool.map(tasks.give_back, ATOMS, 4)] == told


def test_interrupt_ends_the_task_not_the_worker(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    """SIGINT, as ^C sends it to all, ends a task with KeyboardInterrupt; an idle worker does not mind."""
    pool = make_pool(1)
    pid = pool.apply(os.getpid)
    os.kill(pid, signal.SIGINT)

    assert pool.apply(os.getpid) == pid

    def interrupt_self() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()

    with pytest.raises(KeyboardInterrupt):
        pool.apply_async(interrupt_self).get(LIMIT_S)
    assert pool.apply(os.getpid) == pid


class OfItsOwnQueues(bequest.pool.Pool):
    """As joblib's pool: it makes the queues of the standard one anew."""

    def _setup_queues(self) -> None:
        super()._setup_queues()
        self.has_queues = True


class OfMore(bequest.pool.Pool):
    """What most programs derive."""

    def twice(self, number: int) -> int:
        """Return twice the number, from a worker."""
        return int(self.apply(tasks.double, (number,))) * len(self._pool)


def test_what_is_derived_from_the_standard_pools_inside_stays_so(method: str) -> None:
    """A class that overrides the standard pool's machinery has that; any other has the engine."""
    context = bequest.get_context(method)
    with OfItsOwnQueues(1, context=context) as pool:
        assert (pool.apply(tasks.double, (2,)), pool.has_queues) == (4, True)
    assert not issubclass(OfItsOwnQueues, bequest.pool.Pool)
    with OfMore(1, context=context) as pool:
        assert pool.twice(2) == 4
    assert issubclass(OfMore, bequest.pool.Pool)
