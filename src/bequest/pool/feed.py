"""Read a job's input as its outcomes are taken, and no further ahead than serves the workers.

    input -> Feed (in a thread of its own, or the caller's) -> tasks -> Engine -> outcomes -> Stream -> next()

How far ahead is a window of parts that are on their way: given by the caller, or else a few at first, twice
as many each time that the reader of the outcomes has had to wait, up to a bound that keeps workers busy with
the smallest tasks. So endless inputs work, and a slow reader does not fill the memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import TimeoutError as _TimeoutError
from typing import TYPE_CHECKING, Any

from bequest.pool.engine import Engine
from bequest.pool.result import Part
from bequest.pool.task import EndedError

if TYPE_CHECKING:
    from bequest.pool.task import Task

_AHEAD_FOR_WORKER = 1024
_END: Any = (None, None)
_LOOK_S = 1.0  # how long a wait for room lasts until the engine is asked whether it still runs


class Window:
    """How many parts may be on their way. One thread takes room, any number give it back.

    Args:
        size: How many at first.
        most: How many at most.

    Attributes:
        size: How many.
        is_fixed: Whether `size` was asked for.
    """

    def __init__(self, size: int, most: int) -> None:
        self.size, self._most = size, most
        self.is_fixed = size == most
        self._on_way = 0
        self._left: int | None = None  # of a frozen one: for how many parts there still is room
        self._is_stopped = False
        self._condition = threading.Condition(threading.Lock())

    def take(self) -> bool:
        """Take room for one part, waiting for it; False where there will be none."""
        with self._condition:
            if self._left is not None:
                self._left -= 1
                return self._left >= 0 and not self._is_stopped
            if self._on_way >= self.size:
                # Not for a single place: to be woken up for each part would cost more than the part.
                while self._on_way > self.size * 3 // 4 and self._on_way > 0 and not self._is_stopped:
                    self._condition.wait(_LOOK_S)
                    if self._left is not None:
                        return False
            self._on_way += 1
            return not self._is_stopped

    def give(self, count: int = 1) -> None:
        """Give room back."""
        with self._condition:
            self._on_way -= count
            if self._on_way <= self.size * 3 // 4:
                self._condition.notify()

    def widen(self) -> None:
        """Let twice as many be on their way, up to the bound."""
        with self._condition:
            self.size = max(self.size, min(2 * self.size, self._most))
            self._condition.notify()

    def open(self) -> None:
        """Let any number be on their way."""
        with self._condition:
            self.size = self._most = 1 << 62
            self._condition.notify()

    def freeze(self) -> None:
        """Let no more be on their way than fit in now, whatever room is given back."""
        with self._condition:
            if self._left is None:
                self._left = max(0, self.size - self._on_way)
            self._condition.notify()

    def finish(self) -> None:
        """Let the input be read to its end; but no further than it fits in where a size was asked for."""
        self.freeze() if self.is_fixed else self.open()

    def stop(self) -> None:
        """Let nobody wait any more: there is nothing to be done with it."""
        with self._condition:
            self._is_stopped = True
            self._condition.notify()


class Feed:
    """Turns an input into tasks of a job, as far as the window reaches.

    Args:
        engine: Which does them.
        window: How far ahead.
        tasks: Yields the tasks, in order, each with the error that it could not be packed for, or None; what
            it raises is the error of the part that would have come next.
        on_end: Told, in the engine's thread, how many parts there are, and the error behind them or None.
    """

    def __init__(
        self,
        engine: Engine,
        window: Window,
        tasks: Iterator[tuple[Task, BaseException | None]],
        on_end: Callable[[int, BaseException | None], None],
    ) -> None:
        self._engine, self.window = engine, window
        self._tasks, self._on_end = tasks, on_end

    def start(self) -> None:
        """Feed in a thread of its own; the engine does not end before it has.

        Raises:
            RuntimeError: There are no more threads to be had, as when the interpreter ends.
        """
        self._engine.sources.append(self)
        try:
            threading.Thread(target=self.run, name="bequest-feed", daemon=True).start()
        except BaseException:
            self._engine.sources.remove(self)
            raise

    def run(self) -> None:
        """Feed until the input is at its end."""
        count = 0
        error: BaseException | None = None
        engine, window = self._engine, self.window
        try:
            while window.take():
                task, refused = next(self._tasks, _END)
                if task is None:
                    break
                count += 1
                if refused is None:
                    engine.submit(task)
                else:
                    engine.call_soon(task.complete, False, refused)
            else:
                error = engine.outcomes.unread()
        except EndedError:
            count, error = count - 1, engine.error()
        except BaseException as caught:  # noqa: BLE001 - of the user's input; it is told where it is waited for
            error = caught
        finally:
            if self in engine.sources:
                engine.sources.remove(self)
            engine.call_soon(self._on_end, count, error)
            self._tasks = iter(())


class Stream:
    """The outcomes of a job on their way to who iterates over them; set in the engine's thread.

    Attributes:
        window: Of the feed.
        is_abandoned: Whether nobody will iterate any more: then parts make room when they are done.
        is_cancelled: Whether parts that have not begun are not wanted any more.
    """

    def __init__(self, window: Window, is_ordered: bool) -> None:
        self.window = window
        self.is_abandoned = self.is_cancelled = False
        self._is_ordered = is_ordered
        self._condition = threading.Condition(threading.Lock())
        self._items: deque[tuple[bool, Any]] = deque()
        self._early: dict[int, tuple[bool, Any]] = {}
        self._arrived = 0
        self._length: int | None = None
        self._waiting = 0

    def _set_part(self, index: int, is_good: bool, value: Any) -> None:
        """Take the outcome of one part."""
        if self.is_abandoned:
            self.window.give()
            return
        if not self._is_ordered or index == self._arrived:
            self._items.append((is_good, value))
            self._arrived += 1
            while self._early and self._arrived in self._early:
                self._items.append(self._early.pop(self._arrived))
                self._arrived += 1
            if self._waiting:
                with self._condition:
                    self._condition.notify()
        else:
            self._early[index] = (is_good, value)

    def end(self, count: int, error: BaseException | None) -> None:
        """Take how many parts there are, and the error that stands behind them, if one does."""
        if error is not None:
            self._set_part(count, False, error)
            count += 1
        with self._condition:
            self._length = count
            self._condition.notify_all()

    def abandon(self) -> None:
        """Know that nobody will iterate any more."""
        self.is_abandoned = True
        count = len(self._items) + len(self._early)
        self._items.clear()
        self._early.clear()
        self.window.give(count)

    def close(self) -> None:
        """Have no more results: whoever asks for one is told that there are none."""
        self.abandon()
        with self._condition:
            self._length = self._arrived
            self._condition.notify_all()

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result, waiting for it, or raise the next error.

        Raises:
            StopIteration: There are no more.
            multiprocessing.TimeoutError: There is none after `timeout` seconds.
        """
        try:
            item = self._items.popleft()
        except IndexError:
            item = self._wait(timeout)
        self.window.give()
        is_good, value = item
        if is_good:
            return value
        raise value

    def _wait(self, timeout: float | None) -> tuple[bool, Any]:
        with self._condition:
            self._waiting += 1
            try:
                if not self._items and self._arrived != self._length:
                    self.window.widen()
                self._condition.wait_for(lambda: self._items or self._arrived == self._length, timeout)
            finally:
                self._waiting -= 1
            if self._items:
                return self._items.popleft()
            if self._arrived == self._length:
                raise StopIteration
            raise _TimeoutError


def parts(
    job: Any, make: Callable[[Part, Any], None], items: Iterable[Any]
) -> Iterator[tuple[Part, BaseException | None]]:
    """Yield a task for each item; `make` fills in function and payload, and its error is that of the part."""
    for index, item in enumerate(items):
        part = Part(job, index)
        try:
            make(part, item)
        except Exception as error:  # noqa: BLE001 - what cannot be sent fails its own part only
            yield part, error
        else:
            yield part, None


def usual_window(workers: int, buffersize: int | None) -> Window:
    """Return the window of a job.

    Args:
        workers: How many there are.
        buffersize: How many parts may be on their way, or None for what serves.
    """
    if buffersize is not None:
        return Window(buffersize, buffersize)
    return Window(2 * workers + 2, _AHEAD_FOR_WORKER * workers)
