"""What the children of the tests of large data do."""

from __future__ import annotations

import os
import re
import signal
from typing import Any


def echo(pipe: Any) -> None:
    """Send back whatever comes, until None does."""
    while (got := pipe.recv()) is not None:
        pipe.send(got)


def answer(function: Any, argument: Any, pipe: Any) -> None:
    """Tell what a function makes of an argument."""
    pipe.send(function(argument))


def put_and_end(queue: Any, size: int) -> None:
    """Put so many bytes, and end as a process does."""
    queue.put(bytes(size))


def send_and_be_killed(pipe: Any, size: int) -> None:
    """Send so many bytes, and be killed before anybody has read them."""
    pipe.send(bytes(size))
    os.kill(os.getpid(), signal.SIGKILL)


def move(queue: Any, back: Any) -> None:
    """Put back whatever comes, until None does."""
    while (got := queue.get()) is not None:
        back.put(got)
    back.put(None)


def overwrite(array: Any, pipe: Any) -> None:
    """Write over all of an array, and tell what it was before and is then."""
    before = array.sum()
    array[:] = 7
    pipe.send((before, array.sum()))


def segments(_: Any = None) -> set[str]:
    """Return which segments this process has mapped, as the kernel numbers them."""
    with open("/proc/self/maps") as maps:
        return {line.split()[4] for line in maps if re.search(r"memfd:bequest", line)}


def tell_segments(array: Any, pipe: Any) -> None:
    """Tell the first item, and which segments are mapped."""
    pipe.send((array[0], segments()))
