"""What a forked child has of its parent's pools: nothing that works, nothing that keeps workers alive.

engines, handles register themselves -> os.fork -> in the child: engines have ended, channels are closed
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bequest.pool.engine import Engine
    from bequest.pool.handle import WorkerHandle

engines: weakref.WeakSet[Engine] = weakref.WeakSet()
handles: weakref.WeakSet[WorkerHandle] = weakref.WeakSet()


def _forget() -> None:
    for handle in list(handles):
        handle.forget_in_fork()
    for engine in list(engines):
        engine.end_in_fork()


os.register_at_fork(after_in_child=_forget)
