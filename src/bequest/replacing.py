"""What `bequest.install` replaces in multiprocessing, and with what; and how it is put back.

    put_in(options) -> contexts, launchers, picklers, queues and pools are bequest's
    put_in_executor -> that of concurrent.futures, likewise
    take_out()      -> every replaced object is in its place again

Programs and libraries go on to say `multiprocessing`: functions that they imported before, contexts that they
hold and classes that they derived are reached too, because what changes is where those look things up.
Of multiprocessing nothing is imported that the package itself has not: the rest is changed as it is imported.
"""

from __future__ import annotations

import multiprocessing
import sys
import types
from multiprocessing import context as _context
from multiprocessing import process, reduction

from bequest.imports import forget, when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_ABSENT: Any = object()
context: Any = _context  # most of what is used here are private names

_CONNECTION, _QUEUES = "multiprocessing.connection", "multiprocessing.queues"
_LOCKS = "multiprocessing.synchronize"
_POOL, _MANAGERS = "multiprocessing.pool", "multiprocessing.managers"
# Where `ForkingPickler` is bound a second time, when the module is imported.
_HOLDERS = (_CONNECTION, _QUEUES, "multiprocessing.sharedctypes")


class _Replacements:
    """What has been replaced, oldest first.

    Attributes:
        imposed: The context that became the chosen one of multiprocessing's default context, or None.
    """

    def __init__(self) -> None:
        self.imposed: Any = None
        self._replaced: list[tuple[Any, str, Any]] = []

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute (of a dict: an item), and remember the raw object that was there."""
        self._replaced.append((owner, name, _namespace(owner).get(name, _ABSENT)))
        _put(owner, name, value)

    def restore(self) -> None:
        """Put back what `replace` found, the latest first."""
        while self._replaced:
            _put(*self._replaced.pop())


_replacements = _Replacements()
_replace = _replacements.replace


def put_in(start_method: str | None, strict: bool) -> None:
    """Make multiprocessing be bequest's, once; the arguments are those of `bequest.install`."""
    _replace_contexts(start_method, strict)
    _replace_process()
    _replace_pickler()
    for name, change in _CHANGES.items():
        when_imported(name, "install", change)


def take_out() -> None:
    """Undo both; a start method chosen since then stays chosen."""
    default: Any = context._default_context
    chosen, used = default._actual_context, (_replacements.imposed, default._default_context)
    for name in _CHANGES:
        forget(name, "install")
    _replacements.restore()
    if chosen not in used:
        default._actual_context = chosen and context._concrete_contexts.get(chosen._name, chosen)
    for name in _HOLDERS:  # one that was imported in the meantime has bound bequest's
        if name in sys.modules:
            sys.modules[name]._ForkingPickler = reduction.ForkingPickler  # type: ignore[attr-defined]


def _replace_contexts(start_method: str | None, strict: bool) -> None:
    from bequest.contexts import default_context as ours
    from bequest.contexts import freeze_support, set_forkserver_preload
    from bequest.launch.handoff import chosen as chosen_by_bequest

    default: Any = context._default_context
    for name in list(context._concrete_contexts):
        _replace(context._concrete_contexts, name, ours.get_context(name, strict=strict))
    usual = context._concrete_contexts[ours._default_context._name]
    chosen = start_method or (default._actual_context and default._actual_context._name)
    _replacements.imposed = context._concrete_contexts.get(chosen, default._actual_context)
    _replace(default, "_default_context", usual)
    _replace(default, "_actual_context", _replacements.imposed)
    if start_method is not None:
        _replace(chosen_by_bequest, "method", start_method)
    set_start_method = _unless_inheriting if start_method is None else _ignore_start_method
    _replace(multiprocessing, "set_start_method", types.MethodType(set_start_method, default))
    _replace(context.DefaultContext, "set_start_method", set_start_method)
    # A freezer's own, where it has put one there, knows more.
    if getattr(multiprocessing.freeze_support, "__func__", None) is context.BaseContext.freeze_support:
        _replace(multiprocessing, "freeze_support", types.MethodType(freeze_support, default))
    _replace(context.BaseContext, "freeze_support", freeze_support)
    _replace(multiprocessing, "set_forkserver_preload", types.MethodType(set_forkserver_preload, default))
    _replace(context.BaseContext, "set_forkserver_preload", set_forkserver_preload)


_set_start_method = context.DefaultContext.set_start_method


def _unless_inheriting(self: Any, method: str | None, force: bool = False) -> None:
    """Set the start method, but not while a child is rebuilt; see `DefaultContext` in `bequest.contexts`."""
    inheriting = getattr(process.current_process(), "_inheriting", False)
    if force or self._actual_context is None or not inheriting:
        _set_start_method(self, method, force)


def _ignore_start_method(self: object, method: str | None, force: bool = False) -> None:
    """Accept a start method and go on with the one that was given to `bequest.install`."""
    if method is not None:
        context._concrete_contexts[method]


def _replace_process() -> None:
    """Start contexts and Process classes that exist already, and classes derived from them, bequest's way."""
    for kind in (context.ForkProcess, context.SpawnProcess, context.ForkServerProcess):
        ours = context._concrete_contexts[kind._start_method].Process
        _replace(kind, "_Popen", staticmethod(ours._Popen))
    _replace(process.BaseProcess, "left_behind", ())
    _replace(process.BaseProcess, "__reduce_ex__", _reduce_process)


def _reduce_process(self: Any, protocol: int) -> Any:
    """Pickle a started process as a handle of it; one that is not started as pickle does."""
    if self._popen is None:
        return object.__reduce_ex__(self, protocol)
    from bequest.process import reduce_process

    return reduce_process(self)


def _replace_pickler() -> None:
    from bequest.reduction import ForkingPickler

    _replace(reduction, "ForkingPickler", ForkingPickler)
    _replace(reduction.AbstractReducer, "ForkingPickler", ForkingPickler)
    for name in _HOLDERS:
        if name in sys.modules:
            _replace(sys.modules[name], "_ForkingPickler", ForkingPickler)


def _replace_queues() -> None:
    """Change the classes themselves: concurrent.futures has derived its own from them."""
    from bequest import putting

    plain = sys.modules["multiprocessing.queues"]
    for class_name, name, method in putting.methods(plain):
        _replace(getattr(plain, class_name), name, method)
    _replace(plain, "_ForkingPickler", putting.QueuePickler)


def _replace_locks() -> None:
    """Change the classes themselves; locks that there are stay as they are."""
    from bequest import robust

    plain: Any = sys.modules[_LOCKS]
    for name, members in robust.methods(plain).items():
        for member, value in members.items():
            _replace(getattr(plain, name), member, value)


def _replace_connections() -> None:
    """Change the class itself: what holds connections, or derives from their class, is reached too."""
    from bequest import passing

    plain: Any = sys.modules[_CONNECTION]
    for name, value in passing.methods(plain).items():
        _replace(plain.Connection, name, value)
    _replace(plain, "Pipe", passing.with_side_channel(plain.Pipe))
    reducers: Any = reduction.ForkingPickler
    _replace(reducers._extra_reducers, plain.Connection, passing.reduce_connection)


def _replace_pool() -> None:
    from bequest.pool.pool import Pool

    plain: Any = sys.modules[_POOL]
    standard = plain.Pool

    def __init__(self: Any, processes: Any = None, initializer: Any = None, initargs: Any = ()) -> None:
        standard.__init__(self, processes, initializer, initargs)

    # A pool of threads calls by this name what it is derived from.
    _replace(plain.ThreadPool, "__init__", __init__)
    _replace(plain, "Pool", Pool)


def put_in_executor() -> None:
    """Make the executor be bequest's, after `put_in` and once its module has been imported."""
    _when_defined(_replace_executor)()


def _replace_executor() -> None:
    from bequest.pool.executor import ProcessPoolExecutor

    _replace(sys.modules["concurrent.futures.process"], "ProcessPoolExecutor", ProcessPoolExecutor)
    # The package finds the name on its first use, and keeps it.
    _replace(sys.modules["concurrent.futures"], "ProcessPoolExecutor", ProcessPoolExecutor)


def _replace_managed_pool() -> None:
    from bequest.pool import Pool

    plain: Any = sys.modules[_MANAGERS]
    registered = plain.SyncManager._registry
    _replace(registered, "Pool", (Pool, *registered["Pool"][1:]))


def _when_defined(change: Callable[[], None]) -> Callable[[], None]:
    """Let `change` wait where bequest's own pool imports the module: what it puts in is not there yet."""

    def change_or_wait() -> None:
        standard = sys.modules.get("bequest.pool.standard")
        if standard is None or not standard.defer(change):
            change()

    return change_or_wait


_CHANGES = {
    _CONNECTION: _replace_connections,
    _QUEUES: _replace_queues,
    _LOCKS: _replace_locks,
    _POOL: _when_defined(_replace_pool),
    _MANAGERS: _when_defined(_replace_managed_pool),
}
"""What is changed as soon as it is imported."""


def _namespace(owner: Any) -> Any:
    return owner if isinstance(owner, dict) else vars(owner)


def _put(owner: Any, name: str, value: Any) -> None:
    if isinstance(owner, dict):
        owner[name] = value
    elif value is _ABSENT:
        delattr(owner, name)
    else:
        setattr(owner, name, value)
