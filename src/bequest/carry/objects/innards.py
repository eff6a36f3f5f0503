"""Read what stream objects in C keep to themselves, without a call that would disturb or block them.

    TextIOWrapper  -> its `newline`, and the text that it has decoded and not handed out yet
    Buffered...    -> whether another thread is in the middle of a call on it

None of this can be asked for. The words of the object's own memory are looked at, and only compared with the
addresses of objects that the garbage collector says it refers to; a layout that does not look as expected is
reported as unknown, never guessed at.

Used by the sender only.
"""

from __future__ import annotations

import gc
import io
import sys
import threading
from typing import Any


def words(obj: Any, kind: type) -> list[int]:
    """Return the machine words that make up `obj`, as an instance of `kind` in C."""
    import ctypes

    count = kind.__basicsize__ // ctypes.sizeof(ctypes.c_size_t)
    return list((ctypes.c_size_t * count).from_address(id(obj)))


def is_busy(stream: Any) -> bool:
    """Tell whether another thread is in a call on a buffered stream: any call of ours would wait for it.

    Such a stream keeps the ident of the thread that has its lock in one of its words.
    """
    others = sys._current_frames().keys() - {threading.get_ident()}
    if not others:
        return False
    kind = next((kind for kind in type(stream).__mro__ if kind in _BUFFERED), None)
    return kind is not None and not others.isdisjoint(words(stream, kind))


_BUFFERED = (io.BufferedReader, io.BufferedWriter, io.BufferedRandom)


class TextState:
    """What a flushed TextIOWrapper keeps to itself.

    Attributes:
        newline: The argument of that name.
        decoder: Its decoder, or None.
        snapshot: (decoder flags, bytes) from which `decoded` came, or None where it is not known.
        decoded: The text that it decoded last.
        used: How much of that it has handed out.

    Raises:
        LookupError: The layout of the object is not the one that is known; nothing was read.
    """

    __slots__ = ("decoded", "decoder", "newline", "snapshot", "used")

    def __init__(self, stream: Any) -> None:
        held = gc.get_referents(stream)
        memory = words(stream, io.TextIOWrapper)
        addresses = {id(found): found for found in held}
        place = _place_of_settings(stream, memory)
        self.newline = addresses.get(memory[place + 4])
        self.decoder = next(
            (found for found in held if hasattr(found, "getstate") and hasattr(found, "decode")), None
        )
        self.snapshot = next((found for found in held if type(found) is tuple), None)
        self.decoded, self.used = "", 0
        if self.decoder is not None:
            self._find_text(memory, addresses, place + 6)

    def _find_text(self, memory: list[int], addresses: dict[int, Any], start: int) -> None:
        # Behind the settings stand flags, the text decoded last, and how much of it was handed out.
        for index in range(start, len(memory) - 1):
            found = addresses.get(memory[index])
            if type(found) is str and memory[index + 1] <= len(found):
                self.decoded, self.used = found, memory[index + 1]
                return


def _place_of_settings(stream: Any, memory: list[int]) -> int:
    """Return where (buffer, encoding, encoder, decoder, newline, errors) begin; a run in 3.11 to 3.15."""
    place = memory.index(id(stream.buffer)) if id(stream.buffer) in memory else None
    if place is None or memory[place + 1] != id(stream.encoding) or memory[place + 5] != id(stream.errors):
        raise LookupError("the layout of a text stream is not as expected")
    return place
