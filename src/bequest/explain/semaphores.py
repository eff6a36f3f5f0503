"""Whether a lock that a child is given lives long enough: plain multiprocessing does not see to that.

    watch(semaphore) -> the moment at which this process gives it up -> compared with when the child has it

A semaphore is removed from the system when the last reference in the process that made it goes. bequest
keeps what it sends until the child has it; plain Python does not, and the child fails with FileNotFoundError.
So here nothing is kept, and the removal is only noted and made up for later.
"""

from __future__ import annotations

import time
from multiprocessing import synchronize
from multiprocessing import util as _util
from typing import Any

from bequest.explain.watch import Reports

util: Any = _util  # private names of it are used: the same in all versions

_AFTER_CHILDREN = -10  # priority at exit: children have been joined by then


class Semaphores:
    """Notes when semaphores that were sent are given up."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._watched: set[str] = set()

    def watch(self, semaphore: Any) -> str | None:
        """Note when `semaphore` is given up, and have it removed only when no child can need it any more.

        Returns:
            Its name; None where this process does not remove it.
        """
        name = getattr(semaphore._semlock, "name", None)
        if name is None or name in self._watched:
            return name
        for finalizer in list(util._finalizer_registry.values()):
            weak = getattr(finalizer, "_weakref", None)
            if weak is not None and weak() is semaphore:
                finalizer._callback, finalizer._args = self._gone, (name,)
                self._watched.add(name)
                return str(name)
        return None

    def _gone(self, name: str) -> None:
        self._reports.write(kind="gone", semaphore=name, at_ns=time.monotonic_ns())
        cleanup = vars(synchronize.SemLock)["_cleanup"]
        util.Finalize(None, cleanup.__func__, (name,), exitpriority=_AFTER_CHILDREN)
