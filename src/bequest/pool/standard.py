"""The standard library's modules beneath the faces, imported without being changed on the way.

    module(name) -> the module; what `bequest.install` does to it waits -> settle(), at the end

Where bequest is installed, those modules are changed at their import, by putting in what is defined here:
which cannot be there yet while it is what imports them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


class _Import:
    """What is going on.

    Attributes:
        depth: How many imports by `module` there are at the moment.
        waiting: What is to be done when the faces are defined.
    """

    depth = 0
    waiting: list[Callable[[], None]] = []


def module(name: str) -> Any:
    """Return a module of the standard library."""
    _Import.depth += 1
    try:
        return import_module(name)
    finally:
        _Import.depth -= 1


def defer(change: Callable[[], None]) -> bool:
    """Keep `change` for `settle`, and return true, while `module` imports; else return false."""
    if _Import.depth:
        _Import.waiting.append(change)
    return bool(_Import.depth)


def settle() -> None:
    """Make the changes that were kept."""
    while _Import.waiting:
        _Import.waiting.pop()()
