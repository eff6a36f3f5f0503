"""`multiprocessing.pool.Pool` on bequest's engine.

    Pool.map, imap, apply_async ... -> tasks -> Engine -> ApplyResult, MapResult, IMapIterator

All names, arguments and behaviour are those of `multiprocessing.pool`; what is there beyond is said in the
docstrings. Scheduling is the engine's.
"""

from __future__ import annotations

import itertools
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import util
from types import MethodType
from typing import Any

from bequest.pool import calls, standard, wire
from bequest.pool.crew import Manning
from bequest.pool.engine import Engine
from bequest.pool.feed import Feed, Stream, Window, parts, usual_window
from bequest.pool.outcomes import Outcomes
from bequest.pool.result import ApplyResult, AsyncResult, MapResult, Part
from bequest.pool.task import EndedError, Options, options
from bequest.pool.worker import Settings

_plain = standard.module("multiprocessing.pool")
INIT, RUN, CLOSE, TERMINATE = _plain.INIT, _plain.RUN, _plain.CLOSE, _plain.TERMINATE

_SUBMITTED_AT_ONCE = 4096
_STOP_S = 15.0  # more than the engine needs to kill all its workers

_PlainPool: Any = _plain.Pool
_PlainIMapIterator: Any = _plain.IMapIterator

Function = Callable[..., Any]
Callback = Callable[[Any], object]


class PoolOutcomes(Outcomes):
    """The exceptions of a pool."""

    def remote_traceback(self, text: str) -> BaseException:
        """Return the standard pool's exception for it."""
        made: BaseException = _plain.RemoteTraceback(f'\n"""\n{text}"""')
        return made

    def unsendable(self, error: BaseException | None, told_error: str, told_value: str) -> BaseException:
        """Return the standard pool's exception for it."""
        kind: Any = _plain.MaybeEncodingError
        made: BaseException = kind.__new__(kind, told_error, told_value)
        made.__dict__.update(exc=told_error, value=told_value)
        made.__cause__ = error
        return made


class IMapIterator(_PlainIMapIterator):  # type: ignore[misc]  # a class found at run time
    """What `Pool.imap` returns: yields results in the order of the input, as they are asked for."""

    _is_ordered = True

    def __init__(self, pool: Pool, window: Window) -> None:
        self._pool: Pool | None = pool
        self._stream = Stream(window, self._is_ordered)

    def __iter__(self) -> IMapIterator:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result; errors as of `Stream.next`, and what the call of the function raised."""
        try:
            return self._stream.next(timeout)
        except StopIteration:
            self._pool = None
            raise

    __next__ = next

    def __del__(self) -> None:
        self._stream.abandon()


class IMapUnorderedIterator(IMapIterator):
    """What `Pool.imap_unordered` returns: yields results in the order in which they arrive."""

    _is_ordered = False


class Pool(standard.Face, _PlainPool):  # type: ignore[misc]  # as above
    """Worker processes that do calls; see `multiprocessing.pool.Pool`.

    Beyond that: a worker that dies fails the tasks that it had begun with `WorkerDied`, and no other. `imap`
    reads its input as it is needed. Workers may have children and pools of their own. Lambdas, closures and
    whatever bequest carries may be sent and returned.

    Args:
        processes: How many workers; by default as many as this process may use processors.
        initializer: What each worker calls first, with `initargs`. If it raises in three workers in turn,
            the pool is broken: all calls raise PoolBrokenError with that exception as its cause.
        initargs: Arguments of the initializer.
        maxtasksperchild: After how many tasks a worker is replaced.
        context: By which the workers are started.
        max_memory_per_child: Resident memory, in bytes, beyond which a worker is replaced after its task.
        timeout: Seconds that a task may run unless its call says otherwise. Then it is stopped: interrupted,
            and its worker killed and replaced; the caller gets TaskTimeoutError.
        retries: How often a task is run again when its worker died over it, unless its call says otherwise.
        name: What the workers are called, each with a number behind it.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Function | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        max_memory_per_child: int | None = None,
        timeout: float | None = None,
        retries: int = 0,
        name: str | None = None,
    ) -> None:
        self._state = INIT
        self._options = options(timeout, retries)
        self._ctx = _ours(context)
        size = _checked_size(processes, maxtasksperchild)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._processes = size
        self._maxtasksperchild, self._initializer, self._initargs = maxtasksperchild, initializer, initargs
        manning = Manning(
            size,
            _Starter(self, self._ctx, name),
            initializer,
            initargs,
            Settings(most_bytes=max_memory_per_child),
            most_tasks=maxtasksperchild,
        )
        self._engine = Engine(manning, PoolOutcomes())
        self._engine.begin()
        self._terminate = util.Finalize(self, _end, args=(self._engine,), exitpriority=15)
        self._state = RUN

    # Defaults, since globals may be gone when the interpreter ends.
    def __del__(self, _warn: Any = warnings.warn, RUN: str = RUN) -> None:
        if self._state == RUN:
            _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)

    def __repr__(self) -> str:
        kind = type(self)
        return f"<{kind.__module__}.{kind.__qualname__} state={self._state} pool_size={len(self._pool)}>"

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    @property
    def _pool(self) -> list[Any]:
        """The workers' process objects, as of now."""
        engine = getattr(self, "_engine", None)
        return [] if engine is None else [handle.process for handle in list(engine.crew.handles)]

    def _repopulate_pool(self) -> None:
        """Workers are replaced without being asked for."""
        self._engine.wake()

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")
        if self._engine.pid != os.getpid():
            raise ValueError("the pool belongs to the process that this one was forked from")

    # -- one call --------------------------------------------------------------------------------------------

    def apply(self, func: Function, args: Iterable[Any] = (), kwds: Any = None, **more: Any) -> Any:
        """Return `func(*args, **kwds)`, called in a worker; options as of `apply_async`."""
        return self.apply_async(func, args, kwds, **more).get()

    def apply_async(
        self,
        func: Function,
        args: Iterable[Any] = (),
        kwds: Any = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        *,
        timeout: float | None = None,
        retries: int | None = None,
    ) -> ApplyResult:
        """Call `func(*args, **kwds)` in a worker, and return what its result can be had from.

        Args:
            func: What to call.
            args: Positional arguments.
            kwds: Keyword arguments.
            callback: Called with the result, in a thread that it must not hold up.
            error_callback: Called with the exception, where there is one.
            timeout: Seconds after which it is stopped, with TaskTimeoutError; the default is the pool's.
            retries: How often it is called again when its worker died over it; the default is the pool's.

        What cannot be sent is an error of the result, like any other.

        Raises:
            ValueError: The pool does not run.
        """
        if self._state != RUN:
            self._check_running()
        result = ApplyResult(self, callback, error_callback)
        engine = self._engine
        try:
            result.function = engine.functions.find(func)
            if kwds:
                result.way, result.data = wire.CALL, calls.pack((tuple(args), dict(kwds)))
            else:
                result.way, result.data = calls.pack_call(args if type(args) is tuple else tuple(args), {})
        except Exception as error:  # noqa: BLE001 - what cannot be sent fails the call
            result.function, result.data = None, b""
            engine.call_soon(result.complete, False, error)
            return result
        result.options = self._options
        if timeout is not None or retries is not None:
            result.options = self._chosen(timeout, retries)
        self._submit(result)
        return result

    def _submit(self, task: Any) -> None:
        try:
            self._engine.submit(task)
        except EndedError:
            self._engine.call_soon(task.complete, False, self._engine.error())

    def _chosen(self, timeout: float | None, retries: int | None) -> Options | None:
        usual = self._options
        if timeout is None and usual is not None:
            timeout = usual.timeout
        if retries is None:
            retries = 0 if usual is None else usual.retries
        return options(timeout, retries)

    # -- many calls, one result ------------------------------------------------------------------------------

    def map(self, func: Function, iterable: Iterable[Any], chunksize: int | None = None, **more: Any) -> Any:
        """Return the list of `func(item)` for each item; options as of `map_async`."""
        return self._map(func, iterable, chunksize, is_awaited=True, **more)

    def starmap(
        self, func: Function, iterable: Iterable[Iterable[Any]], chunksize: int | None = None, **more: Any
    ) -> Any:
        """Return the list of `func(*item)` for each item; options as of `map_async`."""
        return self._map(func, iterable, chunksize, is_star=True, is_awaited=True, **more)

    def map_async(
        self,
        func: Function,
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        **more: Any,
    ) -> Any:
        """Call `func(item)` for each item, in chunks, and return what the list of results can be had from.

        Args:
            func: What to call; a worker gets it once.
            iterable: The items.
            chunksize: How many items are one task; by default four tasks for each worker.
            callback: Called with the list.
            error_callback: Called with the first exception, when all tasks have ended.
            **more: `timeout` and `retries`, for each task: see `apply_async`.

        Raises:
            ValueError: The pool does not run.
        """
        return self._map(func, iterable, chunksize, callback, error_callback, **more)

    def starmap_async(
        self,
        func: Function,
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        **more: Any,
    ) -> Any:
        """Do as `map_async` does, with `func(*item)`."""
        return self._map(func, iterable, chunksize, callback, error_callback, is_star=True, **more)

    def _map(
        self,
        func: Function,
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        *,
        is_star: bool = False,
        is_awaited: bool = False,
        timeout: float | None = None,
        retries: int | None = None,
    ) -> Any:
        self._check_running()
        items: Any = iterable if hasattr(iterable, "__len__") else list(iterable)
        if chunksize is None:
            chunksize, extra = divmod(len(items), self._processes * 4)
            chunksize += bool(extra)
        if not len(items):
            chunksize = 0
        result = MapResult(self, chunksize, len(items), callback, error_callback)
        if result.ready():
            return result.get() if is_awaited else result
        try:
            make = _Maker(self, func, is_star, chunksize, self._chosen(timeout, retries))
        except Exception as error:  # noqa: BLE001 - a function that cannot be sent fails the call
            self._engine.call_soon(result._fail_from, 0, error)
            return result.get() if is_awaited else result
        window = Window(_SUBMITTED_AT_ONCE, _SUBMITTED_AT_ONCE)
        feed = Feed(self._engine, window, parts(result, make, _chunks(items, chunksize)), result._end)
        if -(-len(items) // chunksize) < _SUBMITTED_AT_ONCE:
            window.open()
        else:
            result._tell_parts(window.give)
            if not is_awaited:
                feed.start()
                return result
        feed.run()
        return result.get() if is_awaited else result

    # -- many calls, an iterator -----------------------------------------------------------------------------

    def imap(self, func: Function, iterable: Iterable[Any], chunksize: int = 1, **more: Any) -> Any:
        """Yield `func(item)` for each item, in order.

        Args:
            func: What to call; a worker gets it once.
            iterable: The items, read in another thread as far ahead as serves the workers.
            chunksize: How many items are one task.
            **more: `buffersize`, how many tasks there may be whose results have not been taken; `timeout` and
                `retries`, for each task: see `apply_async`.

        Raises:
            ValueError: The pool does not run.
            CarryError: The function cannot be sent.
        """
        return self._imap(IMapIterator, func, iterable, chunksize, **more)

    def imap_unordered(self, func: Function, iterable: Iterable[Any], chunksize: int = 1, **more: Any) -> Any:
        """Yield `func(item)` for each item, as they come; see `imap`."""
        return self._imap(IMapUnorderedIterator, func, iterable, chunksize, **more)

    def _imap(
        self,
        kind: type[IMapIterator],
        func: Function,
        iterable: Iterable[Any],
        chunksize: int,
        *,
        buffersize: int | None = None,
        timeout: float | None = None,
        retries: int | None = None,
    ) -> Any:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize must be 1 or more, not {buffersize}")
        make = _Maker(self, func, False, chunksize, self._chosen(timeout, retries))
        window = usual_window(self._processes, buffersize)
        iterator = kind(self, window)
        stream = iterator._stream
        items = iter(iterable)
        Feed(self._engine, window, parts(stream, make, _chunks(items, chunksize)), stream.end).start()
        if chunksize == 1:
            return iterator
        return (item for chunk in iterator for item in chunk)

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more calls; the workers leave when all are done."""
        if self._state == RUN:
            self._state = CLOSE
            self._engine.close()

    def terminate(self) -> None:
        """Stop all workers at once. Results that are waited for raise PoolEndedError."""
        self._state = TERMINATE
        self._terminate()

    def join(self) -> None:
        """Wait until the workers have left, after `close` or `terminate`.

        Raises:
            ValueError: The pool is still running.
        """
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        for feed in list(self._engine.sources):
            feed.window.open()  # nobody takes results while this thread waits for them all
        self._engine.join()

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()


class _Maker:
    """Makes the tasks of one call: the function once, a payload for each chunk."""

    def __init__(
        self, pool: Pool, func: Function, is_star: bool, chunksize: int, chosen: Options | None
    ) -> None:
        self._functions, self._func, self._options = pool._engine.functions, func, chosen
        self._function: calls.FunctionRef | None = self._functions.find(func)
        if chunksize == 1:
            self._way = wire.ARGUMENTS if is_star else wire.ITEM
        else:
            self._way = wire.STARRED if is_star else wire.CHUNK
        self._is_single_star = is_star and chunksize == 1
        if self._function.is_single:
            self._first, self._function = self._function, None

    def __call__(self, part: Part, item: Any) -> None:
        function = self._function
        part.function = self._functions.find(self._func) if function is None else function
        part.options = self._options
        if self._is_single_star:
            part.way, part.data = calls.pack_call(tuple(item), {})
        else:
            part.way, part.data = calls.pack_item(self._way, item)


class _Starter:
    """Makes the process objects of workers by the pool's `Process`, which a derived class may replace.

    Holds no pool: the engine would keep it alive.
    """

    def __init__(self, pool: Pool, context: Any, name: str | None) -> None:
        make: Any = pool.Process
        is_bound = isinstance(make, MethodType) and make.__self__ is pool
        self._make: Any = None if is_bound else make
        self._weak: Any = weakref.WeakMethod(make) if is_bound else None
        self._context, self._name, self._numbers = context, name, itertools.count(1)

    def __call__(self, **given: Any) -> Any:
        make = self._make if self._weak is None else self._weak()
        process = (make or _PlainPool.Process)(self._context, **given)
        if self._name is None:
            process.name = process.name.replace("Process", "PoolWorker")
        else:
            process.name = f"{self._name}-{next(self._numbers)}"
        process.daemon = False
        return process


def _end(engine: Engine) -> None:
    for feed in list(engine.sources):
        feed.window.stop()
    engine.terminate(_STOP_S)


def _ours(context: Any) -> Any:
    """Return a context of bequest: the default one, or that for a plain context of the standard library."""
    from bequest.contexts import of_bequest, usual_context

    return of_bequest(usual_context() if context is None else context)


def _checked_size(processes: int | None, maxtasksperchild: int | None) -> int:
    if processes is None:
        processes = getattr(os, "process_cpu_count", os.cpu_count)() or 1  # the first since 3.13
    if processes < 1:
        raise ValueError("Number of processes must be at least 1")
    if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0):
        raise ValueError("maxtasksperchild must be a positive int or None")
    return processes


def _chunks(items: Any, size: int) -> Iterator[Any]:
    """Yield what the tasks are given: items, or chunks of them."""
    if size == 1:
        yield from items
    elif type(items) in (list, tuple, range):  # a range of a range is one, and takes no room
        for start in range(0, len(items), size):
            yield items[start : start + size]
    else:
        iterator = iter(items)
        while chunk := tuple(itertools.islice(iterator, size)):
            yield chunk


__all__ = ["ApplyResult", "AsyncResult", "IMapIterator", "IMapUnorderedIterator", "MapResult", "Pool"]

standard.settle()
