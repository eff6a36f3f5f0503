"""Argument parsers, which compare a string by identity.

action, parser -> its state, in which argparse.SUPPRESS is the receiver's own
"""

from __future__ import annotations

from bequest.carry.registry import carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced


class _Suppress:
    """Rebuilt, it is the receiver's `argparse.SUPPRESS`, the one that `argparse` asks for with `is`."""

    def __reduce__(self) -> Reduced:
        from bequest.carry.namespaces import find_attribute

        return find_attribute, ("argparse", "SUPPRESS")


@carries("argparse.Action", "argparse._ActionsContainer", subclasses=True)
def reduce_options(holder: Any, packing: Packing) -> Reduced:
    """Reduce an action, a parser or a group of arguments."""
    import argparse

    from bequest.carry.instances import reduce_by_state

    marked = {name: _Suppress() for name, value in holder.__dict__.items() if value is argparse.SUPPRESS}
    return reduce_by_state(holder, replace=marked)
