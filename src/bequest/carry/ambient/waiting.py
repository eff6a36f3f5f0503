"""State that waits in a child until the module that it belongs to is imported there.

    restore -> wait_for(module, ...)          the module is not loaded: remember
    import of the module, by whomever         its code has run: restore, forget

A child that never imports numpy does not pay for it because its parent had set a print option. The watch is a
finder at the front of sys.meta_path that finds nothing itself: it asks the others and wraps the loader they
name until the module's code runs, as importlib's LazyLoader does. It leaves when nothing waits any more.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
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
    """The finder; one per process at most.

    Attributes:
        pending: Per awaited module, what waits: (family, name) of an adopter to its state and how to restore.
    """

    def __init__(self) -> None:
        self.pending: dict[str, dict[tuple[str, str], tuple[Any, Callable[[Any], None]]]] = {}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return what the other finders find, made to report here; None for any module that nobody awaits."""
        if name not in self.pending:
            return None
        for finder in list(sys.meta_path):
            spec: Any = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Announcing(spec.loader, self)
                return spec
        return None

    def arrived(self, name: str) -> None:
        """Restore what has waited for module `name`, whose code has run."""
        arrived = self.pending.pop(name, {})
        if not self.pending and self in sys.meta_path:
            sys.meta_path.remove(self)
        for state, restore in arrived.values():
            restore(state)


def wait_for(owner: str, key: tuple[str, str], state: Any, restore: Callable[[Any], None]) -> None:
    """Have `restore(state)` called right after the code of module `owner` has run in this process.

    Args:
        owner: Name of a module that is not loaded.
        key: (family, name) of the adopter; what waited under it before is replaced.
        state: What was captured.
        restore: Called in the thread that imports the module, while it holds that module's import lock.
    """
    watch = _watch()
    if watch is None:
        watch = _Watch()
        sys.meta_path.insert(0, watch)
    watch.pending.setdefault(owner, {})[key] = (state, restore)


def still_waiting() -> dict[tuple[str, str], Any]:
    """Return what waits in this process, by (family, name) of its adopter: its own children inherit it."""
    watch = _watch()
    if watch is None:
        return {}
    return {key: state for waiting in watch.pending.values() for key, (state, _) in waiting.items()}


def _watch() -> _Watch | None:
    for finder in sys.meta_path:
        if type(finder) is _Watch:
            return finder
    return None
