"""What an engine looks after by the clock: tasks held up by a slow one, time limits, workers that do not end.

    patience() -> how long the engine may sleep; look() -> what has become due is done

A worker sends outcomes when it can. While it is in a long task it cannot: outcomes that wait in its journal
are read there, and tasks that wait behind the long one are taken back for workers that have nothing to do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bequest.pool import wire

if TYPE_CHECKING:
    from bequest.pool.engine import Engine
    from bequest.pool.handle import WorkerHandle
    from bequest.pool.task import Task

_FIRST_LOOK_S = 0.004
_LONGEST_LOOK_S = 0.25
INTERRUPT_GRACE_S = 0.5
"""How long a task that is out of time may take to end after it was interrupted; SIGKILL follows."""


class Rescue:
    """Belongs to an engine, and runs in its thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._look_s = _FIRST_LOOK_S
        self._next_look: float | None = None
        self._begun: dict[WorkerHandle, int] = {}

    def set_deadline(self, handle: WorkerHandle, timeout_s: float | None) -> None:
        """Give the task that a worker has just been given its time."""
        if timeout_s is not None:
            handle.deadline = time.monotonic() + timeout_s
            if self._engine.is_in_callback():
                return
            self._engine.wake()  # it may sleep for longer than that

    def forget(self, handle: WorkerHandle) -> None:
        """Forget a worker that has ended."""
        self._begun.pop(handle, None)

    def patience(self) -> float | None:
        """Return how long the engine may wait for something to happen, in seconds; None: for ever."""
        now = time.monotonic()
        due = [handle.deadline for handle in self._engine.crew.handles if handle.deadline is not None]
        if any(len(handle.in_flight) > 1 for handle in self._engine.crew.handles):
            if self._next_look is None:
                self._look_s = _FIRST_LOOK_S
                self._next_look = now + self._look_s
            due.append(self._next_look)
        else:
            self._next_look = None
        idle_s = self._engine.crew.manning.idle_s
        if idle_s is not None:
            idle = [handle.idle_since for handle in self._engine.crew.handles if not handle.in_flight]
            due += [since + idle_s for since in idle]
        return max(0.0, min(due) - now) if due else None

    def look(self) -> None:
        """Do what has become due."""
        now = time.monotonic()
        for handle in list(self._engine.crew.handles):
            if handle.timed is not None and handle.timed.number not in handle.in_flight:
                handle.timed = None
                if not handle.trouble:
                    handle.deadline = None
            if handle.deadline is not None and now >= handle.deadline:
                if handle.timed is not None:
                    self._time_is_up(handle, handle.timed)
                else:
                    self._engine.crew.press(handle)
        if self._next_look is not None and now >= self._next_look:
            self._look_s = _FIRST_LOOK_S if self._help() else min(2 * self._look_s, _LONGEST_LOOK_S)
            self._next_look = now + self._look_s

    def let_idle_go(self) -> None:
        """Let workers go that have been idle for as long as was agreed; also a last one."""
        idle_s = self._engine.crew.manning.idle_s
        now = time.monotonic()
        for handle in list(self._engine.crew.handles):
            if idle_s is not None and not handle.is_leaving and now - handle.idle_since >= idle_s:
                with self._engine.lock:
                    if not handle.in_flight and not self._engine.pending:
                        self._engine.crew.let_go(handle)

    def _time_is_up(self, handle: WorkerHandle, task: Task) -> None:
        """Stop a task: interrupt it, so that it can clean up, then kill its worker."""
        if not handle.trouble:
            handle.is_leaving = handle.is_expendable = True
            handle.trouble = "was stopped, as its task was out of time,"
            handle.deadline = time.monotonic() + INTERRUPT_GRACE_S
            self._engine.crew.interrupt(handle)
        else:
            handle.deadline = time.monotonic() + INTERRUPT_GRACE_S
            handle.process.kill()

    def _help(self) -> bool:
        """Read journals, and take tasks back from workers that are busy with one; tell whether anything was
        done."""
        engine = self._engine
        has_helped = False
        slow = []
        for handle in list(engine.crew.handles):
            if len(handle.in_flight) < 2:
                self._begun.pop(handle, None)
                continue
            before = len(handle.in_flight)
            engine.intake.take_journal(handle)
            has_helped |= len(handle.in_flight) < before
            begun = handle.page.words[wire.BEGUN]
            if self._begun.get(handle) == begun:
                slow.append(handle)
            self._begun[handle] = begun
        return self._take_back(slow) or has_helped

    def _take_back(self, slow: list[WorkerHandle]) -> bool:
        """Take tasks that wait behind a slow one to those who are idle: a fair share."""
        engine = self._engine
        idle = sum(not h.in_flight and not h.is_leaving for h in engine.crew.handles)
        manning = engine.crew.manning
        if manning.is_elastic:
            idle += manning.size - len(engine.crew.handles)
        if not idle or engine.pending:
            return False
        has_taken = False
        for handle in slow:
            with engine.lock:
                begun = handle.page.words[wire.BEGUN]
                waiting = [number for number in handle.in_flight if number > begun]
                share = len(waiting) * idle // (idle + 1) or len(waiting)
                taken = handle.take_back(waiting[-share:]) if waiting else []
                engine.pending.extendleft(reversed(taken))
            has_taken |= bool(taken)
        return has_taken
