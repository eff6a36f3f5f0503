"""The descriptors of this process, for tests that look for leaks.

Those of the children that a template keeps forked ahead are left out: there is always one, never the same.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def open_descriptors() -> dict[str, str]:
    """Return what each descriptor of this process leads to, by number."""
    found = {}
    ahead = _of_spares()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # the one that the listing itself used
            continue
    return {fd: name for fd, name in found.items() if int(fd) not in ahead}


def _of_spares() -> set[int]:
    launch: Any = sys.modules.get("bequest.launch.template")
    spares = [] if launch is None else launch.templates.spares.lines
    return {fd for spare in spares for fd in (spare.ours.fileno(), spare.child_pidfd)} - {None}
