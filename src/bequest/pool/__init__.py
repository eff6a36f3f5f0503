"""multiprocessing.pool on bequest's engine; and the engine itself, in the modules below.

    bequest.pool.NAME -> Pool, ApplyResult ... of bequest.pool.pool, or else NAME of multiprocessing.pool

Names are found on their first use: a worker imports this package on the way to `bequest.pool.worker`, and
needs none of them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.pool import ThreadPool as ThreadPool

    from bequest.pool.pool import ApplyResult as ApplyResult
    from bequest.pool.pool import AsyncResult as AsyncResult
    from bequest.pool.pool import IMapIterator as IMapIterator
    from bequest.pool.pool import IMapUnorderedIterator as IMapUnorderedIterator
    from bequest.pool.pool import MapResult as MapResult
    from bequest.pool.pool import Pool as Pool

__all__ = ["Pool", "ThreadPool"]

_OWN = ("ApplyResult", "AsyncResult", "IMapIterator", "IMapUnorderedIterator", "MapResult", "Pool")

_MODULES = frozenset(
    (
        "calls",
        "crew",
        "deaths",
        "engine",
        "executor",
        "executor_outcomes",
        "feed",
        "forking",
        "future",
        "handle",
        "intake",
        "outcomes",
        "pool",
    )
    + ("poller", "rescue", "result", "shares", "streams", "standard", "task", "wire", "worker")
)


def __getattr__(name: str) -> object:
    """Find a name on its first use, and keep it."""
    from importlib import import_module

    if name.startswith("__") or name in _MODULES:  # the import system asks before it imports a module
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module("bequest.pool.pool" if name in _OWN else "multiprocessing.pool")
    return globals().setdefault(name, getattr(module, name))
