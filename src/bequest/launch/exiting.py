"""What a process that uses bequest does as it exits, among the finalizers of multiprocessing.

    import of this module; a start -> ensure() -> two finalizers
    exit: await_answers, ... the finalizers of queues, pools and managers ..., the templates are stopped

Registered before the first start, as soon as multiprocessing can register finalizers, so that a program which
looks at them around a start (CPython's own tests do) sees only its own.
"""

from __future__ import annotations

import os
import sys
from multiprocessing import process
from multiprocessing import util as _util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

util: Any = _util  # private names of it are used: the same in all versions

DAEMON_GRACE_S = 2.0
"""How long a parent's exit waits for a daemonic child to have received what the exit is about to remove."""

_FIRST = 1000  # before every finalizer of multiprocessing itself: theirs remove semaphores, at 0
_LAST = -100  # after all of those, and after the children have been joined


def await_answers() -> None:
    """Wait until every child of this process has what was kept for it, or has ended.

    Run at exit before anything is removed, since a child that is still importing would find its semaphores
    gone. A daemonic child, which is about to be terminated anyway, is given `DAEMON_GRACE_S`.
    """
    for child in list(process._children):  # type: ignore[attr-defined]  # private, the same in all versions
        wait = getattr(child._popen, "await_answer", None)
        if wait is not None:
            wait(DAEMON_GRACE_S if child.daemon else None)


def _stop_templates() -> None:
    template = sys.modules.get("bequest.launch.template")
    if template is not None:
        template.templates.stop()


class _Exit:
    """Registers the two finalizers once in each process: they do not pass a fork."""

    def __init__(self) -> None:
        self._pid = 0

    def ensure(self) -> None:
        """See to it that this process does both when it exits."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            util.Finalize(None, await_answers, exitpriority=_FIRST)
            util.Finalize(None, _stop_templates, exitpriority=_LAST)

    def forget(self) -> None:
        """Know that the finalizers have been cleared, as is done in a child that begins."""
        self._pid = 0


_exit = _Exit()
ensure = _exit.ensure
util.register_after_fork(_exit, _Exit.forget)
ensure()
