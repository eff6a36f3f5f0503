"""What is known about a class, a code object or a module, for as long as that lives.

    known.get(obj) -> value or None       known.put(obj, value) -> value

By identity: a metaclass may define equality, and equal code objects need not be one. Nothing is kept alive.
"""

from __future__ import annotations

from _weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Remembered:
    """Values by object, without keeping the objects."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[ref[Any], Any]] = {}

    def get(self, obj: Any) -> Any:
        """Return what was put for `obj`, or None."""
        entry = self._known.get(id(obj))
        return entry[1] if entry is not None and entry[0]() is obj else None

    def put(self, obj: Any, value: Any) -> Any:
        """Remember `value` for `obj`, unless that cannot be referred to weakly, and return it."""
        key, known = id(obj), self._known

        def forget(gone: ref[Any]) -> None:
            entry = known.get(key)
            if entry is not None and entry[0] is gone:
                del known[key]

        try:
            known[key] = (ref(obj, forget), value)
        except TypeError:  # anything may stand in `sys.modules`
            pass
        return value
