"""What a worker of a pool does: it takes tasks from its channel, in turn, and sends what came of them.

    WorkerEnd -> work() -> initializer -> records in -> function(*args) -> journal -> records out

One thread, one channel, no lock that another process knows. An outcome is written into the journal, which the
pool can read when this process has been killed, and goes out with others at least every millisecond. A worker
ends when it is told to, when its channel ends, or with its pool's process, whatever it is doing then.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from _pickle import dumps as _dumps_atom
from _pickle import loads
from _socket import socket as _Socket
from _thread import get_ident
from collections import deque
from time import perf_counter_ns

from bequest.carry.buffers import THRESHOLD_BYTES, Message, inline_message, token_of
from bequest.carry.segments import OwnedFd
from bequest.pool import streams, wire
from bequest.pool.wire import BEGUN, COMMITTED, ENTRY, FINISHED, GENERATION, HEAD, MAGIC, SLOTS, TASK_NS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_ATOMS = frozenset((int, float, str, bytes, bool, type(None), complex))
_NOT_REBUILT: Any = object()
_FLUSH_NS = 1_000_000
_BUFFER_BYTES = 1 << 18
_MOST_TOLD = 2000  # characters of a value that cannot be sent
_WAY_MASK = (1 << wire.WAY_BITS) - 1
_F_SETSIG = 10  # of Linux; `fcntl` has no name for it before 3.14


class WorkerEnd:
    """A worker's end of its channel, on its way to the worker.

    Attributes:
        channel: Descriptor of the socket.
        page: Descriptor of the shared page's file.
        lifeline: Descriptor of a pipe that nobody writes to; it ends with the pool's process.
        beside: Descriptor of the channel for the descriptors of large data, or None.
    """

    def __init__(self, channel: int, page: int, lifeline: int, beside: int | None) -> None:
        self.channel, self.page, self.lifeline, self.beside = channel, page, lifeline, beside

    def _fds(self) -> tuple[int, ...]:
        least = (self.channel, self.page, self.lifeline)
        return least if self.beside is None else (*least, self.beside)

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.reduction import DupFd

        return _open_end, tuple(map(DupFd, self._fds()))

    def close(self) -> None:
        """Close the descriptors, which are the worker's."""
        for fd in self._fds():
            os.close(fd)


def _open_end(channel: Any, page: Any, lifeline: Any, beside: Any = None) -> WorkerEnd:
    fds = channel.detach(), page.detach(), lifeline.detach()
    return WorkerEnd(*fds, None if beside is None else beside.detach())


class Settings:
    """What a worker has to know besides its initializer.

    Attributes:
        most_bytes: Resident memory after which it asks to be replaced, or None.
        exit_is_outcome: Whether SystemExit is a task's outcome (an executor's way) or ends the worker.
        log_initializer: Whether an initializer that raises is reported to the log of concurrent.futures.
        has_logging: Whether the pool's process has log handlers, as it is when a worker is started.
    """

    __slots__ = ("exit_is_outcome", "has_logging", "log_initializer", "most_bytes")

    def __init__(
        self,
        most_bytes: int | None = None,
        exit_is_outcome: bool = False,
        log_initializer: bool = False,
        has_logging: bool = False,
    ) -> None:
        self.most_bytes, self.exit_is_outcome = most_bytes, exit_is_outcome
        self.log_initializer, self.has_logging = log_initializer, has_logging

    def __reduce__(self) -> tuple[Any, ...]:
        return Settings, (self.most_bytes, self.exit_is_outcome, self.log_initializer, self.has_logging)


def work(end: WorkerEnd, initializer: Callable[..., Any] | None, initargs: Any, settings: Settings) -> None:
    """Be a worker, until told to leave; the target of its process."""
    die_with(end.lifeline)
    worker = _Worker(end, settings)
    if worker.initialize(initializer, initargs):
        worker.serve()


def die_with(lifeline: int) -> None:
    """Have the kernel kill this process when the other end of `lifeline` closes, whatever it does then.

    The owner of a descriptor may choose the signal that tells of its changes: SIGKILL needs no thread here,
    no interpreter that listens, and no parent that has the time. Where that is not to be had, the worker
    still ends when it next looks at its channel.
    """
    import fcntl

    from bequest.launch.pidfd import is_ready

    try:
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    except (OSError, AttributeError):  # not Linux
        return
    if is_ready(lifeline):  # closed before the kernel was asked to watch
        os._exit(1)


class Outbox:
    """What goes to the pool: short outcomes by way of the journal, all else directly. Thread-safe."""

    def __init__(self, channel: Any, page: wire.Page) -> None:
        self._channel, self._page = channel, page
        self._words, self._journal = page.words, page.journal
        self._lock = threading.Lock()
        self._owner = 0  # the thread that has the lock
        self._later: deque[tuple[int, int, bytes]] = deque()
        self._end = 0

    def put(self, kind: int, number: int, data: bytes) -> None:
        """Write the outcome of a task; it is safe from here on, but for a long one, which is sent."""
        with self._lock:
            self._owner = get_ident()
            at = self._end
            end = at + 16 + len(data)
            if end > wire.JOURNAL_BYTES:
                self._empty()
                at, end = 0, 16 + len(data)
            if end > wire.JOURNAL_BYTES:
                self._page.lengths[number % SLOTS] = len(data)
                self._send(kind, number, data)
            else:
                HEAD.pack_into(self._journal, at, MAGIC | kind, number, len(data))
                self._journal[at + 16 : end] = data
                self._end = self._words[COMMITTED] = end
            self._owner = 0
        if self._later:
            self.flush()

    def send(self, kind: int, number: int, data: bytes) -> None:
        """Send at once what is not an outcome, behind all that has been written before."""
        self._later.append((kind, number, data))
        # A signal handler may print while this very thread is sending; that sees to it when it is done.
        if self._owner != get_ident():
            self.flush()

    def flush(self) -> None:
        """Send what has been written."""
        with self._lock:
            self._owner = get_ident()
            try:
                self._empty()
                while self._later:
                    self._send(*self._later.popleft())
            finally:
                self._owner = 0

    def _empty(self) -> None:
        if self._end:
            # Sent before it is forgotten: killed in between, it is told twice, and the second is ignored.
            self._channel.sendall(self._journal[: self._end])
            self._words[GENERATION] += 1
            self._end = self._words[COMMITTED] = 0

    def _send(self, kind: int, number: int, data: bytes) -> None:
        self._channel.sendall(wire.head(kind, number, len(data)))
        self._channel.sendall(data)


class _Worker:
    def __init__(self, end: WorkerEnd, settings: Settings) -> None:
        self._channel = _Socket(fileno=end.channel)
        self._channel.setblocking(True)
        self._page = wire.Page(end.page)
        _write_crashes_into(end.page)
        self._outbox = Outbox(self._channel, self._page)
        self._settings = settings
        self._beside = None if end.beside is None else OwnedFd(end.beside)
        self._functions: dict[int, Any] = {}
        self._number = 0
        self._is_full = False
        self._in_task = False
        self._fence = threading.Lock()
        self._sent_ns = perf_counter_ns()
        self._since_sent = 0
        self._flush_streams: Callable[[], None] = _nothing
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, number: int, frame: object) -> None:
        """Take a ^C, or the pool's order to stop a task: it is for the task, if there is one."""
        if self._in_task:
            raise KeyboardInterrupt

    def initialize(self, initializer: Callable[..., Any] | None, initargs: Any) -> bool:
        """Run the initializer and say what came of it; return whether there are tasks to be taken."""
        self._flush_streams = streams.redirect(self._outbox, self._settings.has_logging)
        try:
            if initializer is not None:
                initializer(*initargs)
        except BaseException as error:
            if self._settings.log_initializer:
                import logging

                logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
            self._flush_streams()
            _, data = self._pack_error(error)
            self._outbox.send(wire.FAILED, 0, data[: wire.JOURNAL_BYTES])
            return False
        self._outbox.send(wire.READY, 0, b"")
        return True

    def serve(self) -> None:
        """Do what the pool says, until it says QUIT or is gone."""
        try:
            for kind, number, body in _records(self._channel):
                if kind == wire.TASKS:
                    self._run_tasks(number, body)
                    self._flush()
                elif kind == wire.FUNCTION:
                    self._functions[number] = _load_function(body)
                elif kind == wire.LARGE_FUNCTION:
                    self._functions[number] = _load_function(body, self._load_large)
                elif kind == wire.FORGET:
                    self._functions.pop(number, None)
                elif kind == wire.QUIT:
                    return
        except (BrokenPipeError, ConnectionResetError):  # the pool's process has gone
            return
        finally:
            self._flush_streams()

    def _run_tasks(self, count: int, body: memoryview) -> None:
        words, flags, functions = self._page.words, self._page.flags, self._functions
        self._sent_ns = perf_counter_ns()
        at = count * ENTRY.size
        for call, size in ENTRY.iter_unpack(body[:at]):
            payload = body[at : at + size]
            at += size
            self._number = number = self._number + 1
            words[BEGUN] = number
            # The pool sets the flag, then reads BEGUN; here it is the other way round. Whatever the
            # processor reorders, a lock does not let it: one of the two sees what the other has written.
            with self._fence:
                pass
            if flags[number % SLOTS] or self._is_full:
                if call & wire.BESIDE:
                    self._receive_beside(payload)
                self._outbox.put(wire.SKIPPED, number, b"")
            else:
                self._run(number, functions[call >> wire.WAY_BITS], call & _WAY_MASK, payload)
            words[FINISHED] = number
            self._since_sent += 1
            if perf_counter_ns() - self._sent_ns > _FLUSH_NS:
                self._flush()

    def _run(self, number: int, function: Any, way: int, payload: memoryview) -> None:
        """Run one task, and write what came of it."""
        given = _NOT_REBUILT
        try:
            self._in_task = True
            given = loads(payload) if way < wire.BESIDE else self._load_large(payload)
            result = _WAYS[way % wire.BESIDE](function, given)
            self._in_task = False
        except BaseException as error:
            self._in_task = False
            is_exit = isinstance(error, SystemExit) and given is not _NOT_REBUILT
            if is_exit and not self._settings.exit_is_outcome:
                self._flush()
                self._flush_streams()
                raise
            kind, data = self._pack_error(error)
            if kind == wire.ERROR and (given is _NOT_REBUILT or type(function) is _Unloadable):
                kind = wire.UNREBUILT
            self._outbox.put(kind, number, data)
            return
        if type(result) in _ATOMS:
            kind, data = wire.VALUE, _dumps_atom(result, 5)
            if len(data) < THRESHOLD_BYTES:
                self._outbox.put(kind, number, data)
                return
        kind, data = self._pack_result(result)
        self._outbox.put(kind, number, data)

    def _receive_beside(self, payload: memoryview) -> Any:
        """Take what has come beside a payload; it is to be held while that is loaded."""
        from bequest import passing

        token = token_of(payload)
        return None if token is None or self._beside is None else passing.receive_beside(self._beside, token)

    def _load_large(self, payload: memoryview) -> Any:
        held = self._receive_beside(payload)  # noqa: F841 - the loading finds it by its token
        return loads(payload)

    def _send_beside(self, data: Message) -> tuple[int, bytes]:
        from bequest import passing

        if passing.send_beside(self._beside, data.held):
            return wire.LARGE, data
        return wire.VALUE, b"".join(inline_message(data))

    def _pack_result(self, result: Any) -> tuple[int, bytes]:
        from bequest.reduction import pack_message

        try:
            data = pack_message(result, self._beside is not None)
            return self._send_beside(data) if type(data) is Message else (wire.VALUE, data)
        except BaseException as error:  # noqa: BLE001 - of the user's classes; it fails the task
            return wire.UNSENDABLE, _pack_unsendable(error, result)

    def _pack_error(self, error: BaseException) -> tuple[int, bytes]:
        text = _traceback_of(error)
        try:
            return wire.ERROR, _dumps((error, text))
        except BaseException as failure:  # noqa: BLE001 - of the user's classes; it fails the task
            return wire.UNSENDABLE, _pack_unsendable(failure, error, text)

    def _flush(self) -> None:
        now = perf_counter_ns()
        if self._since_sent:
            self._page.words[TASK_NS] = (now - self._sent_ns) // self._since_sent
        most = self._settings.most_bytes
        if most is not None and not self._is_full and _resident_bytes() > most:
            self._is_full = True
            self._outbox.send(wire.FULL, 0, b"")
        else:
            self._outbox.flush()
        self._sent_ns, self._since_sent = perf_counter_ns(), 0


def _write_crashes_into(page: int) -> None:
    """Have tracebacks of crashes written behind the journal; the pool shows them where it has to."""
    import faulthandler

    os.lseek(page, wire.LAST_WORDS_AT, os.SEEK_SET)
    faulthandler.enable(page)


def _nothing() -> None:
    pass


def _records(channel: Any) -> Iterator[tuple[int, int, memoryview]]:
    """Yield kind, number and content of the pool's records; a content is valid until the next is asked for.

    Raises:
        GarbledError: There is something else on the channel.
    """
    buffer = bytearray(_BUFFER_BYTES)
    view = memoryview(buffer)
    start = end = 0
    while True:
        if end - start >= 16:
            tag, number, length = HEAD.unpack_from(buffer, start)
            kind = wire.kind_of(tag)
            start += 16
            if length > _BUFFER_BYTES - 16:
                yield kind, number, _receive_long(channel, view[start:end], length)
                # What follows a long record was not received with it.
                start = min(end, start + length)
                continue
            while end - start < length:
                start, end = _receive(channel, buffer, start, end)
                if end < 0:
                    return
            yield kind, number, view[start : start + length]
            start += length
        else:
            start, end = _receive(channel, buffer, start, end)
            if end < 0:
                return


def _receive(channel: Any, buffer: bytearray, start: int, end: int) -> tuple[int, int]:
    """Receive behind `end`, after moving what is there to the front; the end is -1 where the channel ends."""
    if start:
        buffer[: end - start] = buffer[start:end]
        start, end = 0, end - start
    with memoryview(buffer) as view:
        count = channel.recv_into(view[end:])
    return (start, end + count) if count else (0, -1)


def _receive_long(channel: Any, beginning: memoryview, length: int) -> memoryview:
    content = memoryview(bytearray(length))
    at = min(len(beginning), length)
    content[:at] = beginning[:at]
    while at < length:
        count = channel.recv_into(content[at:])
        if count == 0:
            raise ConnectionResetError("the channel ended within a record")
        at += count
    return content


class _Unloadable:
    """A function that could not be rebuilt here; each of its tasks fails with what was raised."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __call__(self, *args: object, **kwargs: object) -> None:
        raise self._error


def _load_function(body: memoryview, load: Callable[[memoryview], Any] = loads) -> Any:
    try:
        return load(body)
    except BaseException as error:  # noqa: BLE001 - of the user's classes and modules
        return _Unloadable(error)


def _call(function: Any, payload: Any) -> Any:
    args, kwargs = payload
    return function(*args, **kwargs)


def _call_item(function: Any, item: Any) -> Any:
    return function(item)


def _call_arguments(function: Any, args: Any) -> Any:
    return function(*args)


def _call_chunk(function: Any, items: Any) -> Any:
    return list(map(function, items))


def _call_starred(function: Any, items: Any) -> Any:
    return list(itertools.starmap(function, items))


_WAYS = (_call, _call_item, _call_arguments, _call_chunk, _call_starred)


def _dumps(obj: Any) -> bytes:
    from bequest.reduction import ForkingPickler

    packed: bytes = ForkingPickler.dumps(obj)
    return packed


def _traceback_of(error: BaseException) -> str:
    """Return the traceback as text, without the frames of this module."""
    import traceback

    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


def _pack_unsendable(error: BaseException, value: Any, text: str = "") -> bytes:
    """Pack, in words, that `value` cannot be sent, because of `error`."""
    try:
        told = repr(value)[:_MOST_TOLD]
    except Exception:  # noqa: BLE001 - a user's method
        told = object.__repr__(value)
    trace = text or _traceback_of(error)
    try:
        return _dumps((error, repr(error), told, trace))
    except BaseException:  # noqa: BLE001 - the error itself holds what cannot be sent
        return _dumps((None, repr(error), told, trace))


def _resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
