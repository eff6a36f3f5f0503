"""multiprocessing.reduction with bequest's pickler in place of its `ForkingPickler`.

    ForkingPickler.dumps(obj) -> values that pickle itself knows: the C pickler, at once
                              -> everything else: bequest.carry.pickler.dumps

Registrations are shared with the standard library's class, whichever of the two they are made through. The
carrying side is loaded with the first message that needs it, so that neither a program that sends nothing nor
a child that only receives, or answers with numbers and texts, pays for it.
"""

from __future__ import annotations

import pickle
from multiprocessing import reduction as _plain

from bequest.errors import CarryError
from bequest.launch.watched import watching
from bequest.mirror import reflect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.reduction import AbstractReducer as AbstractReducer
    from multiprocessing.reduction import DupFd as DupFd
    from multiprocessing.reduction import recv_handle as recv_handle
    from multiprocessing.reduction import send_handle as send_handle
    from typing import Any, NoReturn

    from bequest.carry.buffers import Stream


class ForkingPickler(_plain.ForkingPickler):
    """The pickler of messages: the interface of multiprocessing's, and all that bequest carries.

    A class derived from it that has a `reducer_override` or a `dispatch_table` of its own pickles as it does
    when derived from multiprocessing's.
    """

    def __init__(self, file: Any, protocol: int | None = None) -> None:
        super().__init__(file, protocol)
        self._write, self._registered = file.write, len(self.dispatch_table)

    def dump(self, obj: Any) -> None:
        """Write one pickle of `obj` to the file; raises CarryError, with nothing written, if it cannot be."""
        if type(self) is ForkingPickler and len(self.dispatch_table) == self._registered:
            self._write(self.dumps(obj))
        else:
            super().dump(obj)

    @classmethod
    def dumps(cls, obj: Any, protocol: int | None = None) -> Any:
        """Return a pickle of `obj` as a bytes-like object.

        Args:
            obj: What to send.
            protocol: Accepted as in multiprocessing; the highest is written in any case.

        Raises:
            CarryError: It, or a part of it, cannot be carried.
        """
        if cls is not ForkingPickler:
            return super().dumps(obj, protocol)
        if watching.watcher is not None:
            watching.watcher.sends(obj)
        known = _pickle_known(obj)
        if known is not None:
            return known.joined()
        from bequest.carry.pickler import dumps

        try:
            return dumps(obj)
        except CarryError as error:
            raise error.with_traceback(None) from error.__cause__  # it says all: see `errors.branch`

    loads = pickle.loads


class _UnknownError(Exception):
    """The value holds something other than what pickle has opcodes for."""


class _KnownOnly(pickle.Pickler):
    """Pickles built-in values and containers of exact type, which need no reducer; else it gives up."""

    def reducer_override(self, obj: Any) -> NoReturn:
        raise _UnknownError


def _pickle_known(obj: Any) -> Stream | None:
    """Return a pickle of `obj`, or None where it is not made of built-in values alone, or too deep."""
    from bequest.carry.buffers import Stream

    stream = Stream()
    try:
        _KnownOnly(stream, pickle.HIGHEST_PROTOCOL).dump(obj)
    except (_UnknownError, RecursionError):
        return None
    return stream


def pack_message(obj: Any, beside: bool) -> Any:
    """Return a pickle of `obj` as a bytes-like object; what is large is beside it where `beside` says so.

    Raises:
        CarryError: As of `ForkingPickler.dumps`.
    """
    if not beside:
        return ForkingPickler.dumps(obj)
    if watching.watcher is not None:
        watching.watcher.sends(obj)
    known = _pickle_known(obj)
    if known is not None:
        from bequest.carry.buffers import message_of

        return message_of(known)
    from bequest.carry.pickler import message

    return message(obj)


register = ForkingPickler.register

reflect(_plain, globals(), ForkingPickler=ForkingPickler, register=register)
