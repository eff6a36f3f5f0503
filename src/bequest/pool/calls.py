"""How a pool packs what it sends: functions, once for each worker, and the arguments of each task.

    function -> FunctionTable.find -> FunctionRef: a number that workers know it by, and its pickle
    args, kwargs -> pack_call -> way of calling, payload

A function is packed again when a name that it reads has been bound anew, and at each call where it holds
objects that may have changed; workers hear of it only if the pickle is another one. All packing of payloads
is here, and runs in the thread that makes the call: an error is the caller's, and a task is a snapshot.
"""

from __future__ import annotations

import itertools
import pickle
import reprlib
from collections import deque
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ref

from bequest.carry import buffers, pickler
from bequest.carry.arrival import cell_contents
from bequest.carry.graph import PROTOCOL
from bequest.carry.instances import ATOMS
from bequest.errors import CarryError
from bequest.launch.watched import watching
from bequest.pool import wire
from bequest.reduction import pack_message

_dumps = pickle.dumps
_MOST_READ = 4096  # bytes of a payload that are read again to describe its task
_describer = reprlib.Repr()
_describer.maxother = _describer.maxstring = 60


class FunctionRef:
    """One packed function, as it was at one time.

    Attributes:
        number: What workers know it by.
        data: Its pickle, a `buffers.Message` where it is large.
        name: What it is called in messages.
        task_ns: How long its tasks take, as measured last; 0 while nobody knows.
        is_single: Whether it can be sent once only, as it holds descriptors that wait for one receiver.
    """

    __slots__ = (
        "__weakref__",
        "_gone",
        "data",
        "dependence",
        "is_single",
        "keep",
        "name",
        "number",
        "task_ns",
    )

    def __init__(self, number: int, function: Any, packed: pickler.Packed, gone: deque[int]) -> None:
        self.number, self._gone = number, gone
        self.data = buffers.message_of(packed.stream)
        self.keep, self.dependence = packed.keep, packed.dependence
        self.name = _name_of(function)
        self.task_ns = 0
        self.is_single = bool(packed.shared)

    def __del__(self) -> None:
        self._gone.append(self.number)

    def is_made_of(self, packed: pickler.Packed) -> bool:
        """Tell whether workers would get the same if they were sent `packed`."""
        if type(self.data) is buffers.Message:
            return buffers.is_made_of(self.data, packed.stream)
        return not packed.stream.is_large and self.data == packed.data


class FunctionTable:
    """The functions of one pool. Used by one thread at a time for each function; safe to use from several.

    Attributes:
        gone: Numbers of functions that no task needs any more; workers are told with what goes to them next.
    """

    def __init__(self) -> None:
        self.gone: deque[int] = deque()
        self._numbers = itertools.count(1)
        self._known: dict[Any, tuple[ref[Any], FunctionRef, bool]] = {}

    def find(self, function: Any) -> FunctionRef:
        """Return what workers know `function` by, as it is now.

        Raises:
            CarryError: It cannot be carried.
        """
        anchor, key = _anchor_of(function)
        entry = self._known.get(key)
        if entry is None or entry[0]() is not anchor:
            return self._add(function, anchor, key)
        _, found, is_fixed = entry
        if is_fixed and found.dependence.holds():
            return found
        packed = _pack_function(function)
        if not packed.shared and found.is_made_of(packed):
            found.dependence = packed.dependence
            return found
        return self._add(function, anchor, key, packed)

    def _add(self, function: Any, anchor: Any, key: Any, packed: pickler.Packed | None = None) -> FunctionRef:
        if packed is None:
            packed = _pack_function(function)
        made = FunctionRef(next(self._numbers), function, packed, self.gone)
        if packed.shared:  # descriptors that wait for one receiver: the next call needs others
            return made
        known = self._known

        def forget(gone: ref[Any]) -> None:
            if key in known and known[key][0] is gone:
                del known[key]

        try:
            known[key] = (ref(anchor, forget), made, _is_fixed(function))
        except TypeError:  # nothing tells when it goes: it is packed for each call
            pass
        return made


def _pack_function(function: Any) -> pickler.Packed:
    if watching.watcher is not None:
        watching.watcher.sends(function)
    try:
        return pickler.pack(function, beside=True)
    except CarryError as error:
        raise error.with_traceback(None) from error.__cause__  # it says all: see `errors.branch`


def _anchor_of(function: Any) -> tuple[Any, Any]:
    """Return the object whose life is that of a function, and its key: each look makes a bound method."""
    if type(function) is MethodType:
        return function.__self__, (id(function.__self__), id(function.__func__))
    return function, id(function)


def _is_fixed(value: Any, depth: int = 0) -> bool:
    """Tell whether nothing that travels with `value` can change but by the binding of a name."""
    kind = type(value)
    if kind in ATOMS or kind in (BuiltinFunctionType, ModuleType) or isinstance(value, type):
        return kind is not BuiltinFunctionType or isinstance(value.__self__, ModuleType | type(None))
    if depth > 10:
        return False
    if kind is FunctionType:
        held = [content for cell in value.__closure__ or () for content in cell_contents(cell)]
        held += [
            *(value.__defaults__ or ()),
            *(value.__kwdefaults__ or {}).values(),
            *value.__dict__.values(),
        ]
        return all(_is_fixed(part, depth + 1) for part in held)
    if kind is MethodType:
        return isinstance(value.__self__, type) and _is_fixed(value.__func__, depth + 1)
    if kind in (tuple, frozenset):
        return all(_is_fixed(part, depth + 1) for part in value)
    return False


def pack_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, bytes]:
    """Return the way of calling and the payload for `function(*args, **kwargs)`.

    Raises:
        CarryError: Some part of it cannot be carried.
    """
    if kwargs:
        return wire.CALL, pack((args, kwargs))
    if ATOMS.issuperset(map(type, args)):
        data = _dumps(args, PROTOCOL)
        if len(data) < buffers.THRESHOLD_BYTES:
            return wire.ARGUMENTS, data
    return wire.ARGUMENTS, pack(args)


def pack(value: Any) -> bytes:
    """Return the payload that is `value`, a `buffers.Message` where it is large; errors as of `pack_call`."""
    if type(value) in ATOMS:
        data = _dumps(value, PROTOCOL)
        if len(data) < buffers.THRESHOLD_BYTES:
            return data
    try:
        packed: bytes = pack_message(value, True)
    except CarryError as error:
        raise error.with_traceback(None) from error.__cause__  # as above
    return packed


def describe(function: FunctionRef, way: int, data: bytes) -> str:
    """Return a task in words, for an error: its function and, where they are plain data, its arguments."""
    if len(data) > _MOST_READ or b"\x93" in data or b"c" in data and _has_global(data):
        return f"{function.name}(...)"
    try:
        value = pickle.loads(data)
    except Exception:  # noqa: BLE001 - then it is described without
        return f"{function.name}(...)"
    if way == wire.CALL:
        args, kwargs = value
        given = [*map(_describer.repr, args), *(f"{k}={_describer.repr(v)}" for k, v in kwargs.items())]
    elif way == wire.ARGUMENTS:
        given = list(map(_describer.repr, value))
    else:
        given = [_describer.repr(value)]
    return f"{function.name}({', '.join(given)})" if way < wire.CHUNK else f"{function.name} of {given[0]}"


def _has_global(data: bytes) -> bool:
    """Tell whether rebuilding a pickle would call or import anything."""
    import pickletools

    called = {"GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "INST", "OBJ", "PERSID"}
    return any(op.name in called or op.name.startswith("EXT") for op, _, _ in pickletools.genops(data))


def _name_of(function: Any) -> str:
    for part in (function, getattr(function, "func", None)):
        name = getattr(part, "__qualname__", None) or getattr(part, "__name__", None)
        if isinstance(name, str):
            return name
    return type(function).__qualname__
