"""One engine for many tasks: who does which, when, and what happens when a worker dies.

    submit(task) -> pending -> dispatch: a frame to a worker with room -> its records -> task.complete()

Any thread submits, and sends what it can at once: whoever finds the lock taken leaves it to the one who has
it, who looks again after letting it go. One thread receives, completes tasks, buries workers, starts others.
Tasks that nobody has begun are nobody's loss: they run elsewhere. A task that was begun is never run twice,
unless it was asked for.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from bequest.errors import PoolEndedError
from bequest.pool import forking
from bequest.pool.calls import FunctionTable
from bequest.pool.crew import Crew, Manning, end_of
from bequest.pool.intake import Intake
from bequest.pool.poller import Poller
from bequest.pool.rescue import Rescue
from bequest.pool.shares import least_pending, portion
from bequest.pool.task import EndedError, Options
from bequest.pool.wire import BEGUN

if TYPE_CHECKING:
    from collections.abc import Callable

    from bequest.pool.handle import WorkerHandle
    from bequest.pool.outcomes import Outcomes
    from bequest.pool.task import Task

RUNNING, CLOSING, BROKEN, TERMINATING, ENDED = "running", "closing", "broken", "terminating", "ended"

_FRAME_BYTES = 1 << 18
_UNBOUNDED = 1 << 62


class Engine:
    """Runs tasks on workers. Thread-safe; belongs to the process that made it.

    Attributes:
        functions: The functions that its workers are sent.
        state: One of RUNNING, CLOSING, BROKEN, TERMINATING, ENDED, in that order.
        crew: Its workers.
        pid: The process that it belongs to.
        enough: How many tasks must be pending for workers to be given some. It is 1 unless all are busy: who
            lowers it looks at `pending` afterwards, who raises it at the workers.
    """

    def __init__(self, manning: Manning, outcomes: Outcomes) -> None:
        """Start the workers that there are to be from the beginning, and the engine's thread.

        Raises:
            CarryError: The initializer cannot be carried. Nothing is left behind.
            OSError: There is no room for so many processes. Likewise.
        """
        self.pid, self.state = os.getpid(), RUNNING
        forking.engines.add(self)
        self.functions = FunctionTable()
        self.crew = Crew(manning)
        self.pending: deque[Task] = deque()
        self.lock = threading.Lock()
        self.outcomes = outcomes
        self.sources: list[Any] = []  # what feeds tasks in: as long as there are any, the engine does not end
        self._available: deque[WorkerHandle] = deque()
        self.enough = 1
        self._sending: tuple[WorkerHandle | None, list[Task]] = (None, [])
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._is_interrupted = False
        self._cause: BaseException | None = None
        self._poller = Poller()
        self.rescue = Rescue(self)
        self.intake = Intake(self, self._poller)
        self._by_fd: dict[int, WorkerHandle] = {}
        try:
            for _ in range(0 if manning.is_elastic else manning.size):
                self.crew.start_one()
        except BaseException:
            self.crew.dismiss()
            self._poller.close()
            raise
        for handle in self.crew.handles:
            self._welcome(handle)
        self.thread = threading.Thread(target=self._run, name="bequest-pool", daemon=True)
        self._has_begun = False

    # -- from any thread -------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the engine's thread, if it does not run yet."""
        if not self._has_begun:
            try:
                self.thread.start()
            except BaseException:  # there are no more threads, as when the interpreter ends
                self.state = ENDED
                self.crew.dismiss()
                raise
            self._has_begun = True

    def submit(self, task: Task) -> None:
        """Have a task done.

        Raises:
            EndedError: The engine takes no more tasks.
        """
        if self.state is not RUNNING and self.state is not CLOSING:
            raise EndedError
        task.worker, task.number = None, 0
        self.pending.append(task)
        if self._available and len(self.pending) >= self.enough:
            self.dispatch()
        if self.state is not RUNNING and self.state is not CLOSING:
            self._poller.wake()  # the engine's thread fails what it finds
            if self.state is ENDED:
                self._fail_all()

    def error(self) -> BaseException:
        """Return why there are no more tasks done."""
        if self._cause is not None:
            return self.outcomes.again(self._cause)
        return PoolEndedError("the pool was terminated")

    def call_soon(self, function: Callable[..., None], *args: Any) -> None:
        """Have `function` called in the engine's thread, where outcomes are told; here, if that has ended."""
        self._calls.append((function, args))
        self._poller.wake()
        if self.state is ENDED:
            self._make_calls()

    def dispatch(self) -> None:
        """Send what is pending to those who have room, unless another thread is about it."""
        while self.pending and self._available and not self.lock.locked():
            with self.lock:
                try:
                    is_looking = self._send_frame()
                except BaseException:
                    # An interrupt (^C) has met the sending: the engine's thread finds out what was sent.
                    self._is_interrupted = True
                    self._poller.wake()
                    raise
            # Those who have found the lock taken have changed these before.
            if not is_looking and len(self.pending) < self.enough:
                return

    def hire_for(self, count: int = 0) -> None:
        """Start a worker where the idle are too few for what is pending and `count` more, if elastic."""
        crew = self.crew
        if len(crew.handles) >= crew.manning.size:
            return
        with self.lock:
            wanted = len(self.pending) + count
            # As the standard executor counts: idle is who has worked before.
            idle = sum(h.done > 0 and not h.is_leaving and not h.in_flight for h in crew.handles)
            if self.state is RUNNING and len(crew.handles) < crew.manning.size and idle < wanted:
                self._hire()
        self.dispatch()

    def close(self) -> None:
        """Take no more tasks; the workers leave when all are done."""
        if self.state is RUNNING and self.pid == os.getpid():
            self.state = CLOSING
            self.begin()
            self._poller.wake()

    def terminate(self, timeout: float | None = None) -> None:
        """Stop everything: tasks that have not been done fail with PoolEndedError.

        Returns when all workers have ended, which SIGKILL sees to, or after `timeout` seconds.
        """
        if self.pid != os.getpid() or self.state is ENDED:
            return
        self.state = TERMINATING
        for handle in list(self.crew.handles):
            handle.process.terminate()
        self.begin()
        self._poller.wake()
        if threading.current_thread() is not self.thread:
            self.join(timeout)

    def break_down(self, error: BaseException) -> None:
        """Give up: all tasks fail because of `error`, and the workers are stopped."""
        self._cause = error
        self.state = BROKEN
        self._poller.wake()

    def join(self, timeout: float | None = None) -> None:
        """Wait until all workers have ended and the engine's thread with them."""
        if self._has_begun and self.pid == os.getpid():
            self.thread.join(timeout)

    def wake(self) -> None:
        """Have the engine's thread look around."""
        self._poller.wake()

    def is_in_callback(self) -> bool:
        """Tell whether the caller runs in the engine's thread, where waiting for a task would be for ever."""
        return threading.current_thread() is self.thread

    def cancel(self, task: Task) -> bool:
        """Take a task back; tell whether that was possible: it has not begun, and never will."""
        with self.lock:
            handle = task.worker
            # One that waits here stays where it is, and is passed over: see `Task.begins`.
            is_back = task.function is not None and (handle is None or bool(handle.take_back([task.number])))
        self.dispatch()  # whoever found the lock taken has left that to this thread
        return is_back

    def cancel_all(self) -> None:
        """Cancel every task that can be, and has not begun.

        The oldest that a worker has counts as begun, as in the standard executor: who leaves finds some done.
        """
        with self.lock:
            given = [task for handle in self.crew.handles for task in [*handle.in_flight.values()][1:]]
            tasks = [*self.pending, *given]
        for task in tasks:
            task.cancel()

    def is_running(self) -> bool:
        """Tell whether tasks are taken."""
        return self.state in (RUNNING, CLOSING)

    def is_broken(self) -> bool:
        """Tell whether the engine has given up."""
        return self._cause is not None

    def has_begun(self, task: Task) -> bool:
        """Tell whether a worker has begun a task."""
        handle = task.worker
        return handle is not None and handle.has_begun(task.number)

    # -- sending, with the lock held -------------------------------------------------------------------------

    def _send_frame(self) -> bool:
        """Give a worker something to do; return whether there may be more to give."""
        if not (self.pending and self._available):
            return True
        handle = self._idle()
        if handle is None:
            self.enough = least = least_pending(self.pending[0], len(self.crew.handles))
            handle = self._idle()
            if handle is None and len(self.pending) < least:
                return False
            self.enough = 1
        self._available.remove(handle := handle or self._available[0])
        handle.is_listed = False
        self._sending = handle, []
        limit = self.crew.manning.most_tasks
        left = _UNBOUNDED if limit is None else limit - handle.done
        most, handle.ahead = portion(self.pending[0], len(self.pending), len(self.crew.handles), left)
        if handle.is_leaving or most < 1 or not handle.has_room():
            return True
        tasks = self._sending[1]
        pending, size = self.pending, 0
        is_bundle = most > 1
        while pending and len(tasks) < most and size < _FRAME_BYTES:
            task = pending[0]
            if is_bundle and tasks and task.options is not None and task.options.timeout is not None:
                break
            tasks.append(task)
            pending.popleft()
            if task.begins():
                size += len(task.data)
            else:
                tasks.pop()
        if tasks:
            handle.give(tasks, self.functions.gone)
            self._after_giving(handle, tasks)
        self._sending = None, []
        self.enlist(handle)
        return True

    def _idle(self) -> WorkerHandle | None:
        return next((handle for handle in list(self._available) if not handle.in_flight), None)

    def _after_giving(self, handle: WorkerHandle, tasks: list[Task]) -> None:
        if handle.is_blocked:
            self._poller.watch_room(handle.fd, True)
        if (options := tasks[0].options) is not None and options.timeout is not None:
            handle.timed = tasks[0]
            if handle.is_ready:
                self.rescue.set_deadline(handle, options.timeout)
        if len(handle.in_flight) > 1 and self._poller.sleeps_long:
            self._poller.wake()  # it must look after results that a slow task holds up

    def enlist(self, handle: WorkerHandle) -> None:
        """Let a worker be found by those who have tasks, if it has room."""
        if not handle.in_flight:
            self.enough = 1
        if not handle.is_listed and not handle.is_leaving and handle.has_room():
            most = self.crew.manning.most_tasks
            if most is None or handle.done < most:
                handle.is_listed = True
                if handle.in_flight:
                    self._available.append(handle)
                else:
                    self._available.appendleft(handle)

    # -- the engine's thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._has_ended():
                self._step()
        except BaseException as error:  # a fault of the engine must not leave anyone waiting
            self._cause = error
            self._fail_all()
            raise
        finally:
            self.state = ENDED
            self.crew.dismiss()
            self._fail_all()
            self._make_calls()
            self._poller.close()
            self.crew.forget_initializer()

    def _step(self) -> None:
        ended = []
        for fd, is_room in self._poller.wait(self.rescue.patience()):
            handle = self._by_fd.get(fd)
            if handle is None:
                continue
            if fd != handle.fd:
                ended.append(handle)
            elif is_room:
                with self.lock:
                    handle.push()
                    self._poller.watch_room(fd, handle.is_blocked)
            else:
                self.intake.receive(handle)
        for handle in ended:
            self._bury(handle)
        if self._is_interrupted:
            self._recover()
        self._make_calls()
        self.rescue.look()
        self.dispatch()  # passes over what has been cancelled, too: that keeps no worker at the end
        if self.state is not RUNNING:
            self._wind_up()
            self.dispatch()
        elif self.crew.manning.idle_s is not None:
            self.rescue.let_idle_go()

    def _make_calls(self) -> None:
        while self._calls:
            try:
                function, args = self._calls.popleft()
            except IndexError:  # at the end, another thread may do the same
                return
            function(*args)

    def put_first(self, tasks: list[Task]) -> None:
        """Let tasks that were taken back be the next."""
        for task in tasks:
            task.worker = None
        with self.lock:
            self.pending.extendleft(reversed(tasks))

    def _recover(self) -> None:
        """Make good for a sending that was interrupted: nobody knows what the worker has got of it."""
        with self.lock:
            self._is_interrupted = False
            (handle, tasks), self._sending = self._sending, (None, [])
            if handle is None:
                return
            have = {id(task) for task in [*handle.in_flight.values(), *islice(self.pending, 2 * len(tasks))]}
            lost = [task for task in tasks if id(task) not in have]
            for task in lost:
                task.worker = None
            self.pending.extendleft(reversed(lost))
            handle.is_expendable = True
            self.crew.kill(handle, "was stopped, as an interrupt met the sending of tasks to it,")

    # -- workers ---------------------------------------------------------------------------------------------

    def _hire(self) -> None:
        self._welcome(self.crew.start_one())

    def _welcome(self, handle: WorkerHandle) -> None:
        self._by_fd[handle.fd] = self._by_fd[handle.process.sentinel] = handle
        self._poller.watch(handle.fd)
        self._poller.watch(handle.process.sentinel)
        handle.idle_since = time.monotonic()
        self.enlist(handle)

    def retire_if_due(self, handle: WorkerHandle) -> None:
        """Let a worker go that has done its number of tasks, or has grown too large, and has nothing left."""
        most = self.crew.manning.most_tasks
        is_due = handle.is_leaving or (most is not None and handle.done >= most)
        if is_due and not handle.is_told_to_quit and not handle.trouble and handle.deadline is None:
            with self.lock:
                self.crew.let_go(handle)

    def _bury(self, handle: WorkerHandle) -> None:
        """Take leave of a worker that has ended: save what it has done, pass on what it had not begun."""
        with self.lock:
            handle.is_leaving = True
            if handle in self._available:
                self._available.remove(handle)
            if self._sending[0] is handle and not self._sending[1]:
                self._sending = None, []
        sentinel = handle.process.sentinel
        for fd in (handle.fd, sentinel):
            self._by_fd.pop(fd, None)
        self._poller.forget(sentinel)
        self.intake.take_last_words(handle)
        self._poller.forget(handle.fd)
        is_expected = handle.is_told_to_quit or handle.is_expendable or self.state in (TERMINATING, BROKEN)
        begun = handle.page.words[BEGUN]
        lost = list(handle.in_flight.values())
        handle.in_flight.clear()
        code = self.crew.bury(handle)
        self.put_first([task for task in lost if task.number > begun])
        self._mourn(handle, code, [task for task in lost if task.number <= begun])
        self.outcomes.show_crash(handle)
        handle.close()
        self.rescue.forget(handle)
        if not is_expected:
            self.outcomes.on_death(self, handle, end_of(handle, code))
        if self.crew.is_hopeless() and self.state in (RUNNING, CLOSING):
            self.break_down(self.outcomes.hopeless(self.crew))
        self._refill()

    def _mourn(self, handle: WorkerHandle, code: int | None, begun: list[Task]) -> None:
        """Fail the tasks that died with a worker, or have them tried again where that was asked for."""
        again = []
        for task in begun:
            if task.options is not None and task.options.retries > 0 and task is not handle.timed:
                task.options = Options(task.options.timeout, task.options.retries - 1)
                again.append(task)
            else:
                task.complete(False, self.outcomes.died(task, handle, code))
        self.put_first(again)

    def _refill(self) -> None:
        """Start workers in the places of those that have gone."""
        crew = self.crew
        while self.state in (RUNNING, CLOSING) and len(crew.handles) < self._wanted_size():
            try:
                with self.lock:
                    self._hire()
            except Exception as error:  # noqa: BLE001 - of the system, or of the initializer's pickling
                if not crew.handles:
                    self.break_down(self.outcomes.unmanned(error))
                return

    def _wanted_size(self) -> int:
        manning = self.crew.manning
        if self.state is CLOSING or manning.is_elastic:
            busy = sum(bool(handle.in_flight) for handle in self.crew.handles)
            return min(manning.size, busy + len(self.pending))
        return manning.size

    # -- the end ---------------------------------------------------------------------------------------------

    def _has_ended(self) -> bool:
        if self.state is RUNNING or self.crew.handles:
            return False
        return self.state is not CLOSING or not (self.pending or self.sources)

    def _wind_up(self) -> None:
        """Do what the end needs next."""
        if self.state is CLOSING:
            with self.lock:
                if not self.pending and not self.sources:
                    for handle in self.crew.handles:
                        if not handle.in_flight and not handle.is_leaving:
                            self.crew.let_go(handle)
            self._refill()
        else:
            self._fail_all()
            for handle in self.crew.handles:
                if not handle.is_leaving or handle.deadline is None:
                    self.crew.stop(handle)

    def _fail_all(self) -> None:
        """Fail every task that is not done."""
        with self.lock:
            tasks = list(self.pending)
            self.pending.clear()
            for handle in self.crew.handles:
                tasks += handle.in_flight.values()
                handle.in_flight.clear()
                self._available.clear()
        for task in tasks:
            task.complete(False, self.outcomes.ended(task, self._cause))

    def end_in_fork(self) -> None:
        """Know, in a forked child, that nobody works here."""
        self.lock = threading.Lock()  # it may have been taken by a thread that is not there
        if self.state is not ENDED:
            self.state = ENDED
            self._cause = PoolEndedError("the pool belongs to the process that this one was forked from")
