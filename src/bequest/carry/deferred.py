"""What a message to a running process does not bring unasked: large state, and what must not exist twice.

    sender:   in_place_of(values, where) -> values, some of them Deferred          (they are packed instead)
    receiver: one that it needs -> Deferred.fetch() -> the sender's server -> packed now -> the value

A function or class by value brings the globals that its code reads, and most receivers have these already: a
pool's workers have had them with the task before, a forked process from its birth, and the process that an
object comes home to has made them. So the large ones are left out, and a receiver asks for what it has not.
Left out as well is what releases something when it goes (its class has a `__del__`): a copy that is dropped
would release what belongs to another.

Only the main process of a program leaves something out, and only where its message goes beside a channel for
descriptors: a child may have ended when what it has sent is read, and who is connected otherwise may be
another program.

The server is a thread of the sender, started with the first message that leaves something out. It knows only
the program's own processes, by their authentication key, and gives only what a module, class or function
holds by name.
"""

from __future__ import annotations

import _thread
import gc
import os
import select
import sys
from types import BuiltinFunctionType, FunctionType, ModuleType

from bequest.carry import identity
from bequest.carry.remember import Remembered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.connection import Connection, Listener
    from typing import Any

    Where = tuple[Any, ...]  # a module's name or the token of a class or function, steps from there, a name

MOST_OBJECTS = 1000
"""A value that holds more is left out; to pack that many takes about as long as to ask for them."""

MOST_BYTES = 1 << 16
"""So is one with more bytes of texts, buffers and containers."""

UNDER_WAY: Any = object()

_LEAVES = frozenset((int, float, complex, bool, type(None), FunctionType, BuiltinFunctionType, ModuleType))
_PATIENCE_S = 60.0
_PAUSE_S = 0.05  # where there are no descriptors, until there may be some again
_BACKLOG = 128  # who may wait to be answered
_CONTAINERS = (dict, list, tuple, set, frozenset)
_releasing = Remembered()


class Deferred:
    """Stands in a message for a value that its receiver may ask for.

    Attributes:
        releases: Whether the value releases something when it goes.
    """

    __slots__ = ("_address", "_where", "releases")

    def __init__(self, address: Any, where: Where, releases: bool) -> None:
        self._address, self._where, self.releases = address, where, releases

    def __reduce__(self) -> tuple[Any, ...]:
        return Deferred, (self._address, self._where, self.releases)

    def fetch(self) -> Any:
        """Ask for the value and return it, or `UNDER_WAY` where this thread is about to have it.

        Of a sender that has ended, the value is a stand-in that says so.
        """
        asked = (self._address, self._where)
        if asked in _under_way.slots:
            return UNDER_WAY
        _under_way.slots.add(asked)
        try:
            return self._ask()
        finally:
            _under_way.slots.discard(asked)

    def _ask(self) -> Any:
        import marshal
        import pickle
        from multiprocessing import AuthenticationError, process
        from multiprocessing.connection import Client

        try:
            key = bytes(process.current_process().authkey)
            with Client(self._address, authkey=key) as end:
                end.send_bytes(marshal.dumps(self._where))
                if not end.poll(_PATIENCE_S):
                    raise TimeoutError(f"nothing for {_PATIENCE_S:.0f} s")
                answer = end.recv_bytes()
        except (OSError, EOFError, AuthenticationError) as error:
            return _left_behind(self._where, f"its sender does not answer ({error or type(error).__name__})")
        return pickle.loads(answer)


class _UnderWay(_thread._local):  # `threading.local`, without its module
    """What this thread is asking for: the answer may mention it again."""

    def __init__(self) -> None:
        self.slots: set[Any] = set()


_under_way = _UnderWay()


def _left_behind(where: Where, reason: str) -> Any:
    from bequest.carry.leftbehind import Explanation, LeftBehind

    holder = where[0] if isinstance(where[0], str) else where[0][2]
    path, remedy = (
        f"{holder}.{where[-1]}",
        "Pass it as an argument, or keep its sender alive until it is read",
    )
    return LeftBehind(Explanation(path, "large state", reason, remedy))


# -- the sender's side ---------------------------------------------------------------------------------------


def in_place_of(values: dict[Any, Any], holder: Any, *steps: Any) -> dict[Any, Any]:
    """Return `values` with a `Deferred` in the place of what is left out of a message.

    Args:
        values: State of one holder, by name.
        holder: The name of a module, or a class or function.
        steps: The route from it to what holds the values, as of `arrival.step`; none for itself.
    """
    from multiprocessing import process

    if process.parent_process() is not None:  # others may read what it has sent when it has ended
        return values
    found = {}
    for name, value in values.items():
        releases = _is_left_out(value)
        if releases is not None:
            try:
                address = _server.address()
            except (OSError, RuntimeError):  # no descriptors, or no more threads
                return values
            known_as = holder if isinstance(holder, str) else identity.token_of(holder)
            found[name] = Deferred(address, (known_as, *steps, name), releases)
    return values | found if found else values


def _is_left_out(value: Any) -> bool | None:
    """Tell whether a value is left out: False for its size, True for what it releases, None for neither."""
    seen: set[int] = set()
    size = 0
    ahead = [value]
    while ahead:
        obj = ahead.pop()
        kind = type(obj)
        if kind in _LEAVES or issubclass(kind, type | ModuleType) or id(obj) in seen:
            continue
        if _releases(kind):
            return True
        seen.add(id(obj))
        size += _bytes_of(obj, kind)
        if size > MOST_BYTES or len(seen) > MOST_OBJECTS:
            return False
        if not _goes_its_own_way(kind):
            ahead += gc.get_referents(obj)
    return None


def _goes_its_own_way(kind: type) -> bool:
    """Tell whether what is packed of an object is not all that it holds: a logger is its name."""
    is_standard = kind.__module__.partition(".")[0] in sys.stdlib_module_names
    return is_standard and not issubclass(kind, _CONTAINERS)


def _releases(kind: type) -> bool:
    known: bool | None = _releasing.get(kind)
    if known is None:
        known = any(type(base.__dict__.get("__del__")) is FunctionType for base in kind.__mro__)
        _releasing.put(kind, known)
    return known


def _bytes_of(obj: Any, kind: type) -> int:
    if (kind.__module__, kind.__qualname__) == ("numpy", "ndarray"):
        return int(obj.nbytes)  # a view has no memory of its own
    sizeof: Any = kind.__sizeof__
    return 0 if type(sizeof) is FunctionType else int(sizeof(obj))  # a user's is not asked


class _Server:
    """Answers those who ask; one in each process, a forked one begins with none."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._lock = _thread.allocate_lock()
        self._listener: Listener | None = None
        self._address: Any = None

    def begin_in_child(self) -> None:
        """Give up what a forked process has of its parent's."""
        if self._listener is not None:
            self._listener.close()
        self._forget()

    def address(self) -> Any:
        """Return where it listens; it is started where it does not."""
        with self._lock:
            if self._listener is None:
                listener, address = _listen()
                try:
                    _start_thread(_serve, self, listener)
                except RuntimeError:
                    listener.close()
                    raise
                self._listener, self._address = listener, address
            return self._address

    def is_served_by(self, listener: Listener) -> bool:
        """Tell whether `listener` is, or is about to be, the one."""
        return self._listener in (None, listener)


def _listen() -> tuple[Listener, Any]:
    from multiprocessing.connection import Listener

    if sys.platform != "linux":
        listener = Listener(backlog=_BACKLOG)
        return listener, listener.address
    # A name in no file system, so that nothing is left of it whoever is killed.
    address = f"\0bequest-{os.getpid()}-{os.urandom(8).hex()}"
    return Listener(address, "AF_UNIX", backlog=_BACKLOG), address


def _start_thread(work: Any, *given: Any) -> None:
    import threading

    threading.Thread(target=work, args=given, name="bequest-deferred", daemon=True).start()


def _serve(server: _Server, listener: Listener) -> None:
    import signal

    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        try:
            end: Any = listener.accept()
        except OSError:
            if not server.is_served_by(listener):
                return
            select.select([], [], [], _PAUSE_S)
            continue
        try:
            _start_thread(_answer, end)  # whoever connects and says nothing delays nobody
        except RuntimeError:
            _answer(end)


def _answer(end: Connection) -> None:
    import marshal
    from multiprocessing import AuthenticationError, connection, process

    key = bytes(process.current_process().authkey)
    with end:
        try:
            connection.deliver_challenge(end, key)
            connection.answer_challenge(end, key)
            where = marshal.loads(end.recv_bytes())
            end.send_bytes(_pack(where))
        except (OSError, EOFError, AuthenticationError):  # it has ended, or is none of ours
            return


def _pack(where: Where) -> bytes:
    from bequest.carry import pickler

    try:
        value = _find(where)
    except (LookupError, AttributeError):
        value = _left_behind(where, "its sender has deleted it since")
    return pickler.pack_leniently(value)


def _find(where: Where) -> Any:
    from bequest.carry.arrival import step

    holder, *steps, name = where
    found: Any = sys.modules[holder] if isinstance(holder, str) else identity.find(holder, object)
    for one in steps:
        found = step(found, one)
    return step(found, name) if isinstance(name, int) else found.__dict__[name]


_server = _Server()
os.register_at_fork(after_in_child=_server.begin_in_child)
