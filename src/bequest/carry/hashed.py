"""What an object needs before anything hashes it: a set in which it lies may hang off the object itself.

    hashes_itself(class) -> bool        leads_back(obj) -> bool        leading_back(obj, attributes) -> names

Pickle fills an object after it has packed all that the object holds. A set or a dict among that takes its
members, and hashes them, as soon as it is read; where the object itself is a member, its `__hash__` would run
before it has an attribute. So what does not lead back to the object is given to it when it is made.
"""

from __future__ import annotations

import gc
from types import FunctionType, ModuleType

from bequest.carry import instances
from bequest.carry.remember import Remembered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FAR_ENOUGH = 200  # objects: a value that holds more is taken to lead back
_hashing = Remembered()
# These are known to the stream before what they hold is packed.
_NO_FURTHER = (type, ModuleType, FunctionType)


def hashes_itself(kind: type) -> bool:
    """Tell whether a class says how its instances are hashed, without asking its metaclass."""
    known: bool | None = _hashing.get(kind)
    if known is None:
        own = type.__getattribute__(kind, "__hash__")
        known = own is not None and own is not instances.solid_base(kind).__hash__
        _hashing.put(kind, known)
    return known


def leads_back(obj: Any) -> bool:
    """Tell whether `obj` hashes itself and may be reached again from what it holds."""
    if not hashes_itself(type(obj)):
        return False
    return bool(leading_back(obj, {**(instances.instance_dict(obj) or {}), **instances.read_slots(obj)}))


def leading_back(obj: Any, attributes: dict[str, Any]) -> set[str]:
    """Return the names of the attributes, or slots, through which `obj` may be reached again."""
    return {
        name
        for name, value in attributes.items()
        if type(value) not in instances.ATOMS and _may_lead_back(value, obj)
    }


def _may_lead_back(value: Any, obj: Any) -> bool:
    seen: dict[int, Any] = {}
    ahead = [value]
    while ahead:
        here = ahead.pop()
        if here is obj or len(seen) > _FAR_ENOUGH:
            return True
        if type(here) not in instances.ATOMS and id(here) not in seen and not isinstance(here, _NO_FURTHER):
            seen[id(here)] = here
            ahead += gc.get_referents(here)
    return False
