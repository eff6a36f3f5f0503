"""What the methods of a pool return at once: the results of `multiprocessing.pool`, made for many.

    apply_async -> ApplyResult: itself the task      map_async -> MapResult <- parts, a task for each chunk

A result makes what a waiting thread needs only when one waits. Setter and waiter agree without a lock: the
one sets `_is_done`, then looks for waiters; the other adds itself to them, then looks at `_is_done`.
"""

from __future__ import annotations

import threading
import types
from _thread import allocate_lock
from collections.abc import Callable
from multiprocessing import TimeoutError as _TimeoutError
from typing import TYPE_CHECKING, Any

from bequest.pool import standard
from bequest.pool.task import Task

if TYPE_CHECKING:
    from bequest.pool.pool import Pool

# The standard classes, so that `isinstance` holds for those who ask for them; nothing of theirs is used.
_plain = standard.module("multiprocessing.pool")
_PlainApplyResult: Any = _plain.ApplyResult
_PlainMapResult: Any = _plain.MapResult

_making_waiters = threading.Lock()


_OF_AWAITED = ("_callback", "_error_callback", "_is_done", "_pool", "_success", "_value", "_waiters")


class Awaited:
    """Something that is done once, and that threads wait for. What derives from it has the slots above.

    Attributes:
        _pool: The pool, kept alive until it is done.
    """

    _pool: Pool | None
    _waiters: list[Any] | None

    def __init__(
        self,
        pool: Pool,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        self._pool, self._callback, self._error_callback = pool, callback, error_callback
        self._is_done, self._waiters = False, None
        self._success: bool | None = None
        self._value: Any = None

    def ready(self) -> bool:
        """Return whether the call has completed."""
        return self._is_done

    def successful(self) -> bool:
        """Return whether the call completed without raising.

        Raises:
            ValueError: It has not completed.
        """
        if not self._is_done:
            raise ValueError(f"{self!r} not ready")
        return bool(self._success)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the result is there, or `timeout` seconds have passed.

        Raises:
            RuntimeError: The caller is a callback, which holds up all results of its pool: it would wait for
                ever.
        """
        if self._is_done:
            return
        pool = self._pool
        if pool is not None and timeout is None and pool._engine.is_in_callback() and not self._is_done:
            raise RuntimeError("a callback of a pool cannot wait for a task of the same pool")
        bell = allocate_lock()
        bell.acquire()
        if self._waiters is None:
            with _making_waiters:
                if self._waiters is None:
                    self._waiters = []
        self._waiters.append(bell)
        if not self._is_done:
            bell.acquire(timeout=-1 if timeout is None else max(0.0, min(timeout, threading.TIMEOUT_MAX)))

    def get(self, timeout: float | None = None) -> Any:
        """Return the result when it is there; raise what the call raised.

        Raises:
            multiprocessing.TimeoutError: It is not there after `timeout` seconds.
        """
        if not self._is_done:
            self.wait(timeout)
            if not self._is_done:
                raise _TimeoutError
        if self._success:
            return self._value
        raise self._value

    def _finish(self, is_good: bool, value: Any) -> None:
        """Set the outcome, call back, and wake whoever waits."""
        self._success, self._value = is_good, value
        callback = self._callback if is_good else self._error_callback
        if callback is not None:
            try:
                callback(value)
            except BaseException as error:  # noqa: BLE001 - a callback's fault must not stop the others' results
                _report(error)
        self._is_done = True
        if self._waiters is not None:
            for bell in self._waiters:
                bell.release()
        self._pool = self._callback = self._error_callback = None

    __class_getitem__: Any = classmethod(types.GenericAlias)


class ApplyResult(Awaited, Task, _PlainApplyResult):  # type: ignore[misc]  # see `_PlainApplyResult`
    """The result of `Pool.apply_async`."""

    __slots__ = _OF_AWAITED

    def complete(self, is_good: bool, value: Any) -> None:
        """Take the outcome."""
        self.release()
        self._finish(is_good, value)


AsyncResult = ApplyResult


class MapResult(Awaited, _PlainMapResult):  # type: ignore[misc]  # as above
    """The result of `Pool.map_async` and `Pool.starmap_async`: ready when all parts are done.

    Parts are told in one thread, the engine's.
    """

    is_cancelled = False

    __slots__ = (*_OF_AWAITED, "_chunksize", "_on_part", "_parts", "_parts_left")

    def __init__(
        self,
        pool: Pool,
        chunksize: int,
        length: int,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        super().__init__(pool, callback, error_callback)
        self._success = True
        self._value = [None] * length
        self._chunksize = chunksize
        self._on_part: Callable[[], None] | None = None
        self._parts = self._parts_left = -(-length // chunksize) if chunksize > 0 else 0
        if not self._parts_left:
            self._pool = None
            self._is_done = True

    def _tell_parts(self, hear: Callable[[], None]) -> None:
        """Call `hear` for each part that is done."""
        self._on_part = hear

    def _set_part(self, index: int, is_good: bool, value: Any) -> None:
        """Take the outcome of one part; the first error is the one that is raised, when all are done."""
        if is_good and self._success:
            if self._chunksize == 1:
                self._value[index] = value
            else:
                self._value[index * self._chunksize : (index + 1) * self._chunksize] = value
        elif not is_good and self._success:
            self._success, self._value = False, value
        self._parts_left -= 1
        if self._on_part is not None:
            self._on_part()
        if self._parts_left == 0:
            self._finish(bool(self._success), self._value)

    def _end(self, count: int, error: BaseException | None) -> None:
        """Take that the input has come to its end, after `count` parts."""
        if error is not None:
            self._fail_from(count, error)
        elif count < self._parts:
            self._fail_from(count, ValueError("the input is shorter than it said"))

    def _fail_from(self, index: int, error: BaseException) -> None:
        """Take the error of the part `index`, behind which there will be no other."""
        self._parts_left -= self._parts - index - 1
        self._set_part(index, False, error)


class Part(Task):
    """One chunk, or one item, of a job that takes the outcomes of many."""

    __slots__ = ("_index", "_job")

    def __init__(self, job: Any, index: int) -> None:
        self._job, self._index = job, index

    def begins(self) -> bool:
        """Return whether the job is still wanted."""
        if self._job.is_cancelled:
            self._job = None
            return False
        return True

    def cancel(self) -> bool:
        """Give up the part, and its job with it."""
        self._job.is_cancelled = True
        return True

    def complete(self, is_good: bool, value: Any) -> None:
        """Hand the outcome to the job."""
        self.release()
        job, self._job = self._job, None
        job._set_part(self._index, is_good, value)


def _report(error: BaseException) -> None:
    """Report an error of a callback as one of a thread that nobody waits for."""
    threading.excepthook(
        threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
    )
