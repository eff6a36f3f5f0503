"""The pass in Python, for graphs deeper than the recursion of the C pickler.

pack_deep(obj, file, options) -> the pickler, done
"""

from __future__ import annotations

import gc
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
    """Set the recursion limit, if this is not deeper already (in lists of lists, which are not counted)."""
    try:
        sys.setrecursionlimit(limit)
    except RecursionError:
        return False
    return True


# A graph is no deeper than there are objects, but reducers may make some: so many, and three for
# each that was there.
_MADE_MEANWHILE = 5000
_DEEPEST = 10_000_000
# Python calls between one `save_reduce` and that of what the object holds, with what stands above them all.
_FRAMES_A_LEVEL, _USUAL_ROOM = 30, 5000
_one_at_a_time = threading.Lock()  # the limit is the interpreter's


class DeepPickler(PackingPickler, _PythonPickler):  # type: ignore[misc]
    """The pass in Python, for graphs deeper than the C pickler's recursion.

    Calls from Python to Python take no C stack, except (in 3.11) those with starred arguments, so that `save`
    must not pass a reduction on as `save_reduce(*reduced)`, which is what it does in the base class.
    """

    is_deep = True
    _level = _made = _most_made = 0
    _present: frozenset[int] = frozenset()

    def pack(self, obj: Any) -> None:
        """Write the message, under a recursion limit that hundreds of thousands of levels fit in."""
        with _one_at_a_time:
            limit = sys.getrecursionlimit()
            self._present = frozenset(map(id, gc.get_objects()))
            self._most_made = _MADE_MEANWHILE + gc.get_freeze_count()
            sys.setrecursionlimit(max(limit, _DEEPEST))
            try:
                super().pack(obj)
            finally:
                sys.setrecursionlimit(limit)

    def own_way(self, obj: Any) -> Any:
        """Ask an object for its own reduction, with as much room for recursion as it usually has.

        More would let a method that calls itself for ever, through C, run into the end of the C stack (3.11).
        """
        room = _FRAMES_A_LEVEL * self._level + _USUAL_ROOM
        while not _limit_recursion(room):
            room *= 2
        try:
            return super().own_way(obj)
        finally:
            sys.setrecursionlimit(_DEEPEST)

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
