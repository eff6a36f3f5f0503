"""Processes, and what owns some: pools, executors.

    started process -> a handle that follows it       pool -> left behind, even in a task that only holds it

A process that has not started is copied like any object.
"""

from __future__ import annotations

from bequest.carry.registry import NotCarriedError, carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced


@carries("multiprocessing.process.BaseProcess", subclasses=True)
def reduce_any_process(process: Any, packing: Packing) -> Reduced:
    """Reduce a process object: as a handle once it has started."""
    from bequest.carry.instances import reduce_by_state

    if process.__dict__.get("_popen") is None:
        return reduce_by_state(process)
    from bequest.process import reduce_process

    return reduce_process(process)


@carries("multiprocessing.process.AuthenticationString")
def reduce_key(key: Any, packing: Packing) -> Reduced:
    """Reduce a process's authentication key, which may go to one that starts and to no other."""
    return (type(key), (bytes(key),)) if packing.starting else packing.own_way(key)


@carries("multiprocessing.pool.Pool", "concurrent.futures.process.ProcessPoolExecutor", subclasses=True)
def refuse_pool(pool: Any, packing: Packing) -> Reduced:
    """Leave a pool behind: `self.pool.map(self.work)` needs its owner in the worker, not the pool."""
    raise NotCarriedError(
        "its workers and threads belong to the process that made it",
        "Use it there, or make another one in this process",
        often_held=True,
    )


@carries("multiprocessing.synchronize.SemLock", "multiprocessing.managers.BaseProxy", subclasses=True)
def reduce_counted(resource: Any, packing: Packing) -> Reduced:
    """Reduce what the system or a manager removes when the last reference here goes; it is kept meanwhile."""
    packing.keep(resource)
    return packing.own_way(resource)


@carries("_multiprocessing.SemLock")
def reduce_handle(handle: Any, packing: Packing) -> Reduced:
    """Reduce what a lock or semaphore has its methods from (`lock.acquire`) as a part of that lock."""
    import gc

    for holder in gc.get_referrers(handle):  # the lock, or its dict; not what keeps a method
        for owner in (holder, *(gc.get_referrers(holder) if type(holder) is dict else ())):
            kinds = type(owner).__mro__
            if any(getattr(kind, "__module__", "") == "multiprocessing.synchronize" for kind in kinds):
                return getattr, (owner, "_semlock")
    raise NotCarriedError("the lock that it belongs to is gone", "Keep the lock itself")


@carries("multiprocessing.resource_sharer.DupFd")
def reduce_shared_descriptor(descriptor: Any, packing: Packing) -> Reduced:
    """Reduce a descriptor that waits for its receiver; a message that is not sent has to take it back."""
    packing.shared.append(descriptor)
    return packing.own_way(descriptor)
