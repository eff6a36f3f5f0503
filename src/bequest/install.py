"""Puts bequest into the running interpreter's multiprocessing and concurrent.futures, and takes it out again.

    install() -> contexts, launchers, picklers and queues of multiprocessing are bequest's
    a child   -> `installed_options()` of its parent travel in its header; it installs with the same

Programs and libraries go on to say `multiprocessing`: functions that they imported before, contexts that they
hold and classes that they derived are reached too, because what changes is where those look things up.
`uninstall` puts every replaced object back. Nothing of multiprocessing is imported early: what is not loaded
yet is changed as it is imported.

The module can be called, as `bequest.install(...)`: importing a submodule binds its name in the package, and
`bequest.install` must be the function whether or not that has happened.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import types
from multiprocessing import context as _context
from multiprocessing import process, reduction

from bequest.launch import watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any

_ABSENT: Any = object()
context: Any = _context  # most of what is used here are private names

# Where `ForkingPickler` is bound a second time, when the module is imported.
_HOLDERS = ("multiprocessing.connection", "multiprocessing.queues", "multiprocessing.sharedctypes")


class _Installation:
    """What has been replaced, oldest first, and with which options."""

    def __init__(self) -> None:
        self.options: dict[str, Any] | None = None
        self.imposed: Any = None
        self.replaced: list[tuple[Any, str, Any]] = []

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute (of a dict: an item), and remember the raw object that was there."""
        self.replaced.append((owner, name, _namespace(owner).get(name, _ABSENT)))
        _put(owner, name, value)

    def restore(self) -> None:
        """Put back what `replace` found, the latest first."""
        while self.replaced:
            _put(*self.replaced.pop())


_installation = _Installation()


def install(start_method: str | None = None, strict: bool = False) -> None:
    """Make multiprocessing and concurrent.futures of this process, and of its children, be bequest's.

    The default start method becomes bequest's ('forkserver' where there is one), unless the program chose
    one or does so later. Calling it again changes the options, if they differ. Call it before there are
    threads.

    Args:
        start_method: The default start method whatever the program says: its calls of `set_start_method` are
            accepted and have no effect. A context that it asks for by name is the one that it asked for.
        strict: Refuse at a start what would be left behind.

    Raises:
        ValueError: There is no such start method here; nothing has changed.
    """
    options = {"start_method": start_method, "strict": strict}
    if _installation.options == options:
        return
    if start_method is not None:
        multiprocessing.get_context(start_method)
    uninstall()
    _installation.options = options
    _replace_contexts(start_method, strict)
    _replace_process()
    _replace_pickler()
    if "multiprocessing.queues" in sys.modules:
        _replace_queues()
    else:
        sys.meta_path.insert(0, _queues_import)
    if watched.VARIABLE in os.environ:
        from bequest.explain import watch

        watch.begin(os.environ[watched.VARIABLE])


def uninstall() -> None:
    """Put back everything that `install` replaced; a start method chosen since then stays chosen.

    That does not hold for the default of bequest: whether it was chosen or only used cannot be told.
    """
    if _installation.options is None:
        return
    default: Any = context._default_context
    chosen, used = default._actual_context, (_installation.imposed, default._default_context)
    _installation.options = None
    _installation.restore()
    if chosen not in used:
        default._actual_context = chosen and context._concrete_contexts.get(chosen._name, chosen)
    for name in _HOLDERS:  # one that was imported in the meantime has bound bequest's
        if name in sys.modules:
            sys.modules[name]._ForkingPickler = reduction.ForkingPickler  # type: ignore[attr-defined]
    if _queues_import in sys.meta_path:
        sys.meta_path.remove(_queues_import)


def is_installed() -> bool:
    """Whether `install` is in force in this process."""
    return _installation.options is not None


def installed_options() -> dict[str, Any]:
    """Return the arguments of the `install` in force, for a child to do the same; empty if there is none."""
    return dict(_installation.options or {})


def _replace_contexts(start_method: str | None, strict: bool) -> None:
    from bequest.contexts import default_context as ours
    from bequest.launch.handoff import chosen as chosen_by_bequest

    replace = _installation.replace
    default: Any = context._default_context
    for name in list(context._concrete_contexts):
        replace(context._concrete_contexts, name, ours.get_context(name, strict=strict))
    usual = context._concrete_contexts[ours._default_context._name]
    chosen = start_method or (default._actual_context and default._actual_context._name)
    _installation.imposed = context._concrete_contexts.get(chosen, default._actual_context)
    replace(default, "_default_context", usual)
    replace(default, "_actual_context", _installation.imposed)
    if start_method is not None:
        replace(chosen_by_bequest, "method", start_method)
    set_start_method = _unless_inheriting if start_method is None else _ignore_start_method
    replace(multiprocessing, "set_start_method", types.MethodType(set_start_method, default))
    replace(context.DefaultContext, "set_start_method", set_start_method)


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
    replace = _installation.replace
    for kind in (context.ForkProcess, context.SpawnProcess, context.ForkServerProcess):
        ours = context._concrete_contexts[kind._start_method].Process
        replace(kind, "_Popen", staticmethod(ours._Popen))
    replace(process.BaseProcess, "left_behind", ())
    replace(process.BaseProcess, "__reduce_ex__", _reduce_process)


def _reduce_process(self: Any, protocol: int) -> Any:
    """Pickle a started process as a handle of it; one that is not started as pickle does."""
    if self._popen is None:
        return object.__reduce_ex__(self, protocol)
    from bequest.process import reduce_process

    return reduce_process(self)


def _replace_pickler() -> None:
    from bequest.reduction import ForkingPickler

    replace = _installation.replace
    replace(reduction, "ForkingPickler", ForkingPickler)
    replace(reduction.AbstractReducer, "ForkingPickler", ForkingPickler)
    for name in _HOLDERS:
        if name in sys.modules:
            replace(sys.modules[name], "_ForkingPickler", ForkingPickler)


def _replace_queues() -> None:
    """Change the classes themselves: concurrent.futures has derived its own from them."""
    from bequest import putting

    plain = sys.modules["multiprocessing.queues"]
    for class_name, name, method in putting.methods(plain):
        _installation.replace(getattr(plain, class_name), name, method)
    _installation.replace(plain, "_ForkingPickler", putting.QueuePickler)


class _QueuesImport:
    """A finder that has `multiprocessing.queues` loaded by its usual loader, then changed, and is gone."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Answer for that one module."""
        if name != "multiprocessing.queues":
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            loader: Any = _ThenReplaceQueues(spec.loader)
            spec.loader = loader
        return spec


class _ThenReplaceQueues:
    """A loader that does what another does, and puts bequest into the module at the end."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: Any) -> None:
        """Run the module, give it back its own loader, and change its queues while bequest is installed."""
        self._loader.exec_module(module)
        module.__spec__.loader = module.__loader__ = self._loader
        if is_installed():
            _replace_queues()


_queues_import: Any = _QueuesImport()


def _namespace(owner: Any) -> Any:
    return owner if isinstance(owner, dict) else vars(owner)


def _put(owner: Any, name: str, value: Any) -> None:
    if isinstance(owner, dict):
        owner[name] = value
    elif value is _ABSENT:
        delattr(owner, name)
    else:
        setattr(owner, name, value)


class _CallableModule(types.ModuleType):
    """The type of this module: `bequest.install(...)` is `bequest.install.install(...)`."""

    def __call__(self, start_method: str | None = None, strict: bool = False) -> None:
        install(start_method, strict)


sys.modules[__name__].__class__ = _CallableModule
