"""`bequest explain`, `bequest check` and `bequest doctor`: what they say of programs, and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from programs import Ended, Programs

STARTS = """\
import multiprocessing as mp
import sys
from concurrent.futures import ProcessPoolExecutor

table = list(range(5000))
used = (number for number in table)
next(used)


class Owner:
    def __init__(self):
        self.used = used

    def work(self):
        print(len(table))


def double(number):
    return 2 * number


if __name__ == "__main__":
    child = mp.Process(target=Owner().work)
    child.start()
    child.join()
    with mp.Pool(2) as pool:
        print(pool.map(double, [1, 2]))
    with ProcessPoolExecutor(1) as executor:
        print(executor.submit(double, 3).result())
    sys.exit(7)
"""


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """A folder for programs."""
    return Programs(tmp_path)


def explain(programs: Programs, text: str, *options: str) -> Ended:
    """Run `bequest explain` on the text of a program."""
    programs.write("program.py", text)
    return programs.python("-m", "bequest", "explain", *options, "program.py")


def check(programs: Programs, text: str, *arguments: str) -> tuple[Ended, dict[str, Any]]:
    """Run `bequest check` on the text of a program; return how it ended and what it found."""
    programs.write("program.py", text)
    ended = programs.python("-m", "bequest", "check", "--json", "found.json", *(arguments or ("program.py",)))
    return ended, json.loads((programs.folder / "found.json").read_text())


def test_explain_prints_one_line_for_each_start(programs: Programs) -> None:
    """A process, a pool and an executor have a line each; output and exit status are the program's own."""
    ended = explain(programs, STARTS)
    lines = [line for line in ended.errors.splitlines() if line.startswith("program.py:")]

    assert (ended.status, ended.output.splitlines()) == (7, ["5000", "[2, 4]", "6"])
    assert [line.split()[0] for line in lines] == ["program.py:24", "program.py:26", "program.py:29"]
    assert "runs after" in lines[0]
    assert "self.used (generator" in lines[0]
    assert "Pool, worker" in lines[1]
    assert "ProcessPoolExecutor, worker" in lines[2]
    assert "4 processes" in ended.errors


def test_explain_writes_trees(programs: Programs) -> None:
    """--tree prints trees; --json and --html write them to files."""
    ended = explain(programs, STARTS, "--tree", "--json", "out.json", "--html", "out.html")
    starts = json.loads((programs.folder / "out.json").read_text())

    assert "self  __main__.Owner" in ended.errors
    assert [(start["owner"], start["workers"]) for start in starts] == [
        ("Process", 1),
        ("Pool", 2),
        ("ProcessPoolExecutor", 1),
    ]
    for start in starts:
        assert start["tree"]["root"]["total_bytes"] == start["bytes"]
    assert "ProcessPoolExecutor" in (programs.folder / "out.html").read_text()


def test_explain_tells_of_what_children_start(programs: Programs) -> None:
    """A child's own starts are told of as well."""
    text = """\
import multiprocessing as mp


def outer():
    mp.get_context("spawn").Process(target=print, args=("inner",)).start()


if __name__ == "__main__":
    mp.Process(target=outer).start()
"""
    ended = explain(programs, text)

    assert ended.output.splitlines() == ["inner"]
    assert [line.split()[:2] for line in ended.errors.splitlines() if line.startswith("program.py:")] == [
        ["program.py:9", "forkserver"],
        ["program.py:5", "spawn"],
    ]


def test_explain_tells_of_forks(programs: Programs) -> None:
    """A child that is forked has a line, which says that it was given nothing but has everything."""
    text = "import multiprocessing\nfork = multiprocessing.get_context('fork')\n"
    text += "fork.Process(target=print, args=('there',)).start()\n"
    ended = explain(programs, text)

    assert ended.output.splitlines() == ["there"]
    assert "program.py:3  fork  " in ended.errors
    assert "a copy of everything" in ended.errors


HEAD = """\
import logging
import multiprocessing as mp
import warnings

LIMITS = {"size": 10}


def show(*args):
    print("shown")


def read():
    print(LIMITS["size"])


def log():
    logging.getLogger("app").info("here")


def report(queue):
    queue.put([1])


def read_late():
    print(late)


def run(*args, **named):
    child = mp.Process(*args, **named)
    child.start()
    child.join()


if __name__ == "__main__":
    """

CASES: dict[str, tuple[str, str, str]] = {
    "plain function": ("run(target=show)", "works", ""),
    "lock": ("lock = mp.Lock(); run(target=show, args=(lock,))", "works", ""),
    "queue and event": ("q = mp.Queue(); e = mp.Event(); run(target=show, args=(q, e))", "works", ""),
    "shared array": ("a = mp.Array('i', 3); run(target=show, args=(a,))", "works", ""),
    "pipe": ("a, b = mp.Pipe(); run(target=show, args=(a,))", "works", ""),
    "global as it was": ("run(target=read)", "works", ""),
    "lambda": ("run(target=lambda: None)", "fails", "pickle"),
    "generator in a list": (
        "run(target=show, args=([1, (x for x in ())],))",
        "fails",
        "args[0][1]",
    ),
    "name made under the guard": ("late = 1; run(target=read_late)", "fails", "name 'late' is not defined"),
    "started process": (
        "p = mp.Process(target=show); p.start(); p.join(); run(target=show, args=(p,))",
        "fails",
        "weakref",
    ),
    "changed global": ("LIMITS['size'] = 99; run(target=read)", "differs", "{'size': 99}"),
    "logging": ("logging.basicConfig(level='INFO'); run(target=log)", "differs", "logs: logging"),
    "put of a lambda": ("q = mp.SimpleQueue(); q.put(lambda: 1); q.get()", "fails", "pickle"),
    "put of plain data": ("q = mp.SimpleQueue(); q.put([1]); q.get()", "works", ""),
    "lock that nobody keeps": (
        "p = mp.Process(target=show, args=(mp.Lock(),)); p.start(); p.join()",
        "fails",
        "FileNotFoundError",
    ),
    "pool of plain tasks": ("with mp.Pool(1) as pool: pool.map(abs, [1])", "works", ""),
    "pool that was terminated": (
        "with mp.Pool(1) as pool: pool.map(abs, [1])\n    run(target=show)",
        "works",
        "",
    ),
    "pool task that reads a changed global": (
        "LIMITS['size'] = 99\n    with mp.Pool(1) as pool: pool.apply(read)",
        "differs",
        "LIMITS",
    ),
    "fork, chosen by name": ("mp.get_context('fork').Process(target=lambda: None).start()", "works", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_check_says_what_plain_python_would_do(programs: Programs, name: str) -> None:
    """Each place's verdict is that of plain Python, the finding says why, and the exit status follows."""
    body, verdict, why = CASES[name]
    ended, found = check(programs, HEAD + body + "\n")
    worst = min(
        (place["verdict"] for place in found["places"]),
        key=["fails", "differs", "works"].index,
        default="works",
    )
    told = [f"{f['path']} {f['error']} {f['here']}" for place in found["places"] for f in place["findings"]]

    assert (worst, ended.status) == (verdict, 0 if verdict == "works" else 1), ended
    assert (verdict == "works") == (not told), told
    assert any(why in text for text in told) or verdict == "works", told


def test_check_sees_an_unguarded_main_module(programs: Programs) -> None:
    """A program without a guard starts its children again in each child, which plain Python refuses."""
    _, found = check(programs, "import multiprocessing as mp\nmp.Process(target=print).start()\n")

    assert [place["verdict"] for place in found["places"]] == ["fails"]
    assert "RuntimeError" in found["places"][0]["findings"][0]["error"]


def test_check_runs_a_module(programs: Programs) -> None:
    """-m runs a module, with its arguments; the exit status of a sound program is its own."""
    programs.write("package/__init__.py", "")
    programs.write("package/__main__.py", "import sys\nprint(sys.argv[1:])\nsys.exit(5)\n")
    ended, found = check(programs, "", "-m", "package", "one")

    assert (ended.status, ended.output.strip(), found["places"]) == (5, "['one']", [])


STOPPED = """\
import os, signal

class Stopped(BaseException):
    pass

def stop(*_):
    raise Stopped

signal.signal(signal.SIGTERM, stop)
try:
    os.kill(os.getppid(), signal.SIGTERM)
    signal.pause()
except Stopped:
    print("stopped", flush=True)
    raise SystemExit(3)
"""


@pytest.mark.parametrize("command", ["explain", "check"])
def test_sigterm_is_the_programs(programs: Programs, command: str) -> None:
    """Who ends `bequest explain` or `check` ends the program, which may clean up; the report still comes."""
    programs.write("program.py", STOPPED)

    ended = programs.python("-m", "bequest", command, "program.py")

    assert (ended.output, ended.status) == ("stopped\n", 3), ended


@pytest.mark.parametrize("arguments", [["explain"], ["check", "--nonsense", "x.py"], ["explain", "--html"]])
def test_wrong_command_line_is_refused(programs: Programs, arguments: list[str]) -> None:
    """A command line that cannot be understood ends with status 2 and the usage."""
    ended = programs.python("-m", "bequest", *arguments)

    assert ended.status == 2
    assert "usage:" in ended.errors


def test_doctor_tries_what_processes_need(programs: Programs) -> None:
    """The doctor tells of each thing whether it works here; where the tests pass, nothing fails."""
    ended = programs.python("-m", "bequest", "doctor", "--json")
    found = {each["name"]: each["state"] for each in json.loads(ended.output)}

    assert {"Python", "start methods", "start by spawn", "template", "semaphores", "pidfd"} <= found.keys()
    assert "fails" not in found.values()
    assert ended.status == 0


def test_doctor_says_that_byte_code_is_not_written(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes every start slow is said, with what to do."""
    programs.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    ended = programs.python("-m", "bequest", "doctor", "--json")
    found = {each["name"]: each for each in json.loads(ended.output)}

    assert found["byte code"]["state"] == "slow"
    assert "PYTHONDONTWRITEBYTECODE" in found["byte code"]["advice"]
