"""What the children of `test_robust` do: an importable module, as a program's own is."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any


def hold(lock: Any, pipe: Any) -> None:
    """Take a lock, say so, and keep it."""
    lock.acquire()
    pipe.send("held")
    signal.pause()


def count(lock: Any, path: Path, times: int) -> None:
    """Add one to the number in a file, `times` times, each time with the lock."""
    for _ in range(times):
        with lock:
            path.write_text(str(int(path.read_text()) + 1))


def wait_for(condition: Any, pipe: Any) -> None:
    """Wait for a condition, after having said so with its lock held; then say that it has come."""
    with condition:
        pipe.send("waiting")
        condition.wait()
    pipe.send("woken")


def wait_for_event(event: Any, pipe: Any) -> None:
    """Wait for an event, and say that it has come."""
    pipe.send("waiting")
    event.wait()
    pipe.send("woken")


def take_one(queue: Any, pipe: Any) -> None:
    """Say that it is about to take an item, take it, and say which."""
    pipe.send("waiting")
    pipe.send(queue.get())
