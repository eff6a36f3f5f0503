"""Have something done right after a module has been imported, by whomever and whenever that is.

    when_imported(module, key, action)    the module is loaded: at once; else it is awaited
    import of an awaited module           its code has run: the actions, in the order asked for

So that nobody pays for a module which the program never imports. The watch is a finder at the front of
sys.meta_path that finds nothing itself: it asks the others and wraps the loader they name until the module's
code runs, as importlib's LazyLoader does. It leaves when nothing is awaited any more. This module imports
nothing: every program that has bequest installed loads it.
"""

from __future__ import annotations

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
        return getattr(self._loader, name)


class _Watch:
    """The finder; there is one in each process.

    Attributes:
        awaited: Per module that is awaited, what is to be done, by key.
    """

    def __init__(self) -> None:
        self.awaited: dict[str, dict[Hashable, Callable[[], None]]] = {}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return what the other finders find, made to report here; None for any module that nobody awaits."""
        if name not in self.awaited:
            return None
        # Those behind it: the others have been asked, and one of them may do the same.
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec: Any = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Announcing(spec.loader, self)
                return spec
        return None

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
