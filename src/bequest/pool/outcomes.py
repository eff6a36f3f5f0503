"""What becomes of a task, as the exceptions and texts that a caller sees.

    records of a worker, deaths -> Outcomes -> exceptions

Each face has its own: what the standard library raises there is raised here too.
"""

from __future__ import annotations

import faulthandler
import pickle
from typing import TYPE_CHECKING, Any

from bequest.errors import PoolBrokenError, PoolEndedError, TaskTimeoutError, WorkerDied
from bequest.pool import streams, wire
from bequest.pool.crew import Crew, end_of

if TYPE_CHECKING:
    from bequest.pool.engine import Engine
    from bequest.pool.handle import WorkerHandle
    from bequest.pool.task import Task


class Outcomes:
    """The exceptions of a pool. Derived classes say which are their own.

    Attributes:
        face: What users call the kind of pool that it is.
    """

    face = "Pool"

    def remote_traceback(self, text: str) -> BaseException:
        """Return what stands as the cause of an exception that came from a worker."""
        raise NotImplementedError

    def unsendable(self, error: BaseException | None, told_error: str, told_value: str) -> BaseException:
        """Return the error of a task whose result cannot be sent."""
        raise NotImplementedError

    def unrebuilt(self, error: BaseException) -> BaseException:
        """Return the error of a task that could not be rebuilt by the worker, or its result here."""
        return error

    def unloadable(self, error: BaseException) -> BaseException:
        """Return the error of a task whose result cannot be rebuilt here."""
        error.add_note("The result of a task arrived, but this was raised while it was rebuilt.")
        return self.unrebuilt(error)

    def failure(self, kind: int, content: Any) -> BaseException:
        """Return the exception that a worker sent."""
        try:
            packed = pickle.loads(content)
        except BaseException as raised:  # noqa: BLE001 - of the user's classes
            raised.add_note("A task raised an exception; this was raised while that was rebuilt.")
            return raised
        if kind in (wire.ERROR, wire.UNREBUILT):
            error, text = packed
            error = self._with_traceback(error, text)
            return self.unrebuilt(error) if kind == wire.UNREBUILT else error
        cause, told_error, told_value, text = packed
        return self._with_traceback(self.unsendable(cause, told_error, told_value), text)

    def _with_traceback(self, error: BaseException, text: str) -> BaseException:
        """Put the remote traceback where tracebacks show it: behind the causes that the exception has."""
        last, seen = error, {id(error)}
        while last.__cause__ is not None and id(last.__cause__) not in seen:
            last = last.__cause__
            seen.add(id(last))
        if last.__cause__ is None:
            context, is_suppressed = last.__context__, last.__suppress_context__
            last.__cause__ = self.remote_traceback(text)
            last.__context__ = context
            last.__suppress_context__ = is_suppressed or context is None
        return error

    def died(self, task: Task, handle: WorkerHandle, code: int | None) -> BaseException:
        """Return the error of a task that its worker had begun when it died."""
        pid = handle.process.pid
        if task is handle.timed and task.options is not None and task.options.timeout is not None:
            return TaskTimeoutError(task.describe(), task.options.timeout, pid)
        how = end_of(handle, code)
        output = "".join(handle.lines) + handle.page.last_words()
        return WorkerDied(task.describe(), pid, -1 if code is None else code, how, output)

    def ended(self, task: Task, error: BaseException | None) -> BaseException:
        """Return the error of a task that will not be done, since the pool has been stopped or broken."""
        if error is None:
            return PoolEndedError(f"the pool was terminated before it had done the task {task.describe()}")
        return self.again(error)

    def unread(self) -> BaseException:
        """Return the error behind the results of an input that has not been read to its end."""
        return PoolEndedError("the pool was terminated before it had read all of the input")

    def again(self, error: BaseException) -> BaseException:
        """Return an exception like `error` for one more caller: each raises, and traces, its own."""
        try:
            made = type(error)(*error.args)
        except Exception:  # noqa: BLE001 - a class that wants other arguments: the same one will do
            return error
        made.__cause__ = error.__cause__
        return made

    def hopeless(self, crew: Crew) -> BaseException:
        """Return the error of a pool none of whose workers gets ready."""
        raised = next((failure for failure in reversed(crew.failures) if failure is not None), None)
        if raised is not None:
            error = PoolBrokenError(
                f"the pool is broken: its initializer raised {type(raised).__name__} in "
                f"{len(crew.failures)} workers, one after the other: {raised}"
            )
            error.__cause__ = raised
            return error
        return PoolBrokenError(
            "the pool is broken: its workers end, one after the other, before they are ready"
        )

    def unmanned(self, error: BaseException) -> BaseException:
        """Return the error of a pool that cannot start a worker, and has none."""
        broken = PoolBrokenError(f"the pool is broken: a worker could not be started: {error}")
        broken.__cause__ = error
        return broken

    def show_crash(self, handle: WorkerHandle) -> None:
        """Write the traceback of a crash to standard error, where this process would have its own."""
        words = handle.page.last_words()
        if words and faulthandler.is_enabled():
            streams.show_text(2, words)

    def on_death(self, engine: Engine, handle: WorkerHandle, how: str) -> None:
        """Take note that a worker has died unexpectedly; its tasks have been told."""

    def show(self, handle: WorkerHandle, kind: int, number: int, content: Any) -> None:
        """Show what a worker has written or logged."""
        if kind == wire.RECORD:
            streams.show_record(content)
            return
        text = str(content, "utf-8", "replace")
        if number == 2:
            handle.lines.append(text)
        streams.show_text(number, text)
