"""Selectors, asyncio's objects, generators and coroutines, carried within one process."""

from __future__ import annotations

import asyncio
import select
import selectors
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
from objects_packing import again

from bequest.carry.registry import NotCarriedError

LIMIT_S = 30.0


# -- selectors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [selectors.DefaultSelector, selectors.PollSelector, selectors.SelectSelector]
)
def test_selector_watches_what_was_registered(kind: type[selectors.BaseSelector]) -> None:
    """A selector reports the copies of what the parent registered, and a closed one is closed."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with kind() as selector:
            selector.register(theirs, selectors.EVENT_READ, data="mail")
            copy, sock = again([selector, theirs])
            with copy, sock:
                ours.sendall(b"hi")
                ready = copy.select(LIMIT_S)
                assert [(key.data, key.fileobj) for key, _ in ready] == [("mail", sock)]
                assert sock.recv(2) == b"hi"
        assert again(selector).get_map() is None


class Connection:
    """Registers itself with a selector that it holds: a cycle through what is registered."""

    def __init__(self, selector: selectors.BaseSelector, sock: socket.socket) -> None:
        self.selector, self.sock = selector, sock
        selector.register(self, selectors.EVENT_READ)

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self.sock.fileno()


@pytest.mark.parametrize("first", ["connection", "selector"])
def test_selector_in_a_cycle(first: str) -> None:
    """What is registered may hold the selector, whichever of them comes first."""
    ours, theirs = socket.socketpair()
    with ours, theirs, selectors.DefaultSelector() as selector:
        connection = Connection(selector, theirs)
        if first == "connection":
            copy = again(connection)
        else:
            (copy,) = (key.fileobj for key in again(selector).get_map().values())
        with copy.selector, copy.sock:
            ours.sendall(b"hi")
            assert [key.fileobj for key, _ in copy.selector.select(LIMIT_S)] == [copy]
            assert copy.selector.get_key(copy).fileobj is copy


def test_epoll_that_watches_nothing_is_fresh() -> None:
    """An unused epoll object is made anew; one that watches something, and a poll object, are refused."""
    ours, theirs = socket.socketpair()
    with ours, theirs, select.epoll() as epoll:
        with again(epoll) as copy:
            assert copy.poll(0) == []
        epoll.register(ours)
        with pytest.raises(NotCarriedError):
            again(epoll)
    assert again(epoll).closed
    with pytest.raises(NotCarriedError):
        again(select.poll())


# -- asyncio -------------------------------------------------------------------------------------------------


def test_asyncio_objects_work_in_another_loop() -> None:
    """Locks, events, semaphores and queues, made outside a loop or used in one, work in the child's loop."""
    jobs: asyncio.PriorityQueue[int] = asyncio.PriorityQueue(3)
    lock, event, semaphore = asyncio.Lock(), asyncio.Event(), asyncio.BoundedSemaphore(2)

    async def use(jobs: Any, lock: Any, event: Any, semaphore: Any) -> list[int]:
        await semaphore.acquire()
        async with asyncio.Condition(lock):
            pass
        return [await jobs.get() for _ in range(jobs.qsize())]

    async def used_here() -> list[Any]:
        waiter = asyncio.ensure_future(event.wait())
        blocked = asyncio.ensure_future(jobs.join())
        await lock.acquire()
        await asyncio.sleep(0)
        copies = again([jobs, lock, event, semaphore])
        lock.release()
        waiter.cancel()
        blocked.cancel()
        return list(copies)

    for item in (2, 1, 3):
        jobs.put_nowait(item)
    copies = asyncio.run(used_here())
    assert copies[1].locked()
    copies[1].release()
    assert asyncio.run(use(*copies)) == [1, 2, 3]
    assert copies[3]._value == 1


def test_loop_is_fresh_unless_it_works() -> None:
    """A loop that does nothing is made anew, a closed one is closed, one that runs or waits is refused."""
    loop = asyncio.new_event_loop()
    copy = again(loop)
    assert copy.run_until_complete(asyncio.sleep(0, "slept")) == "slept"
    copy.close()
    loop.call_soon(print)
    with pytest.raises(NotCarriedError):
        again(loop)
    loop.close()
    assert again(loop).is_closed()

    async def inside() -> None:
        with pytest.raises(NotCarriedError, match="runs"):
            again(asyncio.get_running_loop())
        for mine in (asyncio.current_task(), asyncio.get_running_loop().create_future()):
            with pytest.raises(NotCarriedError, match="loop"):
                again(mine)

    asyncio.run(inside())


# -- generators ----------------------------------------------------------------------------------------------


def numbers(first: int, *rest: int, step: int = 1, **names: int) -> Iterator[Any]:
    """Yield all arguments."""
    yield first
    yield rest
    yield step
    yield names


def test_unstarted_generator_begins_in_the_child() -> None:
    """A generator that has not begun has its arguments, whatever their kind; the parent's is not touched."""
    generator = numbers(1, 2, 3, step=4, five=5)
    expected = [1, (2, 3), 4, {"five": 5}]
    copy = again(generator)
    assert (list(copy), list(generator), copy.__qualname__) == (expected, expected, "numbers")


def test_generator_that_has_begun_is_refused() -> None:
    """A stack cannot be carried, and the refusal says what to do."""
    generator = numbers(1)
    next(generator)
    with pytest.raises(NotCarriedError) as caught:
        again(generator)
    assert "list" in caught.value.remedy


def test_finished_generator_is_finished() -> None:
    """A generator that is over yields nothing."""
    generator: Any = numbers(1)
    generator.close()
    copy = again(generator)
    assert (list(copy), copy.__name__) == ([], "numbers")


class Client:
    """Keeps a coroutine of its own: a cycle."""

    def __init__(self) -> None:
        self.pending = self.fetch(2)

    async def fetch(self, times: int) -> tuple[Any, int]:
        """Return who was asked."""
        return self, times


@pytest.mark.parametrize("root", [lambda client: client, lambda client: client.pending])
def test_unstarted_coroutine_begins_in_the_child(root: Callable[[Client], Any]) -> None:
    """A coroutine that has not begun runs in the child, also where its own arguments hold it."""
    client = Client()
    copy = again(root(client))
    coroutine: Coroutine[Any, Any, Any] = getattr(copy, "pending", copy)
    owner, times = asyncio.run(coroutine)
    assert (owner.pending is coroutine, times) == (True, 2)
    client.pending.close()
    again(client.pending).close()


def test_coroutine_that_has_begun_is_refused() -> None:
    """A coroutine that waits for something belongs to its loop."""

    async def inside() -> None:
        task = asyncio.ensure_future(asyncio.sleep(LIMIT_S))
        await asyncio.sleep(0)
        with pytest.raises(NotCarriedError, match="begun"):
            again(task.get_coro())
        task.cancel()

    asyncio.run(inside())


async def ticks(count: int) -> AsyncIterator[int]:
    """Yield numbers."""
    for number in range(count):
        yield number


async def collect(source: AsyncIterator[int]) -> list[int]:
    """Return all that an asynchronous generator yields."""
    return [number async for number in source]


def test_async_generators() -> None:
    """An asynchronous generator is carried before it begins and after it has ended, not between."""

    async def inside() -> None:
        source = ticks(2)
        assert await collect(again(source)) == [0, 1]
        await source.__anext__()
        with pytest.raises(NotCarriedError, match="begun"):
            again(source)
        assert await collect(source) == [1]
        assert await collect(again(source)) == []

    asyncio.run(inside())
