"""What a pool schedules: one call of a function, of which somebody waits for the outcome.

a face makes a Task -> Engine.submit -> a worker -> Task.complete(is_good, value), once
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bequest.pool import calls

if TYPE_CHECKING:
    from bequest.pool.handle import WorkerHandle


class EndedError(Exception):
    """The engine takes no more tasks; `Engine.error` says why."""


class Options:
    """What may be asked for a task.

    Attributes:
        timeout: Seconds that it may run, or None.
        retries: How often it is run again when a worker has died over it.
    """

    __slots__ = ("retries", "timeout")

    def __init__(self, timeout: float | None, retries: int) -> None:
        self.timeout, self.retries = timeout, retries


def options(timeout: float | None, retries: int) -> Options | None:
    """Return the options of a task, None where nothing is asked for.

    Raises:
        ValueError: One of them is out of range.
    """
    if timeout is None and not retries:
        return None
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
    if retries < 0:
        raise ValueError(f"retries must not be negative, as {retries!r} is")
    return Options(timeout, retries)


class Task:
    """One call. The faces derive what a caller waits for from it, so that a call is a single object.

    Attributes:
        function: What workers know the function by, a `FunctionRef`; None when it is done.
        way: How the payload is given to it; see `wire`.
        data: The payload.
        options: Or None.
        number: Its number in the worker that has it, or had it last.
        worker: That worker; None where it waits for one.
    """

    __slots__ = ("data", "function", "number", "options", "way", "worker")

    function: Any
    way: int
    data: bytes
    options: Options | None
    number: int
    worker: WorkerHandle | None

    def begins(self) -> bool:
        """Return whether it is still wanted; asked once, with the engine's lock held, when it is sent."""
        return True

    def cancel(self) -> bool:
        """Give up what has not begun, if this kind of task can be; tell whether it was."""
        return False

    def complete(self, is_good: bool, value: Any) -> None:
        """Take the outcome: a result, or an exception. Called once, by the engine; must not raise."""
        raise NotImplementedError

    def release(self) -> None:
        """Let go of what was sent."""
        self.data, self.function, self.worker = b"", None, None

    def describe(self) -> str:
        """Return the task in words."""
        if self.function is None:
            return "(it could not be sent)"
        return calls.describe(self.function, self.way, self.data)
