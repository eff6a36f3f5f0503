"""Have something done right after a module has been imported, by whomever and whenever that is.

    when_imported(module, key, action)    the module is loaded: at once; else it is awaited
    import of an awaited module           its code has run: the actions, in the order asked for

So that nobody pays for a module which the program never imports. The watch is a finder at the front of
sys.meta_path that finds nothing itself: it asks the others and wraps the loader they name until the module's
code runs, as importlib's LazyLoader does. It leaves when nothing is awaited any more. This module imports
nothing: every program that has bequest installed loads it.
"""

from __future__ import annotations

import _thread
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any


class _Announcing:
    """A loader that tells the watch when it has run a module's code; to others it is the loader it wraps."""

    def __init__(self, loader: Any, watch: _Watch) -> None:
        self._loader, self._watch = loader, watch

    def create_module(self, spec: Any) -> Any:
        """As the wrapped loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """Put the wrapped loader in this one's place, have it run the code, then announce the module."""
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._watch.arrived(module.__spec__.name)

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # not initialised: a copy
            raise AttributeError(name)
        return getattr(self._loader, name)


class _Watch:
    """The finder; there is one in each process.

    Attributes:
        awaited: Per module that is awaited, what is to be done, by key.
    """

    def __init__(self) -> None:
        self.awaited: dict[str, dict[Hashable, Callable[[], None]]] = {}
        self._asking: set[tuple[int, str]] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return what the other finders find, made to report here; None for any module that nobody awaits."""
        asking = (_thread.get_ident(), name)
        if name not in self.awaited or asking in self._asking:  # by one of the others, which asks all in turn
            return None
        self._asking.add(asking)
        try:
            spec = find_elsewhere(self, name, path, target)
        finally:
            self._asking.discard(asking)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Announcing(spec.loader, self)
        return spec

    def arrived(self, name: str) -> None:
        """Do what has waited for module `name`, whose code has run."""
        actions = self.awaited.pop(name, {})
        self.leave_if_idle()
        for action in actions.values():
            action()

    def leave_if_idle(self) -> None:
        """Be no finder any more where nothing is awaited."""
        if not self.awaited and self in sys.meta_path:
            sys.meta_path.remove(self)


def find_elsewhere(finder: object, *what: Any) -> Any:
    """Return what the finders of this process but `finder` find; None for nothing."""
    for other in list(sys.meta_path):
        find_spec: Any = getattr(other, "find_spec", None)  # up to 3.11 a finder may have none
        spec: Any = find_spec(*what) if other is not finder and find_spec is not None else None
        if spec is not None:
            return spec
    return None


_watch = _Watch()


def when_imported(module: str, key: Hashable, action: Callable[[], None]) -> None:
    """Have `action` called right after the code of `module` has run in this process; now, if it has.

    Args:
        module: Its dotted name.
        key: What was asked for under the same key before, and still waits, is replaced.
        action: Called in the thread that imports the module, while it holds that module's import lock. What
            it raises, the import raises.
    """
    if module in sys.modules:
        action()
        return
    _watch.awaited.setdefault(module, {})[key] = action
    if _watch not in sys.meta_path:
        sys.meta_path.insert(0, _watch)


def forget(module: str, key: Hashable) -> None:
    """Do not do what was asked for under `key`, if it still waits."""
    waiting = _watch.awaited.get(module, {})
    waiting.pop(key, None)
    if not waiting:
        _watch.awaited.pop(module, None)
        _watch.leave_if_idle()
