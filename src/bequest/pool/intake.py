"""What workers say, taken in: outcomes go to their tasks, and what they write is shown.

    WorkerHandle.receive, leftovers -> records -> Task.complete, crew, outcomes

Runs in the engine's thread. A channel on which there is something else than records ends its worker.
"""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING

from bequest import passing
from bequest.carry.buffers import token_of
from bequest.pool import wire
from bequest.pool.wire import LARGE, TASK_NS, VALUE, GarbledError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bequest.pool.engine import Engine
    from bequest.pool.handle import WorkerHandle
    from bequest.pool.poller import Poller

_BUFFER_BYTES = 1 << 19

_loads = pickle.loads


class Intake:
    """Belongs to an engine."""

    def __init__(self, engine: Engine, poller: Poller) -> None:
        self._engine, self._poller = engine, poller
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))

    def receive(self, handle: WorkerHandle) -> None:
        """Receive once from a worker, and take in what it says."""
        try:
            self._take(handle, handle.receive(self._buffer))
        except GarbledError as error:
            self._poller.forget(handle.fd)
            self._engine.crew.kill(handle, f"sent what no worker sends ({error}), and was killed,")
        except EOFError:
            self._poller.forget(handle.fd)
            if not handle.is_told_to_quit and not handle.trouble:  # its end is near, or its channel is lost
                handle.is_leaving = True
                handle.deadline = handle.deadline or time.monotonic() + 1.0
        except BlockingIOError:
            pass
        if not handle.in_flight:
            handle.idle_since = time.monotonic()
            self._engine.retire_if_due(handle)
        self._engine.enlist(handle)

    def _take(self, handle: WorkerHandle, records: Iterable[tuple[int, int, memoryview]]) -> None:
        in_flight, function = handle.in_flight, None
        for kind, number, content in records:
            if kind == VALUE:
                task = in_flight.pop(number, None)
                if task is None:  # it was read in the journal already
                    continue
                function = task.function
                if not in_flight:  # before its caller knows, who may have another
                    self._engine.enlist(handle)
                try:
                    value = _loads(content)
                except BaseException as error:  # noqa: BLE001 - of the user's classes; it fails the task
                    task.complete(False, self._engine.outcomes.unloadable(error))
                else:
                    task.complete(True, value)
                    value = None
            elif kind == LARGE:
                self._take_large(handle, number, content)
            else:
                self._take_other(handle, kind, number, content)
        if function is not None:
            function.task_ns = handle.page.words[TASK_NS]

    def _take_large(self, handle: WorkerHandle, number: int, content: memoryview) -> None:
        """Take in a result whose large data has come beside it."""
        task = handle.in_flight.pop(number, None)
        if task is None:  # as above
            return
        try:
            token = token_of(content)
            if token is not None and handle.beside is not None:
                held = passing.receive_beside(handle.beside, token)  # noqa: F841 - to be found by its token
            value = _loads(content)
        except BaseException as error:  # noqa: BLE001 - as above; or there is no descriptor to be had
            task.complete(False, self._engine.outcomes.unloadable(error))
        else:
            task.complete(True, value)

    def _take_other(self, handle: WorkerHandle, kind: int, number: int, content: memoryview) -> None:
        if kind in (wire.ERROR, wire.UNSENDABLE, wire.UNREBUILT):
            self._take_failure(handle, kind, number, content)
        elif kind == wire.SKIPPED:
            handle.has_passed(number)
            task = handle.in_flight.pop(number, None)
            if task is not None:  # it was about to begin when it was taken back, and has not
                self._engine.put_first([task])
        elif kind == wire.READY:
            self._engine.crew.note_ready(handle)
            if handle.timed is not None and handle.timed.options is not None:
                self._engine.rescue.set_deadline(handle, handle.timed.options.timeout)
        elif kind == wire.FAILED:
            self._engine.crew.failures.append(self._engine.outcomes.failure(wire.ERROR, content))
            handle.trouble, handle.is_expendable = "could not run its initializer", True
        elif kind == wire.FULL:
            handle.is_leaving = True
        elif kind in (wire.TEXT, wire.RECORD):
            self._engine.outcomes.show(handle, kind, number, content)
        else:
            raise GarbledError(f"a record of kind {kind}")

    def _take_failure(self, handle: WorkerHandle, kind: int, number: int, content: memoryview) -> None:
        task = handle.in_flight.pop(number, None)
        if task is not None and task is handle.timed and handle.is_expendable:
            handle.process.kill()  # it has stopped the task, and may be in any state
            task.complete(False, self._engine.outcomes.died(task, handle, None))
        elif task is not None:
            task.complete(False, self._engine.outcomes.failure(kind, content))

    def take_journal(self, handle: WorkerHandle) -> None:
        """Take in outcomes that a worker has not sent yet, as it is busy."""
        try:
            self._take(handle, handle.leftovers())
        except GarbledError as error:
            self._engine.crew.kill(handle, f"wrote what no worker writes ({error}), and was killed,")

    def take_last_words(self, handle: WorkerHandle) -> None:
        """Take in all that a worker that has ended had sent, and what it had not."""
        try:
            while True:
                self._take(handle, handle.receive(self._buffer))
        except (EOFError, BlockingIOError, OSError, GarbledError):
            pass  # what is cut off here is in the journal, or is lost with the worker
        try:
            self._take(handle, handle.leftovers())
        except GarbledError:
            pass  # a wild write has met the journal: its tasks have begun, and fail
