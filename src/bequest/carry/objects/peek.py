"""Read what an object of C keeps in its struct: the state that itertools and a few others show to nobody.

    object -> words of its struct -> the objects and numbers they are -> a reducer's arguments

Only the sender uses this, and it only ever reads: the receiver builds its objects through their public
constructors. Callers check the places they read on a sample of their own (`expect`) before they trust them,
so a Python that lays a struct out differently refuses to carry the object instead of reading nonsense.
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Callable, Sequence
from typing import Any

from bequest.carry.registry import NotCarriedError

_HEAD_BYTES = object.__basicsize__
_WORD_BYTES = struct.calcsize("n")
_LOW_HALF = 0xFFFF_FFFF

_checked: dict[Callable[[], bool], bool] = {}


class _Null:
    """The type of `NULL`."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "NULL"


NULL = _Null()
"""What `slots` gives for a word that is zero: an empty pointer, or the number 0."""


def words_at(address: int, count: int) -> list[int]:
    """Return `count` words of this process's memory; `address` must be known to be mapped that far."""
    ctypes = _ctypes()
    raw: bytes = ctypes.string_at(address, count * _WORD_BYTES)
    return list(struct.unpack(f"{count}n", raw))


def body(obj: object) -> list[int]:
    """Return the words of the struct of `obj` behind the head that every object has."""
    count = (type(obj).__basicsize__ - _HEAD_BYTES) // _WORD_BYTES
    return words_at(id(obj) + _HEAD_BYTES, count)


def slots(obj: object) -> list[Any]:
    """Return `body(obj)` with objects for the words that point to them, and `NULL` for 0."""
    known: dict[int, Any] = {id(referent): referent for referent in gc.get_referents(obj)}
    return [known.get(word, word) if word else NULL for word in body(obj)]


def items(known: Sequence[Any], pointing: tuple[Any, ...]) -> list[Any]:
    """Return the items of `pointing`, a tuple in which C code has left empty pointers (as `NULL`).

    Args:
        known: Anything that holds all the items that are there.
        pointing: The tuple, which must not be touched in any other way: reading an empty item crashes.
    """
    by_address = {id(item): item for item in known}
    found = words_at(id(pointing) + tuple.__basicsize__, len(pointing))
    return [by_address[word] if word else NULL for word in found]


def object_at(address: int) -> Any:
    """Return the object at `address`, which must be one that something holds."""
    ctypes = _ctypes()
    return ctypes.cast(address, ctypes.py_object).value


def number(slot: Any) -> int:
    """Return a slot that holds a `Py_ssize_t`."""
    return 0 if slot is NULL else int(slot)


def low_half(slot: Any) -> int:
    """Return a slot that holds a C `int`, followed by another or by padding."""
    return number(slot) & _LOW_HALF


def expect(check: Callable[[], bool]) -> None:
    """Run `check` once per process; it reads a sample whose state is known and says whether that came out.

    Raises:
        NotCarriedError: It did not.
    """
    if check not in _checked:
        _checked[check] = check()
    if not _checked[check]:
        raise NotCarriedError(
            "its position cannot be read on this build of Python", "Pass what is left of it as a list"
        )


def _ctypes() -> Any:
    try:
        import ctypes
    except ImportError:
        raise NotCarriedError(
            "its position can only be read with ctypes, which this Python lacks",
            "Pass what is left of it as a list",
        ) from None
    return ctypes
