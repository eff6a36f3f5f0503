"""Start a child by forking this very process: the standard library's way.

    os.fork -> Process._bootstrap

Nothing is packed, so nothing is left behind.
"""

from __future__ import annotations

from multiprocessing import popen_fork

from bequest.launch import handoff
from bequest.launch.watched import watching

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Popen(popen_fork.Popen):
    """A forked child, which has this process's resource tracker.

    A child that made shared memory before its parent had a tracker would start its own, which removes the
    memory when the child ends, though the parent uses it (python/cpython#82300).
    """

    def _launch(self, process_obj: Any) -> None:
        handoff.tracker_fd()
        super()._launch(process_obj)  # type: ignore[misc]  # private, the same in all versions
        if watching.watcher is not None:
            watching.watcher.forked(process_obj, self)
