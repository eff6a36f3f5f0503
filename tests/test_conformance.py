"""The lists of `tests/conformance` are what they say: short, with reasons, and of tests that exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parent / "conformance"
LISTS = ("intended-differences.txt", "unsteady.txt", "unreached-by-module.txt")


def load_check() -> Any:
    """Return the module that judges the suites; it is a program, in a folder of its own."""
    spec = importlib.util.spec_from_file_location("conformance_check", FOLDER / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(key: str, verdict: str, baseline: str = "ok") -> dict[str, str]:
    """Return what the runner says of one test."""
    suite = key.partition(".")[0]
    return {
        "suite": suite,
        "method": "spawn",
        "key": key,
        "verdict": verdict,
        "baseline": baseline,
        "last": "",
    }


@pytest.mark.parametrize("name", LISTS)
def test_each_entry_has_a_reason(name: str) -> None:
    """An entry is one test, named to its end, and says why; there are few."""
    entries = load_check().read_list(name)

    assert 0 < len(entries) < 10
    assert all(reason and pattern.pattern.endswith("$") for pattern, reason in entries)


@pytest.mark.parametrize("name", LISTS)
def test_each_entry_is_a_test_of_cpython(name: str) -> None:
    """No entry outlives its test, in the suites that came with this Python."""
    suites: Any = pytest.importorskip("test._test_multiprocessing", reason="this Python has no test package")
    folder = Path(suites.__file__).parent
    files = [Path(suites.__file__), *folder.glob("test_concurrent_futures/*.py")]
    known = set(re.findall(r"def (test_\w+)", "\n".join(file.read_text() for file in files)))
    listed = {pattern.pattern.rstrip("$").rpartition(".")[2] for pattern, _ in load_check().read_list(name)}

    missing = listed - known
    assert missing <= {  # newer than some of the versions that bequest supports, or in a suite not installed
        "test_forkserver_without_auth_fails",
        "test_preload_main",
        "test_preload_main_sys_argv",
        "test_preload_main_large_sys_argv",
        "test_std_streams_flushed_after_preload",
        "test_shutdown_deadlock_pickle",
        "test_traceback_when_child_process_terminates_abruptly",
        "test_gc_during_max_tasks_worker_exit_gh152967",
        "test_shutdown_no_wait_max_tasks_gh119592",
        "test_force_shutdown_during_max_tasks_worker_exit",
        "test_failed_worker_replacement_breaks_pool",
    }


def test_only_what_stands_in_no_list_counts() -> None:
    """A test counts against bequest if it fails, does not do so without bequest, and is not listed."""
    check = load_check()
    said = {
        "mode": "installed",
        "python": "3.x",
        "wall": 1,
        "notes": {},
        "rows": [
            row("multiprocessing.WithProcessesTestQueue.test_put", "ok"),
            row("multiprocessing.TestNoForkBomb.test_noforkbomb", "fail"),
            row("multiprocessing.WithProcessesTestQueue.test_get", "fail", baseline="fail"),
            row("multiprocessing.WithProcessesTestQueue.test_fork", "hang"),
        ],
    }
    lines, against = check.judge(said, {"intended": check.read_list("intended-differences.txt")})

    assert against == 1
    assert [line for line in lines if "AGAINST" in line and "test_fork" in line]
    assert [line for line in lines if "intended" in line and "test_noforkbomb" in line]
