"""Say how a worker ended, in words a person can act on.

    exit code -> how_it_ended -> a clause of WorkerDied

Pure: nothing here waits for a process.
"""

from __future__ import annotations

import signal

# By name, since not every platform has every signal.
_USUAL_CAUSE = {
    "SIGKILL": "often the kernel's out-of-memory killer",
    "SIGSEGV": "a crash in native code",
    "SIGBUS": "a crash in native code, or no room left in shared memory",
    "SIGABRT": "native code gave up",
    "SIGILL": "native code for another processor",
    "SIGFPE": "a crash in native code",
    "SIGXCPU": "its limit of processor time",
}


def how_it_ended(code: int | None) -> str:
    """Return what became of a process, as a verb phrase.

    Args:
        code: As `Process.exitcode`; None where nobody knows.
    """
    if code is None:
        return "ended, nobody knows how,"
    if code >= 0:
        return f"exited with code {code}"
    name = _signal_name(-code)
    cause = _USUAL_CAUSE.get(name)
    return f"was killed by {name}" + (f" ({cause})" if cause else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name of their own
        return f"signal {number}"
