"""The pass in Python, for graphs deeper than the recursion of the C pickler.

pack_deep(obj, file, options) -> the pickler, done
"""

from __future__ import annotations

import pickle
import sys
import threading
from types import FunctionType
from typing import Any

from bequest.carry.pickler import PROTOCOL, PackingPickler

_PythonPickler: Any = pickle._Pickler  # private, the same in all versions
_save_builtin = _PythonPickler.save
_BUILTIN_KINDS = frozenset(_PythonPickler.dispatch) - {type, FunctionType}


class DeepPickler(PackingPickler, _PythonPickler):  # type: ignore[misc]
    """The pass in Python, for graphs deeper than the C pickler's recursion.

    Calls from Python to Python take no C stack, except (in 3.11) those with starred arguments, so that `save`
    must not pass a reduction on as `save_reduce(*reduced)`, which is what it does in the base class.
    """

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
        if reduced is None:
            self.save_global(obj)
        elif isinstance(reduced, str):
            self.save_global(obj, reduced)
        else:
            function, args, state, items, pairs, setter = (*reduced, None, None, None, None)[:6]
            self.save_reduce(function, args, state, items, pairs, setter, obj=obj)

    def _default(self, obj: Any) -> Any:
        """Return pickle's own reduction, or None for what goes by its name."""
        registered = self.dispatch_table.get(type(obj))
        if registered is not None:
            return registered(obj)
        return None if isinstance(obj, type | FunctionType) else obj.__reduce_ex__(PROTOCOL)


_deep_lock = threading.Lock()


def pack_deep(obj: Any, file: Any, options: dict[str, Any]) -> Any:
    """Make the pass in Python under a recursion limit that only memory bounds."""
    with _deep_lock:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, 10_000_000))
        try:
            pickler = DeepPickler(file, **options)
            pickler.pack(obj)
            return pickler
        finally:
            sys.setrecursionlimit(limit)
