"""The workers of a pool: started, replaced, let go, stopped.

    Crew.refill -> handles -> their ends -> bury -> what became of it

Scheduling is not done here. Everything runs in the engine's thread, or before that has begun.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bequest.pool import deaths, streams
from bequest.pool.handle import WorkerHandle, start
from bequest.pool.worker import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_KILLED = 20
"""So many in turn that are killed before they are ready break it too: memory does not get more by trying."""

TERM_GRACE_S = 3.0
"""How long a worker may take to end after SIGTERM; SIGKILL follows."""
QUIT_GRACE_S = 10.0
"""How long it may take to end after it was told to quit: exit handlers, queues, threads; SIGTERM follows."""
REAP_S = 5.0
"""How long a process that has ended may take until its exit code is known."""


@dataclass(frozen=True)
class Manning:
    """How a pool is manned.

    Attributes:
        size: How many workers there are, at most where `is_elastic`.
        make_process: Returns a process object for `target=` and `args=`.
        initializer: What each worker calls first, with `initargs`.
        initargs: Its arguments.
        settings: What each worker has to know.
        is_elastic: Whether workers are started only for tasks that find none idle.
        most_tasks: After how many tasks a worker is replaced, or None.
        idle_s: After how many idle seconds an elastic pool lets a worker go, or None.
        most_failures: So many workers in turn whose initializer raises, or which exit before it has returned,
            break the pool.
    """

    size: int
    make_process: Callable[..., Any]
    initializer: Any = None
    initargs: Any = ()
    settings: Settings = field(default_factory=Settings)
    is_elastic: bool = False
    most_tasks: int | None = None
    idle_s: float | None = None
    most_failures: int = 3


class Crew:
    """The workers that there are.

    Attributes:
        handles: One for each, oldest first.
        failures: Errors of workers that ended before they were ready, since the last that was.
        killed: How many were killed before, likewise.
    """

    def __init__(self, manning: Manning) -> None:
        self.manning = manning
        self.handles: list[WorkerHandle] = []
        self.failures: list[Any] = []
        self.killed = 0

    def start_one(self) -> WorkerHandle:
        """Start a worker; errors as of `handle.start`."""
        manning = self.manning
        manning.settings.has_logging = streams.has_handlers()
        handle = start(manning.make_process, manning.initializer, manning.initargs, manning.settings)
        self.handles.append(handle)
        return handle

    def is_hopeless(self) -> bool:
        """Tell whether no worker will get ready."""
        return len(self.failures) >= self.manning.most_failures or self.killed >= MOST_KILLED

    def note_ready(self, handle: WorkerHandle) -> None:
        """Note that a worker's initializer has returned."""
        handle.is_ready = True
        self.failures.clear()
        self.killed = 0

    def bury(self, handle: WorkerHandle) -> int | None:
        """Reap a worker that has ended, and return its exit code."""
        self.handles.remove(handle)
        handle.process.join(REAP_S)
        code: int | None = handle.process.exitcode
        if not handle.is_ready and not handle.is_told_to_quit and not handle.trouble:
            if code is not None and code < 0:
                self.killed += 1
            else:
                self.failures.append(None)
        return code

    def forget_initializer(self) -> None:
        """Let go of what new workers would be given: there will be none, and it may hold semaphores."""
        self.manning = replace(self.manning, initializer=None, initargs=())

    def dismiss(self) -> None:
        """End all workers that there are, where the engine does not or no longer run."""
        for handle in self.handles:
            handle.process.terminate()
        for handle in self.handles:
            handle.process.join()
            handle.close()
        self.handles.clear()

    def stop(self, handle: WorkerHandle) -> None:
        """Ask a worker to end at once; `press` follows it up."""
        handle.is_leaving = True
        handle.timed = None
        handle.deadline = time.monotonic() + TERM_GRACE_S
        handle.process.terminate()

    def let_go(self, handle: WorkerHandle) -> None:
        """Tell a worker to leave when it has done what it has."""
        handle.quit()
        handle.timed = None
        handle.deadline = time.monotonic() + QUIT_GRACE_S

    def press(self, handle: WorkerHandle) -> None:
        """Go one step further with a worker that has had its time to end."""
        if handle.is_told_to_quit and not handle.trouble:
            handle.trouble = "did not end when it was told to"
            self.stop(handle)
        else:
            handle.deadline = time.monotonic() + TERM_GRACE_S
            handle.process.kill()

    def interrupt(self, handle: WorkerHandle) -> None:
        """Interrupt the task of a worker."""
        try:
            os.kill(handle.process.pid, signal.SIGINT)
        except ProcessLookupError:  # it has just ended
            return

    def kill(self, handle: WorkerHandle, trouble: str) -> None:
        """Kill a worker, for a reason that its tasks will be told."""
        handle.is_leaving, handle.trouble = True, trouble
        handle.deadline = time.monotonic() + TERM_GRACE_S
        handle.process.kill()


def end_of(handle: WorkerHandle, code: int | None) -> str:
    """Return what became of a worker, in words."""
    return handle.trouble or deaths.how_it_ended(code)
