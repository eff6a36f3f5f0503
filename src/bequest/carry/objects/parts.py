"""Make sure, while an object is reduced, that the parts which rebuilding it uses can be carried.

    reducer -> require(part, packing) -> goes on, or NotCarriedError: the object stays behind with its part

A stand-in in the place of such a part would raise in the middle of the receiver's rebuilding, and end it.
Parts that are only held need nothing of the kind.
"""

from __future__ import annotations

from types import FunctionType

from bequest.carry.registry import NotCarriedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced, Reducer

_NEVER_LEFT = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    tuple,
    list,
    dict,
    set,
    frozenset,
    FunctionType,
)

_WHY = "what it is made of cannot be carried"


def require(part: Any, packing: Packing) -> None:
    """Refuse the object at hand where `part`, which its maker uses, would be a stand-in in the receiver.

    Raises:
        NotCarriedError: With the reason that `part` has.
    """
    left = getattr(packing, "left", None)
    if type(part) in _NEVER_LEFT:
        return
    if left is None:  # a pickler that leaves nothing behind: what cannot be carried ends its message
        return
    known = left.get(id(part))
    if known is None:
        reduced: Any = packing.reducer_override(part)  # type: ignore[attr-defined]  # what has `left` has it
        known = left.pop(id(part), None)
        if known is None or not _is_stand_in(reduced):
            packing.probed[id(part)] = part, reduced  # type: ignore[attr-defined]  # as above; packed as it is
            return
    about = known.explanation
    inner = about.reason.startswith(_WHY)
    raise NotCarriedError(about.reason if inner else f"{_WHY} ({about.kind}: {about.reason})", about.remedy)


def requiring(reducer: Reducer) -> Reducer:
    """Have `reducer` refuse where an argument of the maker that it names, but for functions, is left behind.

    For what is built of iterators: makers take iterators of their arguments, and some begin to use them.
    """

    def reduce(obj: Any, packing: Packing) -> Reduced:
        reduced = reducer(obj, packing)
        for part in reduced[1]:
            if not callable(part):
                require(part, packing)
        return reduced

    return reduce


def _is_stand_in(reduced: Any) -> bool:
    from bequest.carry.leftbehind import LeftBehind

    return isinstance(reduced, tuple) and reduced[0] is LeftBehind
