"""The pass in Python, for graphs deeper than the recursion of the C pickler.

pack_deep(obj, file, options) -> the pickler, done
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
import threading
from types import FunctionType
from typing import Any

from bequest.carry.graph import PROTOCOL, PackingPickler

_PythonPickler: Any = pickle._Pickler  # private, the same in all versions
_save_builtin = _PythonPickler.save
_BUILTIN_KINDS = frozenset(_PythonPickler.dispatch) - {type, FunctionType}


def _limit_recursion(limit: int) -> bool:
    """Set the recursion limit, if this thread is not deeper already, and tell whether it was set."""
    try:
        sys.setrecursionlimit(limit)
    except RecursionError:
        return False
    return True


# A graph is no deeper than there are objects, but reducers may make some: so many, and three for
# each that was there.
_MADE_MEANWHILE = 5000
_DEEPEST = 10_000_000
_USUAL_ROOM = 5000  # of frames, for a user's method
_STEP = 1000  # of frames: how exactly the depth in use is known


class _Turn:
    """Whose turn it is to change the recursion limit, which is the interpreter's.

    Attributes:
        lock: Reentrant, as an object's own way to be pickled may pack something deep in its turn.
        usual: The limit to go back to; None while no pass is being made.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.usual: int | None = None

    def begin_in_child(self) -> None:
        """Free a forked child of the pass that a thread of its parent was making."""
        usual = self.usual
        self.lock, self.usual = threading.RLock(), None
        if usual is not None:
            _limit_recursion(usual)  # if this very thread was making one, deeper down, the limit stays


_turn = _Turn()
os.register_at_fork(after_in_child=_turn.begin_in_child)


class DeepPickler(PackingPickler, _PythonPickler):  # type: ignore[misc]
    """The pass in Python, for graphs deeper than the C pickler's recursion.

    Calls from Python to Python take no C stack, except (in 3.11) those with starred arguments, so that `save`
    must not pass a reduction on as `save_reduce(*reduced)`, which is what it does in the base class.
    """

    is_deep = True
    _level = _made = _most_made = 0
    _present: frozenset[int] = frozenset()
    _depth = _STEP  # frames in use at the last look, rounded up

    def pack(self, obj: Any) -> None:
        """Write the message, under a recursion limit that hundreds of thousands of levels fit in."""
        with _turn.lock:
            outer, limit = _turn.usual, sys.getrecursionlimit()
            self._present = frozenset(map(id, gc.get_objects()))
            self._most_made = _MADE_MEANWHILE + gc.get_freeze_count()
            _turn.usual = limit if outer is None else outer
            try:
                sys.setrecursionlimit(max(limit, _DEEPEST))
                super().pack(obj)
            finally:
                sys.setrecursionlimit(limit)
                _turn.usual = outer

    def own_way(self, obj: Any) -> Any:
        """Ask an object for its own reduction, with as much room for recursion as it usually has.

        More would let a method that calls itself for ever, or packs something deep in its turn, run through C
        into the end of the C stack (3.11).
        """
        sys.setrecursionlimit(self._look_at_depth() + _USUAL_ROOM)
        try:
            return super().own_way(obj)
        finally:
            sys.setrecursionlimit(_DEEPEST)

    def _look_at_depth(self) -> int:
        """Return how many frames are in use, rounded up: the interpreter refuses a limit that is below.

        From the last look on, as counting the frames would take the longer the deeper they are.
        """
        while self._depth > _STEP and _limit_recursion(self._depth - _STEP):
            self._depth -= _STEP
        while not _limit_recursion(self._depth):
            self._depth += _STEP
        return self._depth

    def reducer_override(self, obj: Any) -> Any:
        """Reduce as the C pickler would: that one does not ask about exact builtin types."""
        return NotImplemented if type(obj) in _BUILTIN_KINDS else super().reducer_override(obj)

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        """Save one object and what it holds."""
        if type(obj) in _BUILTIN_KINDS or id(obj) in self.memo:
            _save_builtin(self, obj, save_persistent_id)
            return
        self.framer.commit_frame()
        reduced = self.reducer_override(obj)
        if reduced is NotImplemented:
            reduced = self._default(obj)
        if reduced is None and isinstance(obj, type):
            self.save_type(obj)
        elif reduced is None:
            self.save_global(obj)
        elif isinstance(reduced, str):
            self.save_global(obj, reduced)
        else:
            function, args, state, items, pairs, setter = (*reduced, None, None, None, None)[:6]
            made = id(obj) not in self._present
            self._level += 1
            self._made += made
            if self._made > self._most_made + 3 * self._level // 4:
                raise RecursionError("an object makes new objects to be packed without end")
            self.save_reduce(function, args, state, items, pairs, setter, obj=obj)
            self._level -= 1
            self._made -= made

    def _default(self, obj: Any) -> Any:
        """Return pickle's own reduction, or None for what goes by its name."""
        registered = self.dispatch_table.get(type(obj))
        if registered is not None:
            return registered(obj)
        return None if isinstance(obj, type | FunctionType) else obj.__reduce_ex__(PROTOCOL)
