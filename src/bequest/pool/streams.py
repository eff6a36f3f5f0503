"""What workers print and log, through the pool: whole lines, as the pool's process would have written them.

    worker: redirect() -> print, logging -> records       pool: show_text, show_record -> streams, handlers

A line is sent when it is complete, or when it is flushed by name, and before the outcome of its task. Only
what goes through `sys.stdout`, `sys.stderr` and `logging` takes this way; what native code writes, or a
program that a task starts, goes to the descriptors as ever.
"""

from __future__ import annotations

import io
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bequest.pool.worker import Outbox

_MOST_BYTES = 1 << 15  # of a record: it has to be shorter than what the pool takes without an announcement
_OUT, _ERR = 1, 2


class _Lines(io.TextIOBase):
    """A text stream in the place of `plain` that sends lines; in all else it is like that one."""

    def __init__(self, plain: Any, send: Callable[[bytes], None]) -> None:
        self._plain, self._send = plain, send
        self._text = ""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Write text; complete lines go out."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            lines, newline, rest = (self._text + text).rpartition("\n")
            self._text = rest
            if newline:
                self._send_text(lines + newline)
        return len(text)

    def flush(self) -> None:
        """Send what there is, be it less than a line."""
        with self._lock:
            text, self._text = self._text, ""
            self._send_text(text)

    def _send_text(self, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")
        for start in range(0, len(data), _MOST_BYTES):
            self._send(data[start : start + _MOST_BYTES])

    def writable(self) -> bool:
        """Return true."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of the stream that this one stands for."""
        return int(self._plain.fileno())

    def isatty(self) -> bool:
        """Return whether the stream that this one stands for is a terminal."""
        return bool(self._plain.isatty())

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute in the base
        """The encoding of the stream that this one stands for."""
        return str(getattr(self._plain, "encoding", None) or "utf-8")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._plain, name)


def redirect(outbox: Outbox, has_logging: bool) -> Callable[[], None]:
    """Send what this worker prints and logs from now on; return what sends the rest of it.

    Args:
        outbox: Of the worker.
        has_logging: Whether the pool's process has log handlers that records are to go to.
    """
    from functools import partial

    from bequest.pool import wire

    flushes = []
    for number, name in ((_OUT, "stdout"), (_ERR, "stderr")):
        plain = getattr(sys, name)
        if plain is not None:
            lines = _Lines(plain, partial(outbox.send, wire.TEXT, number))
            setattr(sys, name, lines)
            flushes.append(lines.flush)
    if has_logging:
        _forward_records(partial(outbox.send, wire.RECORD, 0))

    def flush() -> None:
        for one in flushes:
            try:
                one()
            except OSError:  # the pool's process has gone, and with it whoever would read
                return

    return flush


def has_handlers() -> bool:
    """Tell whether this process has any log handlers."""
    logging = sys.modules.get("logging")
    if logging is None:
        return False
    known = [logging.root, *logging.root.manager.loggerDict.values()]
    return any(getattr(logger, "handlers", None) for logger in known)


def _forward_records(send: Callable[[bytes], None]) -> None:
    """Put one handler that sends records in the place of those that came from the pool's process."""
    import logging

    class Forward(logging.Handler):
        """Sends each record once, however many loggers have this handler."""

        def emit(self, record: logging.LogRecord) -> None:
            if not getattr(record, "_bequest_sent", False):
                record._bequest_sent = True
                try:
                    send(_pack_record(record))
                except OSError:  # as above
                    return
                except Exception:  # noqa: BLE001 - as every handler does
                    self.handleError(record)

    forward = Forward()
    replaced = vars(forward).setdefault("_replaced", [])  # they are the program's: not to be closed
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        own = getattr(logger, "name", None) == "multiprocessing"  # it tells of processes, and while they end
        if getattr(logger, "handlers", None) and not own and isinstance(logger, logging.Logger):
            replaced += logger.handlers
            logger.handlers[:] = [forward]


def _pack_record(record: Any) -> bytes:
    """Return a record with its text complete, and of the rest what can be sent."""
    import logging
    import pickle

    fields = dict(record.__dict__)
    fields.pop("_bequest_sent", None)
    fields.update(msg=record.getMessage(), args=None)
    if record.exc_info:
        fields.update(exc_text=logging.Formatter().formatException(record.exc_info), exc_info=None)
    try:
        data = pickle.dumps(fields)
    except Exception:  # noqa: BLE001 - something that the program has put there
        plain = (str, int, float, bool, type(None))
        data = pickle.dumps({name: value for name, value in fields.items() if isinstance(value, plain)})
    if len(data) > _MOST_BYTES:
        kept = ("name", "levelname", "levelno", "process", "processName", "created")
        short = {name: fields[name] for name in kept}
        data = pickle.dumps({**short, "msg": fields["msg"][: _MOST_BYTES // 8] + " [cut]"})
    return data


def show_text(number: int, text: str) -> None:
    """Write what a worker has written, as this process would."""
    stream = sys.stderr if number == _ERR else sys.stdout
    if stream is not None:
        try:
            stream.write(text)
            stream.flush()
        except (OSError, ValueError):  # closed, or full: what this process prints itself is lost as well
            return


def show_record(content: Any) -> None:
    """Give what a worker has logged to the handlers of this process."""
    import logging
    import pickle

    record = logging.makeLogRecord(pickle.loads(content))
    logging.getLogger(record.name).callHandlers(record)
