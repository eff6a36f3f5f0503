"""What becomes of an executor's calls, as the exceptions of `concurrent.futures`.

    engine -> ExecutorOutcomes -> BrokenProcessPool, and what says more and is one

See `outcomes` for what each is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bequest.errors import BequestError, WorkerDied
from bequest.pool import standard
from bequest.pool.crew import Crew
from bequest.pool.outcomes import Outcomes

if TYPE_CHECKING:
    from bequest.pool.engine import Engine
    from bequest.pool.handle import WorkerHandle
    from bequest.pool.task import Task

_plain = standard.module("concurrent.futures.process")
if TYPE_CHECKING:
    from concurrent.futures.process import BrokenProcessPool as BrokenProcessPool
else:
    BrokenProcessPool = _plain.BrokenProcessPool

AFTER_SHUTDOWN = "cannot schedule new futures after shutdown"
ABRUPTLY = "A process in the process pool was terminated abruptly while the future was running or pending."


class ExecutorWorkerDied(WorkerDied, BrokenProcessPool):
    """What `WorkerDied` is where the standard executor raises BrokenProcessPool."""


class ExecutorRebuildError(BequestError, BrokenProcessPool):
    """A call or its result could not be rebuilt. The executor goes on, unlike the standard one."""


class ExecutorOutcomes(Outcomes):
    """The exceptions of an executor.

    Args:
        breaks: Whether the death of a worker breaks the executor.
    """

    face = "ProcessPoolExecutor"

    def __init__(self, breaks: bool) -> None:
        self._breaks = breaks

    def remote_traceback(self, text: str) -> BaseException:
        """Return the standard executor's exception for it."""
        kind: Any = _plain._RemoteTraceback
        made: BaseException = kind(f'\n"""\n{text}"""')
        return made

    def unsendable(self, error: BaseException | None, told_error: str, told_value: str) -> BaseException:
        """Return what was raised when the result was packed, as the standard executor does."""
        if error is None:
            error = TypeError(told_error)
        error.add_note(f"This was raised while a task's outcome was sent: {told_value}")
        return error

    def unrebuilt(self, error: BaseException) -> BaseException:
        """Return a BrokenProcessPool for what could not be rebuilt, as the standard executor would break."""
        if not self._breaks:
            return error
        told = f"{type(error).__name__}: {error}".rstrip(": ")
        broken = ExecutorRebuildError(f"a task or its result could not be rebuilt: {told}")
        broken.__cause__ = error
        return broken

    def died(self, task: Task, handle: WorkerHandle, code: int | None) -> BaseException:
        """Return an error that is a BrokenProcessPool too."""
        error = super().died(task, handle, code)
        if not isinstance(error, WorkerDied):
            return error
        died = ExecutorWorkerDied(*error.args)
        died.__cause__ = self._end_of(handle)
        return died

    def _end_of(self, handle: WorkerHandle) -> BaseException:
        """Return the cause that the standard executor gives, from Python 3.15 on."""
        process = handle.process
        return self.remote_traceback(
            f"Process {process.pid} terminated abruptly with exit code {process.exitcode}"
        )

    def ended(self, task: Task, error: BaseException | None) -> BaseException:
        """Return the standard executor's error for a call that will not be done."""
        return BrokenProcessPool(ABRUPTLY) if error is None else self.again(error)

    def unread(self) -> BaseException:
        """Return the standard executor's error for it."""
        return RuntimeError(AFTER_SHUTDOWN)

    def hopeless(self, crew: Crew) -> BaseException:
        """Return the standard executor's error for it."""
        broken = super().hopeless(crew)
        error = BrokenProcessPool(str(broken))
        error.__cause__ = broken.__cause__
        return error

    def unmanned(self, error: BaseException) -> BaseException:
        """Return the standard executor's error for it."""
        broken = BrokenProcessPool(f"A worker process could not be started: {error}")
        broken.__cause__ = error
        return broken

    def on_death(self, engine: Engine, handle: WorkerHandle, how: str) -> None:
        """Break the executor, where that was chosen."""
        if self._breaks:
            broken = BrokenProcessPool(f"{ABRUPTLY} Worker {handle.process.pid} {how}.")
            broken.__cause__ = self._end_of(handle)
            engine.break_down(broken)
