"""Locks, threads and what is built of them, carried within one process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from objects_packing import again

LIMIT_S = 30.0


@contextmanager
def elsewhere(hold: Callable[[threading.Event, threading.Event], None]) -> Iterator[None]:
    """Run `hold(held, done)` in another thread while the block runs."""
    held, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=hold, args=(held, done))
    thread.start()
    assert held.wait(LIMIT_S)
    try:
        yield
    finally:
        done.set()
        thread.join(LIMIT_S)


@pytest.fixture
def another_thread() -> Iterator[None]:
    """Keep a thread running that holds nothing."""

    def idle(held: threading.Event, done: threading.Event) -> None:
        held.set()
        done.wait(LIMIT_S)

    with elsewhere(idle):
        yield


class Owner:
    """Has locks in a slot, a list and a dict."""

    __slots__ = ("by_name", "in_list", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.in_list = [threading.Lock()]
        self.by_name = {"a": threading.Lock()}


def test_free_lock_stays_free() -> None:
    """A lock that nobody holds can be taken."""
    assert again(threading.Lock()).acquire(blocking=False)


def test_lock_of_the_only_thread_stays_locked() -> None:
    """A lock that is locked while no other thread runs is locked, and can be released."""
    lock = threading.Lock()
    lock.acquire()
    copy = again(lock)
    assert copy.locked()
    copy.release()


@pytest.mark.usefixtures("another_thread")
def test_lock_held_in_a_with_block_of_this_thread_is_locked() -> None:
    """The starting thread stands inside `with`: held, however the lock is named."""
    owner, condition = Owner(), threading.Condition(threading.Lock())
    with owner.lock, owner.in_list[0], condition:
        key = "a"
        with owner.by_name[key]:
            locks = (owner.lock, owner.in_list[0], owner.by_name[key], condition._lock)  # type: ignore[attr-defined]
            assert [copy.locked() for copy in again(locks)] == [True] * 4


@pytest.mark.usefixtures("another_thread")
def test_lock_acquired_by_this_thread_is_locked() -> None:
    """The starting thread stands behind `acquire()` and before `release()`: held."""
    lock = threading.Lock()
    lock.acquire()
    try:
        assert again(lock).locked()
    finally:
        lock.release()
    assert not again(lock).locked()


def test_lock_held_by_another_thread_is_free() -> None:
    """What another thread holds is free: that thread is not in the child."""
    lock, gate = threading.Lock(), threading.Lock()

    def hold(held: threading.Event, done: threading.Event) -> None:
        with lock:
            gate.acquire()
            held.set()
            done.wait(LIMIT_S)
            gate.release()

    with elsewhere(hold):
        assert [copy.locked() for copy in again((lock, gate))] == [False, False]


def test_lock_left_by_a_with_block_is_not_held_by_this_thread() -> None:
    """A `with` block that this frame has left says nothing of who holds the lock now."""
    lock = threading.Lock()
    with lock:
        pass

    def hold(held: threading.Event, done: threading.Event) -> None:
        with lock:
            held.set()
            done.wait(LIMIT_S)

    with elsewhere(hold):
        assert not again(lock).locked()


def test_lock_in_a_queue_item_is_free() -> None:
    """A message that starts nothing carries locks that nobody holds."""
    lock, rlock = threading.Lock(), threading.RLock()
    with lock, rlock:
        copies = again((lock, rlock), starting=False)
        assert all(copy.acquire(blocking=False) for copy in copies)


def test_rlock_is_held_as_often_as_this_thread_holds_it() -> None:
    """A reentrant lock keeps its count where the starting thread holds it."""
    lock = threading.RLock()
    with lock, lock:
        copy = again(lock)
    assert copy._recursion_count() == 2
    assert copy._is_owned()


def test_rlock_and_condition_of_another_thread_are_free() -> None:
    """Another thread's reentrant lock and condition can be taken; who waits there is gone."""
    lock, condition = threading.RLock(), threading.Condition()

    def hold(held: threading.Event, done: threading.Event) -> None:
        with lock, lock, condition:
            held.set()
            done.wait(LIMIT_S)

    with elsewhere(hold):
        free_lock, free_condition = again((lock, condition))
        assert free_lock.acquire(blocking=False)
        assert free_condition.acquire(blocking=False)


def test_rlock_in_python_keeps_its_count() -> None:
    """threading's own implementation in Python is carried like the one in C."""
    lock = threading._RLock()
    with lock, lock:
        copy = again(lock)
    assert (copy._count, copy._is_owned()) == (2, True)
    assert again(threading._RLock()).acquire(blocking=False)


def test_condition_follows_its_lock() -> None:
    """Two conditions on one lock share one lock in the child, and notify works."""
    lock = threading.Lock()
    left, right = again((threading.Condition(lock), threading.Condition(lock)))
    assert left._lock is right._lock
    with left:
        assert not right._lock.acquire(blocking=False)
        left.notify_all()
    assert left.acquire.__self__ is left._lock


def test_event_semaphore_barrier_keep_their_state() -> None:
    """What an Event, a Semaphore and a Barrier say stays; who waited at the barrier is gone."""
    event, semaphore, barrier = threading.Event(), threading.BoundedSemaphore(2), threading.Barrier(2)
    event.set()
    semaphore.acquire()

    def wait(held: threading.Event, done: threading.Event) -> None:
        held.set()
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait(LIMIT_S)

    with elsewhere(wait):
        copies = again((event, semaphore, barrier))
        barrier.abort()
    assert copies[0].is_set()
    assert copies[1]._value == 1
    assert (copies[2].parties, copies[2].n_waiting, copies[2].broken) == (2, 0, False)
    assert again(barrier).broken


class Worker(threading.Thread):
    """A thread with a result, and a slot of its own."""

    __slots__ = ("extra",)

    def __init__(self) -> None:
        super().__init__(name="worker", daemon=True)
        self.result: Any = None
        self.extra = "slot"
        self.copy: Any = None

    def run(self) -> None:
        """Keep what a child would see."""
        self.result = "ran"


def test_thread_that_was_not_started_can_be_started() -> None:
    """A new thread is new in the child."""
    copy = again(Worker())
    assert (copy.name, copy.daemon, copy.ident, copy.is_alive(), copy.extra) == (
        "worker",
        True,
        None,
        False,
        "slot",
    )
    copy.start()
    copy.join(LIMIT_S)
    assert copy.result == "ran"


def test_timer_that_was_not_started_fires_in_the_child() -> None:
    """A Timer is a thread like others."""
    items: list[int] = []
    copy, items = again((threading.Timer(0, items.append, (1,)), items))
    copy.start()
    copy.join(LIMIT_S)
    assert items == [1]


def test_finished_thread_stays_finished() -> None:
    """A thread that has run is over, under its name, and can be joined."""
    worker = Worker()
    worker.start()
    worker.join(LIMIT_S)
    copy = again(worker)
    copy.join(LIMIT_S)
    assert (copy.is_alive(), copy.ident, copy.result) == (False, worker.ident, "ran")
    with pytest.raises(RuntimeError):
        copy.start()


def test_running_thread_is_over() -> None:
    """A thread that runs in the parent is over in the child, and joins at once."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait, args=(LIMIT_S,), name="ticker")
    thread.start()
    copy = again(thread)
    copy.join(LIMIT_S)
    assert (copy.name, copy.is_alive(), thread.is_alive()) == ("ticker", False, True)
    assert "stopped" in repr(copy)
    done.set()
    thread.join(LIMIT_S)


def test_main_thread_is_the_main_thread() -> None:
    """The main thread, and a plain thread that starts the child, are the child's main thread."""
    assert again(threading.main_thread()) is threading.main_thread()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(again(threading.current_thread())))
    thread.start()
    thread.join(LIMIT_S)
    assert found == [threading.main_thread()]


class Values(threading.local):
    """Thread-local values with a default that takes an argument."""

    def __init__(self, first: int, *, second: int = 0) -> None:
        self.first, self.second = first, second


def test_local_has_the_values_of_this_thread() -> None:
    """A thread-local object has this thread's values; other threads get what its class gives them."""
    local, values = threading.local(), Values(1, second=2)
    local.name, values.first = "main", 10
    local_copy, copy = again((local, values))
    assert (local_copy.name, copy.first, copy.second) == ("main", 10, 2)
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.append((copy.first, copy.second, hasattr(local_copy, "name")))
    )
    thread.start()
    thread.join(LIMIT_S)
    assert found == [(1, 2, False)]


@pytest.mark.parametrize("kind", [queue.Queue, queue.LifoQueue, queue.PriorityQueue])
def test_queue_keeps_its_items(kind: type[queue.Queue[int]]) -> None:
    """A queue is copied: same items, same order, same count of work to do."""
    original = kind(5)
    for item in (3, 1, 2):
        original.put(item)
    copy = again(original)
    assert [copy.get_nowait() for _ in range(3)] == [original.get_nowait() for _ in range(3)]
    assert (copy.maxsize, copy.unfinished_tasks) == (5, 3)


@pytest.mark.parametrize("items", [[], [None], [[1], [2]], [[]], [None, 1, None, list], [list(range(9))]])
@pytest.mark.parametrize("taken", [0, 4])
def test_simple_queue_keeps_its_items(items: list[Any], taken: int) -> None:
    """A SimpleQueue is copied without a loss, whatever it holds and however much was taken before."""
    original: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(taken):
        original.put(None)
    for item in items:
        original.put(item)
    for _ in range(taken):
        original.get()
    copy = again(original)
    assert [copy.get_nowait() for _ in range(copy.qsize())] == items
    assert original.qsize() == len(items)


def test_thread_pool_works_afresh() -> None:
    """A pool that has worked, and was given an initializer, works in the child with threads of its own."""
    ready: list[str] = []
    with ThreadPoolExecutor(2, "svc", initializer=ready.append, initargs=("ready",)) as pool:
        assert list(pool.map(str.upper, "ab")) == ["A", "B"]
        copy = again(pool)
    with copy:
        assert list(copy.map(str.upper, "ab")) == ["A", "B"]
    assert copy._thread_name_prefix == "svc"
    with pytest.raises(RuntimeError):
        again(pool).submit(len, "a")


def test_future_keeps_its_outcome() -> None:
    """A future that is done has its result or exception; a pending one can be resolved in the child."""
    done: Future[int] = Future()
    failed: Future[int] = Future()
    done.add_done_callback(lambda _: None)
    done.set_result(1)
    failed.set_exception(KeyError("k"))
    copies = again((done, failed, Future()))
    assert copies[0].result(0) == 1
    assert isinstance(copies[1].exception(0), KeyError)
    assert not copies[2].done()
    copies[2].set_result(3)
    assert copies[2].result(0) == 3
