"""How bequest's queues put and close: the methods that differ from multiprocessing's, made out of those.

    put(obj) -> Packed(message) -> the standard library's put -> feeder thread -> QueuePickler -> pipe

An item is pickled by `put`, so that it is a snapshot, and what cannot be carried is an error there rather
than a traceback from a thread and a reader that waits for ever. A queue that is closed before its first
`put` gives its pipe back. Large data goes beside the pipe (`passing`).

`bequest.queues` has these methods in subclasses; `bequest.install` puts them into the standard library's own
classes while those are imported, which is why this module must not import them.
"""

from __future__ import annotations

import pickle

from bequest.errors import CarryError
from bequest.reduction import ForkingPickler, pack_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any


class Packed:
    """An item that `put` has pickled, on its way to the feeder thread."""

    __slots__ = ("data",)

    def __init__(self, data: Any) -> None:
        self.data = data


class QueuePickler(ForkingPickler):
    """What the feeder thread calls: it takes a packed item as it is."""

    @classmethod
    def dumps(cls, obj: Any, protocol: int | None = None) -> Any:
        """Return the pickle of `obj`, which `put` may have made already; errors as of `ForkingPickler`."""
        return obj.data if type(obj) is Packed else ForkingPickler.dumps(obj, protocol)


def methods(plain: ModuleType) -> list[tuple[str, str, Callable[..., None]]]:
    """Return (class name, method name, method) for each method of the classes of `plain` that differs here.

    Args:
        plain: multiprocessing.queues.
    """
    report = plain.Queue._on_queue_feeder_error
    return [
        ("Queue", "put", _packing(vars(plain.Queue)["put"], report)),
        ("JoinableQueue", "put", _packing(vars(plain.JoinableQueue)["put"], report)),
        ("Queue", "close", _giving_back(vars(plain.Queue)["close"])),
        ("SimpleQueue", "put", _put_simply),
    ]


def _packing(plain_put: Callable[..., None], report: Callable[..., None]) -> Callable[..., None]:
    def put(self: Any, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put `obj` as it is now; raises CarryError, with nothing put, if it cannot be carried."""
        # concurrent.futures overrides the report, and needs the item itself with the error; and a full queue
        # is no reason to work for an item that may be tried again and again.
        if self._on_queue_feeder_error is report and (block or self._closed or not self.full()):
            try:
                obj = _pack(obj, self._writer)
            except CarryError as error:
                raise error.with_traceback(None) from error.__cause__  # it says all: see `errors.branch`
        plain_put(self, obj, block, timeout)

    return put


def _put_simply(self: Any, obj: Any) -> None:
    """Put `obj`; raises CarryError, with nothing put, if it cannot be carried."""
    packed = _message(obj, self._writer)
    if self._wlock is None:  # Windows, where a message is written as a whole
        self._writer.send_bytes(packed)
        return
    with self._wlock:
        self._writer.send_bytes(packed)


def _message(obj: Any, writer: Any) -> Any:
    return pack_message(obj, getattr(writer, "_beside", None) is not None)


def _pack(obj: Any, writer: Any) -> Any:
    if type(obj) is Packed:
        return obj
    try:
        return Packed(_message(obj, writer))
    except (pickle.PicklingError, TypeError):
        raise
    except Exception:  # noqa: BLE001 - of the user's code; raised again in the thread, and reported as usual
        return obj


def _giving_back(plain_close: Callable[..., None]) -> Callable[..., None]:
    def close(self: Any) -> None:
        """Say that this process puts no more; a queue into which it has put nothing gives its pipe back.

        Where there is a feeder thread, that closes both ends when the last item is sent. A reader that a
        thread of this process is waiting on stays open: its descriptor could become another file's under
        it.
        """
        plain_close(self)
        with self._notempty:
            if self._thread is None and self._rlock._semlock._count() == 0:
                self._reader.close()
                self._writer.close()
                self._poll = _never

    return close


def _never(timeout: float | None = 0.0) -> bool:
    """Be `_poll` of a closed pipe, so that `empty()` goes on to answer."""
    return False
