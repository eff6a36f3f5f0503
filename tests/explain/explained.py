"""Functions and classes of an importable module, for what `explain` tells of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SETTINGS = {"debug": False}
LIMIT = 3


def read_settings() -> object:
    """Read globals of this module."""
    return SETTINGS, LIMIT


class Feed:
    """Holds what cannot be carried, and something large."""

    def __init__(self) -> None:
        self.numbers = iterate()
        next(self.numbers)
        self.content = b"x" * 10_000
        self.me = self

    def work(self) -> None:
        """Be a target."""


def iterate() -> Any:
    """Be a generator."""
    yield 1
    yield 2


def closing_over(packer: object, *, other: object = None) -> Callable[[], object]:
    """Return a function that closes over both arguments."""

    def inner() -> object:
        if packer:
            return packer
        return other

    return inner
