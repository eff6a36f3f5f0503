"""How many tasks a worker is given at a time: enough to keep it busy, few enough not to hold any up.

    portion(task, ...) -> tasks in the next frame, frames that the worker may have ahead
    least_pending(task, ...) -> whether a busy worker is given any yet

Pure arithmetic on what has been measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bequest.pool.task import Task

_FRAME_NS = 1_500_000  # of work in a frame: a slow task holds up those behind it no longer
_AHEAD_NS = 50_000_000  # tasks longer than this are given one by one: nothing is gained by a second
_MOST_IN_FRAME = 256
_LEAST_NS = 200_000  # of work in a frame for a worker that is busy: to be woken up costs it about as much
_MOST_OF_LEAST = 32
_FRAMES_AHEAD = 3  # on a busy machine this process may be late with the next


def portion(task: Task, pending: int, workers: int, left: int) -> tuple[int, int]:
    """Return how many tasks a worker is given now, and how many frames it may have ahead.

    Args:
        task: The next one; nothing is known of those behind it.
        pending: How many there are.
        workers: How many there are.
        left: How many this worker may still be given before it is replaced.
    """
    task_ns = task.function.task_ns
    is_timed = task.options is not None and task.options.timeout is not None
    if is_timed or task_ns == 0 or task_ns > _AHEAD_NS:
        return min(1, left), 0
    most = max(1, min(_MOST_IN_FRAME, _FRAME_NS // task_ns))
    return min(max(1, min(most, pending // (2 * workers))), left), _FRAMES_AHEAD


def least_pending(task: Task, workers: int) -> int:
    """Return how many tasks must be pending for one that is busy to be given some of them.

    Args:
        task: The next one.
        workers: How many workers there are.
    """
    task_ns = task.function.task_ns
    least = min(_MOST_OF_LEAST, _LEAST_NS // task_ns) if task_ns else 1
    return 2 * workers * least if least > 1 else 1
