"""multiprocessing.synchronize with locks and conditions that outlive those who had them.

Lock, RLock, Condition of this module -> `bequest.robust`; the rest is the standard library's
"""

from __future__ import annotations

from multiprocessing import synchronize as _plain

from bequest import robust
from bequest.mirror import reflect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier as Barrier
    from multiprocessing.synchronize import BoundedSemaphore as BoundedSemaphore
    from multiprocessing.synchronize import Condition as Condition
    from multiprocessing.synchronize import Event as Event
    from multiprocessing.synchronize import Lock as Lock
    from multiprocessing.synchronize import RLock as RLock
    from multiprocessing.synchronize import Semaphore as Semaphore
    from multiprocessing.synchronize import SemLock as SemLock

_changed = {
    name: type(name, (getattr(_plain, name),), {"__module__": __name__, **members})
    for name, members in robust.methods(_plain).items()
}
reflect(_plain, globals(), **_changed)
