"""`concurrent.futures.ProcessPoolExecutor` on bequest's engine.

    submit -> Future -> Engine; map -> Feed -> Engine -> Stream -> results in order

All of the standard executor, of the latest Python, on every version; what is there beyond is said in the
docstrings.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import TimeoutError as _TimeoutError
from typing import Any

from bequest.pool import calls, standard, wire
from bequest.pool.crew import Manning
from bequest.pool.engine import Engine
from bequest.pool.executor_outcomes import (
    ABRUPTLY,
    AFTER_SHUTDOWN,
    BrokenProcessPool,
    ExecutorOutcomes,
    ExecutorWorkerDied,
)
from bequest.pool.feed import Feed, Stream, parts, usual_window
from bequest.pool.future import Future
from bequest.pool.result import Part
from bequest.pool.task import EndedError, options
from bequest.pool.worker import Settings

_plain = standard.module("concurrent.futures.process")

_TERMINATE, _KILL = "terminate", "kill"

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


_PlainExecutor: Any = _plain.ProcessPoolExecutor


class ProcessPoolExecutor(standard.Face, _PlainExecutor):  # type: ignore[misc]  # its private parts are other ones
    """Calls functions in worker processes; see `concurrent.futures.ProcessPoolExecutor`.

    Args:
        max_workers: How many workers there are at most; by default one for each processor.
        mp_context: By which they are started; a plain context of multiprocessing stands for bequest's of the
            same start method.
        initializer: What each worker calls first. If it raises, the executor is broken.
        initargs: Arguments of the initializer.
        max_tasks_per_child: After how many calls a worker is replaced; not with start method fork.
        max_memory_per_child: Resident memory, in bytes, beyond which a worker is replaced after its call.
        on_worker_death: "break": when a worker dies, all calls fail with BrokenProcessPool, and so do later
            ones, as in the standard library. "fail_task": only the calls fail that it had begun. Their error
            is a `WorkerDied` and a BrokenProcessPool in either case.
        task_timeout: Seconds that a call may run. Then it is stopped, and its future gets TaskTimeoutError.
        retries: How often a call is made again when its worker died over it; with "fail_task".
        idle_timeout: Seconds after which a worker without work is let go. A later call starts another one.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        on_worker_death: str = "break",
        task_timeout: float | None = None,
        retries: int = 0,
        idle_timeout: float | None = None,
    ) -> None:
        from bequest.contexts import of_bequest, usual_context

        if max_workers is None:
            max_workers = getattr(os, "process_cpu_count", os.cpu_count)() or 1  # the first since 3.13
        elif max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if on_worker_death not in ("break", "fail_task"):
            raise ValueError(f"on_worker_death must be 'break' or 'fail_task', not {on_worker_death!r}")
        if mp_context is None:
            mp_context = usual_context("spawn" if max_tasks_per_child is not None else None)
        self._mp_context = of_bequest(mp_context)
        is_fork = self._mp_context.get_start_method(allow_none=False) == "fork"
        _check_most_tasks(max_tasks_per_child, is_fork)
        self._max_workers, self._max_tasks_per_child = max_workers, max_tasks_per_child
        self._initializer, self._initargs = initializer, initargs
        self._safe_to_dynamically_spawn_children = not is_fork
        self._options = options(task_timeout, retries)
        self._outcomes = ExecutorOutcomes(on_worker_death == "break")
        self._manning = Manning(
            max_workers,
            _Starter(self._mp_context),
            initializer,
            tuple(initargs),
            Settings(max_memory_per_child, exit_is_outcome=True, log_initializer=True),
            # A fork once the engine's thread runs would be one of a process with threads.
            is_elastic=not is_fork,
            most_tasks=max_tasks_per_child,
            idle_s=idle_timeout,
            most_failures=1,
        )
        self._shutdown_lock = threading.Lock()
        self._shutdown_thread = False
        self._engine: Engine | None = None
        self._call_queue = _NoQueue()

    def __reduce__(self) -> Any:
        raise TypeError("an executor cannot be pickled: its workers belong to the process that made it")

    @property
    def _processes(self) -> dict[int, Any]:
        """The workers' process objects, by process id, as of now."""
        handles = [] if self._engine is None else list(self._engine.crew.handles)
        return {handle.process.pid: handle.process for handle in handles}

    @property
    def _executor_manager_thread(self) -> threading.Thread | None:
        return None if self._engine is None else self._engine.thread

    @property
    def _broken(self) -> str | bool:
        engine = self._engine
        return str(engine.error()) if engine is not None and engine.is_broken() else False

    # -- calls -----------------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Call `fn(*args, **kwargs)` in a worker, and return its future.

        What cannot be sent is an error of the future, like any other.

        Raises:
            BrokenProcessPool: The executor is broken.
            RuntimeError: It has been shut down.
        """
        engine = self._engine
        if engine is None or self._shutdown_thread or not engine.is_running():
            engine = self._usable_engine()
        future = Future(engine)
        try:
            future.function = engine.functions.find(fn)
            if kwargs:
                future.way, future.data = wire.CALL, calls.pack((args, kwargs))
            else:
                future.way, future.data = calls.pack_call(args, kwargs)
        except Exception as error:  # noqa: BLE001 - what cannot be sent fails the call
            future.function, future.data = None, b""
            engine.call_soon(future.complete, False, error)
            if self._safe_to_dynamically_spawn_children:
                engine.hire_for(1)  # the next call will find a worker, as with the standard executor
            return future
        future.options = self._options
        try:
            engine.submit(future)
        except EndedError:
            raise self._why_not(engine) from None
        if engine.pending and self._safe_to_dynamically_spawn_children:
            engine.hire_for()
        return future

    def _usable_engine(self) -> Engine:
        """Return the engine, started if it is not; raise why there is none."""
        with self._shutdown_lock:
            engine = self._engine
            if engine is not None and engine.is_broken():
                raise self._why_not(engine)
            if self._shutdown_thread:
                raise RuntimeError(AFTER_SHUTDOWN)
            if engine is None:
                if _exiting.is_set():
                    raise RuntimeError("cannot schedule new futures after interpreter shutdown")
                engine = Engine(self._manning, self._outcomes)
                engine.begin()
                self._engine = engine
                _engines.add(engine)
                weakref.finalize(self, engine.close).atexit = False
            return engine

    @staticmethod
    def _why_not(engine: Engine) -> BaseException:
        if engine.is_broken():
            return engine.error()
        return RuntimeError(AFTER_SHUTDOWN)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Return an iterator over `map(fn, *iterables)`, whose calls are made in workers.

        Args:
            fn: What to call; a worker gets it once.
            *iterables: Of the arguments. They are read in another thread, as far ahead as serves the workers;
                to their end where the iterator is dropped before it was begun, or the executor shut down.
            timeout: Seconds from now after which the iterator raises TimeoutError.
            chunksize: How many calls are one task.
            buffersize: How many tasks there may be whose results have not been taken. Then no more than those
                are read where the iterator is dropped, or the executor shut down.

        Raises:
            ValueError: `chunksize` or `buffersize` is less than one.
            TypeError: `buffersize` is not an integer.
            CarryError: `fn` cannot be sent.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else timeout + time.monotonic()
        with_engine = self._engine
        if with_engine is None or self._shutdown_thread or not with_engine.is_running():
            with_engine = self._usable_engine()
        if len(iterables) == 0:
            return iter(())
        window = usual_window(self._max_workers, buffersize)
        stream = Stream(window, is_ordered=True)
        make = _Maker(self, with_engine, fn, chunksize)
        items = _chunks(zip(*iterables, strict=False), chunksize)
        feed = Feed(with_engine, window, parts(stream, make, items), stream.end)
        results = _Results(stream, feed, end, chunksize)
        try:
            feed.start()
        except RuntimeError as error:
            raise BrokenProcessPool("the input cannot be read in another thread") from error
        return results

    # -- the end ---------------------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; see `concurrent.futures.Executor.shutdown`.

        Args:
            wait: Return when all calls are done and the workers have ended.
            cancel_futures: Cancel the calls that no worker has begun.
        """
        with self._shutdown_lock:
            self._shutdown_thread = True
            engine = self._engine
        if engine is None:
            return
        for feed in list(engine.sources):
            feed.window.stop() if cancel_futures else feed.window.finish()
        if cancel_futures:
            engine.cancel_all()
        engine.close()
        if wait and not engine.is_in_callback():
            engine.join()

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        # Who is interrupted does not want to wait for what has not begun.
        self.shutdown(wait=True, cancel_futures=exc_type is not None and not issubclass(exc_type, Exception))

    def terminate_workers(self) -> None:
        """Terminate the workers. Calls that have begun fail, others are cancelled, no more are taken."""
        self._force_shutdown(operation=_TERMINATE)

    def kill_workers(self) -> None:
        """Kill the workers; as `terminate_workers`, with SIGKILL."""
        self._force_shutdown(operation=_KILL)

    def _force_shutdown(self, operation: str) -> None:
        if operation not in (_TERMINATE, _KILL):
            raise ValueError(f"Unsupported operation: {operation!r}")
        processes = list(self._processes.values())
        self.shutdown(wait=False, cancel_futures=True)
        if self._engine is not None:
            self._engine.break_down(BrokenProcessPool(ABRUPTLY))
        for process in processes:
            if process.is_alive():
                getattr(process, operation)()


class _Results:
    """Iterates over the results of `ProcessPoolExecutor.map`; once it is dropped, nothing waits for them.

    Dropped before its first result, as by a caller who wants the calls and not their results, it leaves them
    to be made, as far as they may be on their way. Dropped or closed later, it takes back those that have not
    begun.
    """

    def __init__(self, stream: Stream, feed: Feed, end: float | None, chunksize: int) -> None:
        self._stream, self._feed, self._end = stream, feed, end
        self._chunk: list[Any] | None = None if chunksize == 1 else []
        self._has_begun = False

    def __iter__(self) -> _Results:
        return self

    def __next__(self) -> Any:
        self._has_begun = True
        if self._chunk:
            return self._chunk.pop()
        try:
            while True:
                left = None if self._end is None else self._end - time.monotonic()
                result = self._stream.next(left)
                if self._chunk is None:
                    return result
                if result:
                    self._chunk = result[::-1]
                    return self._chunk.pop()
        except _TimeoutError:
            if self._end is None or time.monotonic() < self._end:
                raise  # it came from the function
            self.close()
            raise TimeoutError from None
        except StopIteration:
            raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take back the calls that have not begun; there are no more results."""
        self._has_begun = False
        self._feed.window.stop()
        self._stream.is_cancelled = True
        self._stream.close()

    def __del__(self) -> None:
        if self._has_begun:
            self.close()
        else:
            self._feed.window.finish()
            self._stream.abandon()


class _Maker:
    """Makes the tasks of one `map`."""

    def __init__(self, executor: ProcessPoolExecutor, engine: Engine, fn: Any, chunksize: int) -> None:
        self._functions, self._fn, self._options = engine.functions, fn, executor._options
        self._way = wire.ARGUMENTS if chunksize == 1 else wire.STARRED
        first = self._functions.find(fn)
        self._function: calls.FunctionRef | None = None if first.is_single else first
        self._engine, self._is_elastic = engine, executor._safe_to_dynamically_spawn_children

    def __call__(self, part: Part, item: Any) -> None:
        function = self._function
        part.function = self._functions.find(self._fn) if function is None else function
        part.options = self._options
        if self._way == wire.ARGUMENTS:
            part.way, part.data = calls.pack_call(item, {})
        else:
            part.way, part.data = self._way, calls.pack(item)
        if self._is_elastic:
            self._engine.hire_for(1)


class _Starter:
    """Makes the process objects of workers."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __call__(self, **given: Any) -> Any:
        process = self._context.Process(**given)
        if hasattr(process, "daemon"):
            process.daemon = False
        return process


class _NoQueue:
    """In the place of the standard executor's queue of calls, for those who join it."""

    def join_thread(self) -> None:
        """Return at once."""


def _chunks(items: Iterator[tuple[Any, ...]], size: int) -> Iterator[Any]:
    from itertools import islice

    if size == 1:
        yield from items
    else:
        while chunk := tuple(islice(items, size)):
            yield chunk


def _check_most_tasks(most: int | None, is_fork: bool) -> None:
    if most is None:
        return
    if not isinstance(most, int):
        raise TypeError("max_tasks_per_child must be an integer")
    if most <= 0:
        raise ValueError("max_tasks_per_child must be >= 1")
    if is_fork:
        raise ValueError(
            "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method; "
            "supply a different mp_context."
        )


_exiting = threading.Event()


def _finish_all() -> None:
    """At the end of the program, let executors do what they have been given, as the standard ones do."""
    _exiting.set()
    for engine in list(_engines):
        for feed in list(engine.sources):
            feed.window.finish()
        engine.close()
    for engine in list(_engines):
        engine.join()


# Before the threads of the program are joined, and before any exit handler: as the standard executor does.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]  # private, the same in all versions

__all__ = ["BrokenProcessPool", "ExecutorWorkerDied", "Future", "ProcessPoolExecutor"]

standard.settle()
