"""How locks, threads and what is built of them are carried: as a fork that stops to let go would leave them.

    lock, Condition, Thread, local, Queue, executor -> reducer -> the same, as the starting thread has it

Of the sender's threads one lives on, the one that starts the receiver: what it holds is held, by the
receiver's main thread; what others hold is free (a fork leaves it locked for ever), those who waited are
gone, and the others' `Thread` objects say that they are over. In a message that starts nothing, nobody holds
anything.

The functions that rebuild are at the end; they run in the receiver's main thread.
"""

from __future__ import annotations

import _thread
import sys
import threading

from bequest.carry.registry import carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced


# -- locks ---------------------------------------------------------------------------------------------------


@carries("_thread.lock")
def reduce_lock(lock: Any, packing: Packing) -> Reduced:
    """Reduce a plain lock: locked where the starting thread holds it (see `lockowner`), else free."""
    from bequest.carry.objects import lockowner

    return make_lock, (packing.starting and lock.locked() and lockowner.holds(lock),)


@carries("_thread.RLock", subclasses=True)
def reduce_rlock(lock: Any, packing: Packing) -> Reduced:
    """Reduce a reentrant lock: held as many times as the starting thread holds it, else free."""
    from bequest.carry.instances import read_slots

    times = _times_held(lock) if packing.starting else 0
    attributes = getattr(lock, "__dict__", None)
    state = (times, dict(attributes or {}), read_slots(lock))
    return make_rlock, (type(lock),), state, None, None, set_rlock


def _times_held(lock: Any) -> int:
    """Count how often the calling thread has taken `lock`."""
    return int(lock._recursion_count()) if lock._is_owned() else 0


@carries("threading._RLock", subclasses=True)
def reduce_python_rlock(lock: Any, packing: Packing) -> Reduced:
    """Reduce threading's reentrant lock in Python, whose fields say all."""
    from bequest.carry.instances import reduce_by_state

    times = _times_held(lock) if packing.starting else 0
    make, args, state, *_ = reduce_by_state(lock, drop=("_block", "_owner", "_count"))
    return make, args, (times, state), None, None, set_python_rlock


@carries("threading.Condition", subclasses=True)
def reduce_condition(condition: Any, packing: Packing) -> Reduced:
    """Reduce a condition: its lock, and nobody who waits; the lock's methods on it are made again."""
    from bequest.carry.instances import reduce_by_state

    # `locked` is there from 3.14 on.
    methods = ("acquire", "release", "locked", "_release_save", "_acquire_restore", "_is_owned")
    own = vars(condition)
    drop = tuple(name for name in methods if getattr(own.get(name), "__self__", None) is own.get("_lock"))
    make, args, state, *_ = reduce_by_state(condition, drop=("_waiters", *drop))
    return make, args, (drop, state), None, None, set_condition


@carries("threading.Barrier", subclasses=True)
def reduce_barrier(barrier: Any, packing: Packing) -> Reduced:
    """Reduce a barrier: nobody waits at it; one that was broken stays broken."""
    from bequest.carry.instances import reduce_by_state

    broken = -2
    return reduce_by_state(barrier, replace={"_count": 0, "_state": broken if barrier.broken else 0})


# -- threads -------------------------------------------------------------------------------------------------


@carries("threading.Thread", subclasses=True)
def reduce_thread(thread: Any, packing: Packing) -> Reduced:
    """Reduce a thread: yet to be started, over, or, if it is what starts the receiver, its main thread."""
    from bequest.carry.instances import reduce_by_state

    if thread is threading.main_thread():
        return threading.main_thread, ()
    own = vars(thread)
    if "_initialized" not in own:  # a subclass has not called Thread.__init__ yet
        return reduce_by_state(thread)
    phase = _phase_of(thread, packing)
    if phase == "main" and type(thread).__module__ == "threading":
        return threading.main_thread, ()
    drop = [
        "_tstate_lock",
        "_handle",
        "_os_thread_handle",
        "_started",
        "_is_stopped",
        "_stderr",
        "_invoke_excepthook",
    ]
    if phase == "over":
        drop += ["_target", "_args", "_kwargs"]  # a thread that has begun cannot be started again
    replace = {"_context": None} if phase == "over" and "_context" in own else {}
    make, args, state, *_ = reduce_by_state(thread, replace=replace, drop=tuple(drop))
    return make, args, (phase, state), None, None, set_thread


def _phase_of(thread: Any, packing: Packing) -> str:
    if not thread._started.is_set():
        return "new"
    # By identity: the system gives the ident of a thread that is over to a new one.
    if packing.starting and threading.current_thread() is thread:
        return "main"
    return "over"


@carries("_thread._ThreadHandle")
def reduce_thread_handle(handle: Any, packing: Packing) -> Reduced:
    """Reduce the handle of a thread (3.13 on), which in the receiver is over or has never been."""
    return make_thread_handle, (handle.ident,)


@carries("_thread._local", subclasses=True)
def reduce_local(local: Any, packing: Packing) -> Reduced:
    """Reduce a `threading.local`: the values of the thread that packs, which the receiver's main thread gets.

    Other threads of the receiver run the class's `__init__` with the arguments that the object was made with.
    """
    return (
        make_local,
        (type(local), *_arguments_of(local)),
        dict(threading.local.__getattribute__(local, "__dict__")),
        None,
        None,
        set_local,
    )


def _arguments_of(local: Any) -> tuple[Any, Any]:
    """Return the (args, kwargs) that `local` keeps for the threads to come: they follow its class."""
    import gc

    kept = gc.get_referents(local)
    kept = kept[kept.index(type(local)) + 1 :] if type(local) in kept else kept
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if kept and isinstance(kept[0], tuple):
        args = kept.pop(0)
    if kept and type(kept[0]) is dict and all(isinstance(key, str) for key in kept[0]):
        kwargs = kept[0]
    return args, kwargs


# -- what is built of them -----------------------------------------------------------------------------------


@carries("queue.Queue", subclasses=True)
def reduce_queue(queue: Any, packing: Packing) -> Reduced:
    """Reduce a queue with what is in it at this moment."""
    import copy

    from bequest.carry.instances import reduce_by_state

    items = vars(queue).get("queue")
    # One call in C: no thread comes between, as it might while the items are pickled.
    return reduce_by_state(queue, replace={} if items is None else {"queue": copy.copy(items)})


@carries("_queue.SimpleQueue", subclasses=True)
def reduce_simple_queue(queue: Any, packing: Packing) -> Reduced:
    """Reduce a queue in C with what is in it at this moment, of which it loses nothing."""
    attributes = dict(getattr(queue, "__dict__", None) or {})
    return make_bare, (type(queue),), (_items_of(queue), attributes), None, None, set_simple_queue


def _items_of(queue: Any) -> list[Any]:
    import gc

    kind = _queue_base(queue)
    # Up to 3.12 it keeps a list whose first entries may be gone already; from 3.13 on the items themselves.
    keeps_list = any(isinstance(found, list) for found in gc.get_referents(kind()))
    while True:
        size = queue.qsize()
        found = gc.get_referents(queue)
        if keeps_list:
            found = next(items for items in reversed(found) if isinstance(items, list)).copy()
        elif found and found[-1] is type(queue):
            found.pop()
        if queue.qsize() == size <= len(found):
            return found[len(found) - size :]


def _queue_base(queue: Any) -> Any:
    return next(kind for kind in type(queue).__mro__ if kind.__module__ == "_queue")


@carries("concurrent.futures.thread.ThreadPoolExecutor", subclasses=True)
def reduce_thread_pool(pool: Any, packing: Packing) -> Reduced:
    """Reduce a pool of threads to one that has not worked yet: its threads and their work stay behind."""
    import queue

    from bequest.carry.instances import reduce_by_state

    fresh = {
        "_work_queue": queue.SimpleQueue(),
        "_idle_semaphore": threading.Semaphore(0),
        "_threads": set(),
        "_shutdown_lock": threading.Lock(),
    }
    # From 3.14 on two closures hold the initializer; they are made again of it.
    start = _closed_over(getattr(pool, "_create_worker_context", None))
    prepared = (
        (start["initializer"], start["initargs"]) if {"initializer", "initargs"} <= start.keys() else None
    )
    drop = ("_create_worker_context", "_resolve_work_item_task") if prepared else ()
    make, args, state, *_ = reduce_by_state(pool, replace=fresh, drop=drop)
    return make, args, (prepared, state), None, None, set_thread_pool


def _closed_over(function: Any) -> dict[str, Any]:
    code = getattr(function, "__code__", None)
    if code is None:
        return {}
    return dict(
        zip(code.co_freevars, (cell.cell_contents for cell in function.__closure__ or ()), strict=True)
    )


@carries("concurrent.futures._base.Future", subclasses=True)
def reduce_future(future: Any, packing: Packing) -> Reduced:
    """Reduce a future: with its outcome where it has one, else as it is; nobody waits."""
    from bequest.carry.instances import reduce_by_state

    if "_state" not in vars(future):
        return reduce_by_state(future)
    is_over = future._state in ("FINISHED", "CANCELLED", "CANCELLED_AND_NOTIFIED")
    # Callbacks of a future that is over have run, and never run again.
    return reduce_by_state(future, replace={"_waiters": [], **({"_done_callbacks": []} if is_over else {})})


# -- rebuilding ----------------------------------------------------------------------------------------------


def make_bare(kind: Any) -> Any:
    """Make an object of a C type as its `__new__` leaves it; no `__init__` runs."""
    return kind.__new__(kind)


def make_lock(locked: bool) -> Any:
    """Make a plain lock, locked or not."""
    lock = _thread.allocate_lock()
    if locked:
        lock.acquire()
    return lock


def make_rlock(kind: Any) -> Any:
    """Make a reentrant lock of the class given."""
    return _thread.RLock.__new__(kind)


def set_rlock(lock: Any, state: tuple[int, dict[str, Any], dict[str, Any]]) -> None:
    """Take a reentrant lock as often as it was held, and give it its attributes."""
    times, attributes, slots = state
    for _ in range(times):
        _thread.RLock.acquire(lock)
    for name, value in (attributes | slots).items():
        object.__setattr__(lock, name, value)


def set_python_rlock(lock: Any, state: tuple[int, Any]) -> None:
    """Do the same for the one in Python."""
    from bequest.carry.instances import fill

    times, attributes = state
    fill(lock, attributes)
    lock._block, lock._owner, lock._count = (
        make_lock(bool(times)),
        _thread.get_ident() if times else None,
        times,
    )


def set_condition(condition: Any, state: tuple[tuple[str, ...], Any]) -> None:
    """Give a condition its lock, the methods of the lock, and nobody who waits."""
    from collections import deque

    from bequest.carry.instances import fill

    methods, attributes = state
    fill(condition, attributes)
    condition._waiters = deque()
    for name in methods:
        setattr(condition, name, getattr(condition._lock, name))


def set_thread(thread: Any, state: tuple[str, Any]) -> None:
    """Make a thread of what a thread was: new, over, or the main thread of this process."""
    from bequest.carry.instances import fill

    phase, attributes = state
    fill(thread, attributes)
    main = threading.main_thread()
    thread._stderr = sys.stderr
    thread._invoke_excepthook = threading._make_invoke_excepthook()  # type: ignore[attr-defined]
    if phase == "main":
        _become_main(thread, main)
        return
    thread._started = threading.Event()
    if phase == "over":
        thread._started.set()
    handle_name = _handle_name(main)
    if handle_name is not None:
        setattr(thread, handle_name, make_thread_handle(thread._ident if phase == "over" else None))
    else:
        thread._is_stopped, thread._tstate_lock = phase == "over", None
    threading._dangling.add(thread)  # type: ignore[attr-defined]


def _handle_name(main: Any) -> str | None:
    """Return the name of the attribute that holds a thread's handle; up to 3.12 there is none."""
    return next((name for name in ("_os_thread_handle", "_handle") if name in vars(main)), None)


def _become_main(thread: Any, main: Any) -> None:
    """Put `thread` in the place of this process's main thread, as `threading._after_fork` does."""
    for name in (
        "_started",
        "_ident",
        "_native_id",
        "_tstate_lock",
        "_is_stopped",
        "_handle",
        "_os_thread_handle",
    ):
        if name in vars(main):
            setattr(thread, name, vars(main)[name])
    active: Any = threading._active  # type: ignore[attr-defined]
    active[main.ident] = thread
    threading._main_thread = thread  # type: ignore[attr-defined]


def make_thread_handle(ident: int | None) -> Any:
    """Make the handle of a thread that is over, or, without `ident`, of one that has not begun (3.13 on)."""
    if not ident:
        return _thread._ThreadHandle()  # type: ignore[attr-defined]
    handle = _thread._make_thread_handle(ident)  # type: ignore[attr-defined]
    handle._set_done()
    return handle


def make_local(kind: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make a thread-local object; no `__init__` runs."""
    return threading.local.__new__(kind, *args, **kwargs)


def set_local(local: Any, values: dict[str, Any]) -> None:
    """Give a thread-local object its values for this thread."""
    threading.local.__getattribute__(local, "__dict__").update(values)


def set_simple_queue(queue: Any, state: tuple[list[Any], dict[str, Any]]) -> None:
    """Put the items into a queue."""
    items, attributes = state
    for item in items:
        queue.put(item)
    if attributes:
        queue.__dict__.update(attributes)


def set_thread_pool(pool: Any, state: tuple[tuple[Any, Any] | None, Any]) -> None:
    """Make a pool of threads ready to work."""
    from bequest.carry.instances import fill

    prepared, attributes = state
    fill(pool, attributes)
    if prepared is not None:
        pool._create_worker_context, pool._resolve_work_item_task = type(pool).prepare_context(*prepared)
