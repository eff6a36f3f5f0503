"""Futures that are tasks themselves, and cost little until somebody waits for them.

    Executor.submit -> Future (a Task) -> engine -> complete -> result(), callbacks, wait(), asyncio

`concurrent.futures.Future` makes a condition and two lists for each; here the first who needs them does. The
setter and the one who waits agree without a lock: one sets the state, then looks for a condition; the other
makes the condition, then looks at the state.
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, _base
from typing import TYPE_CHECKING, Any

from bequest.pool.task import Task

if TYPE_CHECKING:
    from bequest.pool.engine import Engine

_PENDING, _RUNNING, _FINISHED = _base.PENDING, _base.RUNNING, _base.FINISHED
_CANCELLED = (_base.CANCELLED, _base.CANCELLED_AND_NOTIFIED)
_making_condition = threading.Lock()


class Future(Task, _base.Future[Any]):
    """The result of `ProcessPoolExecutor.submit`; see `concurrent.futures.Future`.

    `running` is true once a worker has begun the call, and `cancel` takes back one that waits in a worker.
    """

    _state = _PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _made: threading.Condition | None = None

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine | None = engine

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]  # an attribute in the base
        if self._made is None:
            with _making_condition:
                if self._made is None:
                    self._waiters: list[Any] = []
                    self._done_callbacks: list[Any] = []
                    self._made = threading.Condition()
        return self._made

    def complete(self, is_good: bool, value: Any) -> None:
        """Take the outcome; of one that has been cancelled there is none."""
        if self._state in _CANCELLED:
            return
        self.release()
        self._engine = None
        if is_good:
            self._result = value
        else:
            self._exception = value
        self._state = _FINISHED
        if self._made is not None:
            with self._made:
                for waiter in self._waiters:
                    waiter.add_result(self) if is_good else waiter.add_exception(self)
                self._made.notify_all()
            self._invoke_callbacks()  # type: ignore[attr-defined]  # private, the same in all versions

    def begins(self) -> bool:
        """Return whether it has not been cancelled."""
        return self._state == _PENDING

    def cancel(self) -> bool:
        """Cancel the call, unless it has begun; return whether it is cancelled."""
        engine = self._engine
        if self._state in _CANCELLED:
            return True
        if self._state != _PENDING or engine is None or not engine.cancel(self):
            return False
        with self._condition:
            self._state = _base.CANCELLED_AND_NOTIFIED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        self._engine = None  # the rest is looked at once more when it is passed over
        self._invoke_callbacks()  # type: ignore[attr-defined]  # as above
        return True

    def running(self) -> bool:
        """Return whether a worker is at it."""
        engine = self._engine
        return self._state == _RUNNING or (
            self._state == _PENDING and engine is not None and engine.has_begun(self)
        )

    def result(self, timeout: float | None = None) -> Any:
        """Return what the call returned, or raise what it raised, waiting for it.

        Raises:
            CancelledError: It was cancelled.
            TimeoutError: It is not done after `timeout` seconds.
            RuntimeError: The caller is a callback of the same executor, which would wait for ever.
        """
        if self._state == _FINISHED:
            if self._exception is None:
                return self._result
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]
        if self._state in _CANCELLED:
            raise CancelledError
        self._refuse_to_wait_for_ever(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, or None, waiting for it; errors as of `result`."""
        if self._state != _FINISHED:
            self._refuse_to_wait_for_ever(timeout)
        return super().exception(timeout)

    def _refuse_to_wait_for_ever(self, timeout: float | None) -> None:
        engine = self._engine
        if engine is not None and timeout is None and engine.is_in_callback():
            raise RuntimeError("a callback of an executor cannot wait for a call of the same executor")
