"""Say whether the calling thread is the one that holds a plain lock, which does not record its owner.

    holds(lock) -> the frames of this thread, read backwards from where each of them stands -> bool

A locked lock is held by the caller where no other thread runs, or where one of the caller's frames stands
inside `with LOCK:` or behind `LOCK.acquire()` and names that very lock (or a `Condition` on it) by names,
attributes and subscripts. No code of the program is run to find out: attributes are read from instance dicts
and slots alone. All else (an `acquire()` in a function that has returned, while others run) counts as not
held: a child that finds the lock free can go on, one that waits for a thread it lacks hangs for ever.

Used by the sender only.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import CodeType, FrameType, MemberDescriptorType
from typing import Any

_UNKNOWN: Any = object()
# What stands between the expression of a `with` and its protected block: BEFORE_WITH up to 3.13, from 3.14 on
# the two lookups and the call of __enter__.
_ENTERING = frozenset(
    ("BEFORE_WITH", "COPY", "LOAD_SPECIAL", "SWAP", "CALL", "PRECALL", "NOP", "CACHE", "PUSH_NULL")
)
_ATTRIBUTE = frozenset(("LOAD_ATTR", "LOAD_METHOD"))
_Step = tuple[int, str, Any]
"""Offset, name and argument of an instruction; superinstructions are split into two steps of one offset."""


def holds(lock: Any) -> bool:
    """Tell whether the calling thread holds `lock`, which is locked."""
    if len(sys._current_frames()) == 1:
        return True
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _may_take(frame.f_code) and _has_taken(frame, lock):
            return True
        frame = frame.f_back
    return False


def _may_take(code: CodeType) -> bool:
    return bool(code.co_exceptiontable) or "acquire" in code.co_names


def _has_taken(frame: FrameType, lock: Any) -> bool:
    steps = list(_steps(frame.f_code))
    reader = _Reader(frame, steps)
    if any(_is(reader.value_entered(start), lock) for start in _withs_around(frame, steps)):
        return True
    return _acquired_before(frame.f_lasti, reader, lock)


def _is(value: Any, lock: Any) -> bool:
    return value is lock or (isinstance(value, threading.Condition) and vars(value).get("_lock") is lock)


def _acquired_before(position: int, reader: _Reader, lock: Any) -> bool:
    """Tell whether the last `acquire` or `release` of `lock` before `position` is an `acquire`."""
    taken = False
    for index, (offset, name, argument) in enumerate(reader.steps):
        if offset >= position:
            break
        if (
            name in _ATTRIBUTE
            and argument in ("acquire", "release")
            and _is(reader.value(index - 1)[0], lock)
        ):
            taken = argument == "acquire"
    return taken


def _withs_around(frame: FrameType, steps: list[_Step]) -> Iterator[int]:
    """Yield, from the inside out, where the `with` blocks around the frame's position begin."""
    import dis

    entries = dis.Bytecode(frame.f_code).exception_entries  # type: ignore[attr-defined]
    names = [name for _, name, _ in steps]
    index_at = {offset: index for index, (offset, _, _) in reversed(list(enumerate(steps)))}
    position, seen = frame.f_lasti, set()
    while True:
        target = next((entry.target for entry in entries if entry.start <= position < entry.end), None)
        if target is None or target in seen:
            return
        handler = index_at[target]
        if names[handler : handler + 2] == ["PUSH_EXC_INFO", "WITH_EXCEPT_START"]:
            yield min(entry.start for entry in entries if entry.target == target)
        # A handler is itself covered by what is around its block.
        seen.add(target)
        position = target


def _steps(code: CodeType) -> Iterator[_Step]:
    import dis

    for instruction in dis.get_instructions(code):
        name, argument = instruction.opname, instruction.argval
        if isinstance(argument, tuple) and len(argument) == 2 and "_FAST_" in name:
            yield instruction.offset, "LOAD_FAST" if name.startswith("LOAD") else "STORE_FAST", argument[0]
            yield instruction.offset, "LOAD_FAST" if "_LOAD_FAST" in name else "STORE_FAST", argument[1]
        elif name.startswith("BINARY_OP") and instruction.argrepr == "[]":
            yield instruction.offset, "BINARY_SUBSCR", None
        else:
            yield instruction.offset, name, argument


class _Reader:
    """Reads what simple expressions of a frame stand for, without running them."""

    def __init__(self, frame: FrameType, steps: list[_Step]) -> None:
        self.steps = steps
        self._locals, self._globals = frame.f_locals, frame.f_globals

    def value_entered(self, start: int) -> Any:
        """Return what the `with` whose block begins at offset `start` was given."""
        index = next((i for i, (offset, _, _) in enumerate(self.steps) if offset >= start), 0) - 1
        while index >= 0 and self.steps[index][1] in _ENTERING:
            index -= 1
        return self.value(index)[0]

    def value(self, index: int) -> tuple[Any, int]:
        """Return the value that the step at `index` leaves on the stack, and the index before it all."""
        while index >= 0 and self.steps[index][1] in ("PUSH_NULL", "CACHE", "NOP"):
            index -= 1
        if index < 0:
            return _UNKNOWN, index
        _, name, argument = self.steps[index]
        if name in _ATTRIBUTE:
            owner, before = self.value(index - 1)
            return _attribute(owner, argument), before
        if name == "BINARY_SUBSCR":
            key, before = self.value(index - 1)
            container, before = self.value(before)
            return _item(container, key), before
        return self._loaded(name, argument), index - 1

    def _loaded(self, name: str, argument: Any) -> Any:
        if name in ("LOAD_CONST", "LOAD_SMALL_INT"):
            return argument
        if name == "LOAD_GLOBAL":
            return self._globals.get(argument, _UNKNOWN)
        if name.startswith(("LOAD_FAST", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF")):
            return self._locals.get(argument, self._globals.get(argument, _UNKNOWN))
        return _UNKNOWN


def _attribute(owner: Any, name: str) -> Any:
    import inspect

    if owner is _UNKNOWN:
        return _UNKNOWN
    found = inspect.getattr_static(owner, name, _UNKNOWN)
    if isinstance(found, MemberDescriptorType):
        try:
            return found.__get__(owner)
        except AttributeError:  # a slot that is not set
            return _UNKNOWN
    return found


def _item(container: Any, key: Any) -> Any:
    if type(container) not in (dict, list, tuple) or type(key) not in (int, str):
        return _UNKNOWN
    try:
        return container[key]
    except (KeyError, IndexError, TypeError):
        return _UNKNOWN
