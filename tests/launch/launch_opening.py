"""Does something to the process that imports it while it opens its message, as `LAUNCH_OPENING` says."""

import os
import signal
from multiprocessing import process

_wish = os.environ.get("LAUNCH_OPENING", "") if hasattr(process.current_process(), "_inheriting") else ""

if _wish == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif _wish in ("raise", "again"):
    raise ValueError("on purpose")
elif _wish:
    with open(_wish, "rb") as _fifo:
        _fifo.read()
    os.environ["LAUNCH_OPENING"] = (
        "again"  # should it be imported a second time, there is nothing to wait for
    )
    raise ValueError("on purpose")


def work() -> None:
    """Do nothing more."""
