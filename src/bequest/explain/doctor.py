"""`bequest doctor`: what of this system matters to processes, and what would be slow or fail here.

the system, asked and tried -> [Finding(state, name, value, advice)] -> a table, or JSON

Each finding comes of a trial where one is cheap: a descriptor that is opened says more than a version number.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bequest.explain.text import duration, size

_USAGE = "usage: python -m bequest doctor [--json]\n"
_FEW_DESCRIPTORS = 256
_LITTLE_SHM_BYTES = 64 * 1024 * 1024  # what containers get unless they are told otherwise
_SLOW_START_S = 0.5
_LIMIT_S = 60.0


@dataclass(slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        state: "ok", "slow" (it works, at a price) or "fails".
        name: What was looked at.
        value: What was found.
        advice: What follows from it, and what to do; empty where there is nothing to do.
    """

    state: str
    name: str
    value: str
    advice: str = ""


def main(given: Sequence[str]) -> int:
    """Print what was found.

    Args:
        given: Arguments: `--json` for JSON on standard output.

    Returns:
        1 where something fails, 2 where the arguments are wrong, else 0.
    """
    if given and list(given) != ["--json"]:
        stream = sys.stdout if given[0] in ("-h", "--help") else sys.stderr
        stream.write(_USAGE)
        return 0 if stream is sys.stdout else 2
    findings = examine()
    if given:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings], indent=1) + "\n")
    else:
        _show(findings)
    return int(any(finding.state == "fails" for finding in findings))


def examine() -> list[Finding]:
    """Look at everything; takes about a second, as some children are started."""
    findings: list[Finding] = []
    for look in _LOOKS:
        try:
            findings += look()
        except Exception as error:  # noqa: BLE001 - one that cannot be looked at must not hide the others
            findings.append(Finding("fails", look.__name__.strip("_"), f"{type(error).__name__}: {error}"))
    return findings


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    styles = {"ok": "green", "slow": "yellow", "fails": "bold red"}
    for found in findings:
        text = found.value + (f"\n{found.advice}" if found.advice else "")
        table.add_row(f"[{styles[found.state]}]{found.state}[/]", found.name, text)
    Console().print(table)


def _versions() -> Iterator[Finding]:
    import bequest

    python = f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    known = (3, 11) <= sys.version_info < (3, 16)
    advice = "" if known else "bequest is tested on 3.11 to 3.15"
    yield Finding("ok" if known else "slow", "Python", python, advice)
    yield Finding("ok", "bequest", f"{bequest.__version__}, {Path(bequest.__file__).parent}")
    yield Finding("ok", "system", f"{platform.system()} {platform.release()} {platform.machine()}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", "processors", f"{cores} of {os.cpu_count()}")


def _start_methods() -> Iterator[Finding]:
    import multiprocessing

    import bequest

    methods = ", ".join(bequest.get_all_start_methods())
    plain = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    ours = bequest.get_start_method(allow_none=True) or "forkserver"
    yield Finding("ok", "start methods", f"{methods}; default of bequest {ours}, of multiprocessing {plain}")


def _time_of_starts() -> Iterator[Finding]:
    for name, method, context_first in (
        ("start by spawn", "spawn", False),
        ("first start by forkserver", "forkserver", False),
        ("further start by forkserver", "forkserver", True),
    ):
        took_s = _time_of_start(method)
        advice = ""
        if took_s > _SLOW_START_S and not context_first:
            advice = "a new interpreter is slow to begin here: see the time of an empty interpreter below"
        yield Finding("slow" if advice else "ok", name, duration(took_s * 1e6), advice)


def _time_of_start(method: str) -> float:
    import bequest

    child = bequest.get_context(method).Process(target=int)
    began = time.monotonic()
    child.start()
    child.join(_LIMIT_S)
    took_s = time.monotonic() - began
    if child.exitcode != 0:
        child.kill()
        raise RuntimeError(f"a child that does nothing ended with {child.exitcode}")
    return took_s


def _template() -> Iterator[Finding]:
    from bequest.launch.template import templates

    current = templates._current
    if current is None:
        yield Finding("fails", "template", "there is none after a start", "forkserver cannot work here")
        return
    state = f"process {current.pid}, {len(current.asked)} modules imported"
    if templates._unprepared:
        advice = (
            "a new interpreter has several threads (sitecustomize?), so nothing is prepared before a fork"
        )
        yield Finding("slow", "template", state, advice)
    else:
        yield Finding("ok", "template", state)


def _interpreter() -> Iterator[Finding]:
    took = {}
    for name, flags in (("with site", ()), ("without", ("-S", "-E"))):
        began = time.monotonic()
        subprocess.run([sys.executable, *flags, "-c", "pass"], check=True, timeout=_LIMIT_S)
        took[name] = time.monotonic() - began
    text = f"{duration(took['with site'] * 1e6)}, {duration(took['without'] * 1e6)} without site"
    slow = took["with site"] > 3 * took["without"] + 0.03
    advice = "look at sitecustomize and the .pth files of this environment: python -X importtime -c pass"
    yield Finding("slow" if slow else "ok", "empty interpreter", text, advice if slow else "")
    if sys.dont_write_bytecode:
        advice = "every new interpreter compiles its modules again: unset PYTHONDONTWRITEBYTECODE"
        yield Finding("slow", "byte code", "is not written", advice)
    else:
        yield Finding("ok", "byte code", "is written")


def _limits() -> Iterator[Finding]:
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    for name, number, least, advice in (
        (
            "descriptors (ulimit -n)",
            "RLIMIT_NOFILE",
            _FEW_DESCRIPTORS,
            "each child takes up to three: ulimit -n 4096",
        ),
        ("processes (ulimit -u)", "RLIMIT_NPROC", 64, "starts may fail: ulimit -u"),
        ("address space (ulimit -v)", "RLIMIT_AS", 1 << 32, "children of large programs may not begin"),
    ):
        soft, _ = resource.getrlimit(getattr(resource, number))
        tight = soft != resource.RLIM_INFINITY and soft < least
        text = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft:,}"
        yield Finding("slow" if tight else "ok", name, text, advice if tight else "")
    memory = _read("/sys/fs/cgroup/memory.max")
    if memory.isdigit():
        yield Finding("ok", "memory of this container", size(int(memory)))


def _kernel() -> Iterator[Finding]:
    from bequest.launch import pidfd

    fd = pidfd.open_pidfd(os.getpid())
    if fd is None:
        advice = "processes are followed by pipes; handles of other processes' children tell less"
        yield Finding("slow", "pidfd", "not available (Linux 5.3)", advice)
    else:
        os.close(fd)
        yield Finding("ok", "pidfd", "works")
    if hasattr(os, "memfd_create"):
        os.close(os.memfd_create("bequest-doctor"))
        yield Finding("ok", "memfd", "works")
    else:
        yield Finding("slow", "memfd", "not available", "messages go by files in the temporary folder")
    scope = _read("/proc/sys/kernel/yama/ptrace_scope")
    if scope:
        meaning = {"0": "any process of the user", "1": "descendants", "2": "administrators"}.get(
            scope, "nobody"
        )
        yield Finding("ok", "ptrace scope", f"{scope}: {meaning} may read another's memory")


def _descriptors_pass() -> Iterator[Finding]:
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [0])
        _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
    for fd in fds:
        os.close(fd)
    yield Finding("ok", "descriptors over sockets", "work")


def _shared_memory() -> Iterator[Finding]:
    import multiprocessing

    multiprocessing.get_context("spawn").Lock()
    yield Finding("ok", "semaphores", "work")
    if not os.path.isdir("/dev/shm"):
        return
    found = os.statvfs("/dev/shm")
    free = found.f_bavail * found.f_frsize
    little = free < _LITTLE_SHM_BYTES
    advice = (
        "shared memory and large locks may fail with 'No space left': docker run --shm-size=1g"
        if little
        else ""
    )
    yield Finding("slow" if little else "ok", "/dev/shm", f"{size(free)} free", advice)


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:  # there is none on this system
        return ""


_LOOKS: tuple[Callable[[], Any], ...] = (
    _versions,
    _start_methods,
    _time_of_starts,
    _template,
    _interpreter,
    _limits,
    _kernel,
    _descriptors_pass,
    _shared_memory,
)
