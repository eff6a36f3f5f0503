"""multiprocessing.context with bequest's contexts and its default context.

The errors, `BaseContext`, and what a process is being started for (`get_spawning_popen`) are one with it.
"""

from __future__ import annotations

from multiprocessing import context as _plain

from bequest import contexts, reduction
from bequest.mirror import reflect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext as BaseContext

    from bequest.contexts import DefaultContext as DefaultContext
    from bequest.contexts import ForkContext as ForkContext
    from bequest.contexts import SpawnContext as SpawnContext

# No name is given as changed: the classes in `bequest.contexts` are subclasses already, no twins are wanted.
reflect(_plain, globals(), reduction=reduction)
globals().update(
    {name: vars(contexts)[name] for name in vars(contexts) if name[:2] != "__" and hasattr(_plain, name)}
)
