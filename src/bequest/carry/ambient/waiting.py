"""State that waits in a child until the module that it belongs to is imported there.

    restore -> wait_for(module, ...)          the module is not loaded: remember
    import of the module, by whomever         its code has run: restore, forget

A child that never imports numpy does not pay for it because its parent had set a print option.
"""

from __future__ import annotations

from bequest.imports import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Per module that is awaited: the state that waits, by (family, name) of its adopter.
_pending: dict[str, dict[tuple[str, str], Any]] = {}


def wait_for(owner: str, key: tuple[str, str], state: Any, restore: Callable[[Any], None]) -> None:
    """Have `restore(state)` called right after the code of module `owner` has run in this process.

    Args:
        owner: Name of a module that is not loaded.
        key: (family, name) of the adopter; what waited under it before is replaced.
        state: What was captured.
        restore: Called in the thread that imports the module, while it holds that module's import lock.
    """
    _pending.setdefault(owner, {})[key] = state

    def arrived() -> None:
        waiting = _pending[owner]
        late = waiting.pop(key)
        if not waiting:
            del _pending[owner]
        restore(late)

    when_imported(owner, key, arrived)


def still_waiting() -> dict[tuple[str, str], Any]:
    """Return what waits in this process, by (family, name) of its adopter: its own children inherit it."""
    return {key: state for waiting in _pending.values() for key, state in waiting.items()}
