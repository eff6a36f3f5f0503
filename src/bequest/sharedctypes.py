"""multiprocessing.sharedctypes whose locks come from bequest's default context where none is given.

A lock of a fork context has no name, and could not be given to a process that is started in another way. The
classes, and how they are pickled, are the standard library's.
"""

from __future__ import annotations

from multiprocessing import sharedctypes as _plain

from bequest import get_context as _get_context
from bequest.mirror import rebind, reflect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Array as Array
    from multiprocessing.sharedctypes import RawArray as RawArray
    from multiprocessing.sharedctypes import RawValue as RawValue
    from multiprocessing.sharedctypes import Synchronized as Synchronized
    from multiprocessing.sharedctypes import SynchronizedArray as SynchronizedArray
    from multiprocessing.sharedctypes import Value as Value
    from multiprocessing.sharedctypes import copy as copy
    from multiprocessing.sharedctypes import synchronized as synchronized

reflect(_plain, globals())
globals().update(
    {name: rebind(getattr(_plain, name), globals()) for name in ("Value", "Array", "synchronized")}
)
globals()["get_context"] = _get_context
