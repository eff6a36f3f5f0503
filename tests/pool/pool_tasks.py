"""What the tests of pools have done in workers: an importable module, as a program's own is."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

state: dict[str, Any] = {}
LEVEL = 1


def double(number: int) -> int:
    """Return twice `number`."""
    return 2 * number


def add(*numbers: int, **more: int) -> int:
    """Return the sum."""
    return sum(numbers) + sum(more.values())


def level() -> int:
    """Return a global of this module."""
    return LEVEL


def kill_self(number: int = signal.SIGKILL) -> None:
    """End this worker by a signal."""
    os.kill(os.getpid(), number)
    signal.pause()


def kill_if(number: int, fatal: int) -> int:
    """End this worker where the numbers are the same, else return the first."""
    if number == fatal:
        kill_self()
    return number


def say_and_exit(text: str) -> None:
    """Write a line to standard error and end this worker."""
    sys.stderr.write(text + "\n")
    os._exit(3)


def log_and_print(number: int) -> int:
    """Print and log."""
    print("printed", number)  # noqa: T201 - that is what is tested
    logging.getLogger("pool_tasks").warning("logged %d", number)
    return number


def wait_for(path: str) -> str:
    """Wait until somebody has written into the named pipe `path`, and return what."""
    with open(path) as pipe:
        return pipe.read()


def fail_to_begin() -> None:
    """Be an initializer that raises."""
    raise LookupError("no such table")


def write_into_channel(content: bytes) -> None:
    """Write into every socket of this process, the worker's channel among them."""
    for name in os.listdir("/proc/self/fd"):
        try:
            is_socket = os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:  # the one that the listing used
            continue
        if is_socket:
            os.write(int(name), content)


def in_thread(function: Callable[[], Any]) -> Any:
    """Return what `function` returns in a thread of its own."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


class Table:
    """A large object that counts how often it is packed."""

    packed = 0

    def __init__(self, rows: bytes) -> None:
        self.rows = rows

    def __reduce__(self) -> Any:
        Table.packed += 1
        return Table, (self.rows,)

    def look(self, index: int) -> int:
        """Return a row."""
        return self.rows[index]


class DemandingError(Exception):
    """An exception whose class wants other arguments than it keeps."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row}: {reason}")
        self.row = row


def raise_demanding() -> None:
    """Raise an exception with a cause, a note and an attribute."""
    error = DemandingError(7, "no date")
    error.add_note("a note")
    raise error from KeyError("cause")


class Unloadable:
    """An object that can be packed and not rebuilt."""

    def __setstate__(self, state: object) -> None:
        raise ValueError("cannot load it")

    def __getstate__(self) -> dict[str, int]:
        return {"x": 1}


def make_unloadable() -> Unloadable:
    """Return one."""
    return Unloadable()


def increment(array: Any) -> Any:
    """Add one in place, and return the array."""
    array += 1
    return array


def total(array: Any) -> float:
    """Return the sum."""
    return float(array.sum())


def give_back(value: Any) -> Any:
    """Return what was given."""
    return value
