"""`multiprocessing` for a new interpreter that may need little of it, and what starts there: a spawned child.

    python -c "... lean.spawned(...)" -> multiprocessing, dear parts to be loaded when used -> child

Half of what a spawned child takes to begin is what `multiprocessing` imports and most children never use:
pickling in Python, sockets, subprocesses, running modules, enums for signals. Here its submodules that import
them are there from the start and are loaded when anything is read of them (as importlib's LazyLoader does,
whose own import would cost a millisecond). Only what nobody has imported yet is treated so.
"""

from __future__ import annotations

import _frozen_importlib
import _signal  # type: ignore[import-not-found]  # typeshed does not know it
import os
import sys
from _thread import RLock
from types import ModuleType

from bequest.launch import bundle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_machinery: Any = _frozen_importlib  # private names of it are used: the same in all versions

_PACKAGE = "multiprocessing"
_POSTPONED = "reduction"
# What can be told of a module without loading it.
_TOLD = frozenset(
    ("__class__", "__doc__", "__file__", "__loader__", "__name__", "__package__", "__path__", "__spec__")
)
# What importing multiprocessing itself asks of one (3.14), and what it will be told.
_FORESEEN: dict[str, dict[str, Any]] = {}
if sys.platform == "linux":
    _FORESEEN[f"{_PACKAGE}.{_POSTPONED}"] = {"HAVE_SEND_HANDLE": True}
_lock = RLock()  # one for all: a module that is being loaded may read another


class _Postponed(ModuleType):
    """A module that is loaded when anything is read of it but who it is, and then is a plain module."""

    def __getattribute__(self, name: str) -> Any:
        if name not in _TOLD and name not in _FORESEEN.get(ModuleType.__getattribute__(self, "__name__"), ()):
            _load(self)
        return ModuleType.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _load(self)
        ModuleType.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        _load(self)
        ModuleType.__delattr__(self, name)


class _Waiting:
    """What waits to be loaded, by name: what follows when it has been, and whether it is being loaded."""

    def __init__(self) -> None:
        self.then: dict[str, Callable[[], object]] = {}
        self.loading: set[str] = set()


_waiting = _Waiting()


def _load(module: ModuleType) -> None:
    """Load a postponed module; other threads wait, and the one that loads sees it as it grows."""
    with _lock:
        name = module.__name__
        if type(module) is not _Postponed or name in _waiting.loading:
            return
        _waiting.loading.add(name)
        try:
            spec: Any = module.__spec__
            spec.loader.exec_module(module)
            object.__setattr__(module, "__class__", ModuleType)
        finally:
            _waiting.loading.discard(name)
        then = _waiting.then.pop(name, None)
        if then is not None:
            then()


def postpone(name: str, then: Callable[[], object] | None = None) -> None:
    """Have submodule `name` of multiprocessing loaded when it is used, and `then` called at that moment.

    Where it is loaded already, `then` is called at once.
    """
    full = f"{_PACKAGE}.{name}"
    if full not in sys.modules:
        package = sys.modules.get(_PACKAGE)
        if package is None:
            folders = _machinery._find_spec(_PACKAGE, None).submodule_search_locations
        else:
            folders = package.__path__
        spec = _machinery._find_spec(full, folders)
        module = _Postponed(full)
        ModuleType.__getattribute__(module, "__dict__").update(
            __spec__=spec,
            __loader__=spec.loader,
            __file__=spec.origin,
            __package__=_PACKAGE,
            **_FORESEEN.get(full, {}),
        )
        sys.modules[full] = module
        if package is not None:
            setattr(package, name, module)
        if then is not None:
            _waiting.then[full] = then
    elif then is not None:
        then()


def _interpreter_flags() -> Any:
    """Stand for subprocess's function of that purpose, which is needed where a process is started."""
    import subprocess

    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing uses it


def _import() -> None:
    """Import multiprocessing with what it needs of `signal` and `subprocess` in their place."""
    stands: dict[str, ModuleType] = {}
    if "signal" not in sys.modules:
        stands["signal"] = _signal  # numbers and their names: all that is asked for is there
    if "subprocess" not in sys.modules:
        stands["subprocess"] = ModuleType("subprocess")
        vars(stands["subprocess"])["_args_from_interpreter_flags"] = _interpreter_flags
    sys.modules.update(stands)
    try:
        import multiprocessing.util
    finally:
        for name, module in stands.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
    setattr(multiprocessing, _POSTPONED, sys.modules[f"{_PACKAGE}.{_POSTPONED}"])


def _forget_other_threads() -> None:
    """In a forked child: a thread that was loading something is not there."""
    _lock._at_fork_reinit()  # type: ignore[attr-defined]  # private: what the import system does with its own
    _waiting.loading.clear()


def spawned(message_fd: int, tracker_fd: int, watch_fd: int, answer_fd: int | None) -> NoReturn:
    """Be a child in a new interpreter; does not return. All descriptors become the child's.

    Args:
        message_fd: An anonymous file with a bundle and the message behind it.
        tracker_fd: Leads to the parent's resource tracker.
        watch_fd: Becomes readable when the parent ends.
        answer_fd: Where the child says that it holds all it was given; None where nobody waits for that.
    """
    with open(message_fd, "rb", buffering=0) as file:
        content = memoryview(file.read())
    end = 8 + int.from_bytes(content[:8], "little")
    with bundle.Unpacked(content[8:end]) as unpacked:
        if _PACKAGE not in sys.modules:
            postpone(_POSTPONED)
            _import()
        unpacked.import_own()
    os.register_at_fork(after_in_child=_forget_other_threads)
    from bequest.launch import child

    child.spawned(content[end:], tracker_fd, watch_fd, answer_fd)
