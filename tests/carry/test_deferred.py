"""Large state reaches a running process once, when that has none; what owns something stays the one it is.

Each case is a program of its own. Items of its large table count, in the main process, how often they are
packed.
"""

from __future__ import annotations

import hashlib
import marshal
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import pytest

import bequest
from bequest.carry import deferred
from bequest.carry.deferred import Deferred
from bequest.errors import LeftBehindError
from programs import Ended, Programs

COUNTED = """\
import os
import multiprocessing as mp

mp.set_start_method(os.environ["START_METHOD"])
MAIN = os.getpid()
packed = 0
made = 0


class Item:
    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        global packed
        packed += os.getpid() == MAIN
        return int, (self.number,)


table = [Item(number) for number in range(5000)]
"""

# What the program does, what it prints, and how often each item is packed where workers begin clean.
CASES = {
    "tasks of one worker": (
        "def work(index):\n    return int(table[index] if type(table[0]) is int else table[index].number)\n"
        "with mp.Pool(1) as pool:\n"
        "    print([pool.apply(work, (index,)) for index in range(4)], packed // len(table))\n",
        "[0, 1, 2, 3] {once}",
    ),
    "objects whose class reads it": (
        "class Point:\n"
        "    def get(self):\n        return len(table)\n"
        "def work(there, back):\n"
        "    for point in iter(there.get, None):\n        back.put(point.get())\n"
        "there, back = mp.Queue(), mp.Queue()\n"
        "child = mp.Process(target=work, args=(there, back))\n"
        "child.start()\n"
        "for _ in range(3):\n    there.put(Point())\n    print(back.get(), end=' ')\n"
        "there.put(None)\nchild.join()\nprint(packed // len(table))\n",
        "5000 5000 5000 {once}",
    ),
    "an object that comes home": (
        "class Point:\n"
        "    def get(self):\n        return table\n"
        "def work(back):\n    back.put(Point())\n"
        "back = mp.Queue()\n"
        "child = mp.Process(target=work, args=(back,))\n"
        "child.start()\nprint(back.get().get() is table)\nchild.join()\n",
        "True",
    ),
    "an attribute of a class": (
        "class Lookup:\n    entries = table\n"
        "    def size(self):\n        return len(self.entries)\n"
        "def work(lookup):\n    return lookup.size()\n"
        "with mp.Pool(1) as pool:\n"
        "    print([pool.apply(work, (Lookup(),)) for _ in range(3)], packed // len(table))\n",
        "[5000, 5000, 5000] {once}",
    ),
    "a table that holds functions which read it": (
        "def first():\n    return len(table)\n"
        "table.append(first)\n"
        "def work():\n    return table[-1]()\n"
        "with mp.Pool(1) as pool:\n    print(pool.apply(work), pool.apply(work))\n",
        "5001 5001",
    ),
    "a table bound anew between tasks": (
        "def work():\n    return len(table)\n"
        "with mp.Pool(1) as pool:\n"
        "    print(pool.apply(work), end=' ')\n"
        "    table = table * 2\n"
        "    print(pool.apply(work))\n",
        "5000 {anew}",
    ),
    "something in it that cannot be carried": (
        "table.append(n for n in [1])\n"
        "def work():\n    return len(table)\n"
        "with mp.Pool(1) as pool:\n    print(pool.apply(work))\n",
        "5001",
    ),
}

OWNER = """\
import os


class Owner:
    def __init__(self):
        self.fd = os.open(os.devnull, os.O_RDONLY)

    def __del__(self):
        os.close(self.fd)


owner = Owner()
held = {"one": Owner()}


def is_open():
    return [os.fstat(one.fd).st_ino > 0 for one in (owner, held["one"])]
"""


def run(programs: Programs, text: str, method: str) -> Ended:
    """Run a program under `bequest run`."""
    return programs.run(text, "script", method)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """A folder for programs."""
    return Programs(tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_large_state_is_sent_where_it_is_missing(programs: Programs, method: str, name: str) -> None:
    """Large globals and class attributes are packed once for a worker that has none; never for a fork."""
    program, expected = CASES[name]
    once, anew = ("0", "5000") if method == "fork" else ("1", "10000")

    lines = run(programs, COUNTED + program, method).lines

    assert lines == [expected.format(once=once, anew=anew)]


@pytest.mark.parametrize("where", ["", "owner."])
def test_what_owns_something_is_not_copied_in_vain(programs: Programs, where: str) -> None:
    """A forked worker's own objects are not released by copies that a task has brought."""
    programs.write("owner.py", OWNER)
    program = "import multiprocessing as mp, owner\n" + ("" if where else OWNER)
    program += f"with mp.get_context('fork').Pool(1) as pool:\n    print(pool.apply({where}is_open))\n"
    program += f"    print(pool.apply({where}is_open))\n"

    assert run(programs, program, "fork").lines == ["[True, True]"] * 2


def test_what_an_import_has_made_owns_what_it_owns(programs: Programs, clean_method: str) -> None:
    """A worker's import has opened descriptors of its own: the main process's numbers mean nothing there."""
    programs.write("owner.py", OWNER)
    program = (
        "import multiprocessing as mp, owner\n"
        f"with mp.get_context({clean_method!r}).Pool(1) as pool:\n    print(pool.apply(owner.is_open))\n"
    )

    assert run(programs, program, clean_method).lines == ["[True, True]"]


def test_state_of_a_module_comes_with_the_first_task(programs: Programs, clean_method: str) -> None:
    """What the main process has put into a large table of a module is there for a worker's first task."""
    programs.write("helper.py", "table = list(range(5000))\ndef last():\n    return table[-1], len(table)\n")
    program = (
        "import multiprocessing as mp, helper\nhelper.table.append('more')\n"
        f"with mp.get_context({clean_method!r}).Pool(1) as pool:\n"
        "    print(pool.apply(helper.last), pool.apply(helper.last))\n"
    )

    assert run(programs, program, clean_method).lines == ["('more', 5001) ('more', 5001)"]


def test_a_child_sends_all(programs: Programs, clean_method: str) -> None:
    """What a child has sent can be read when it has ended: nothing of it is left out."""
    program = (
        "def send(queue):\n    global large\n    large = list(range(50_000))\n    queue.put(use)\n"
        "def use():\n    return len(large)\n"
        "queue = mp.Queue()\n"
        "child = mp.Process(target=send, args=(queue,))\nchild.start()\n"
        "used = queue.get()\nchild.join()\nprint(used())\n"
    )

    assert run(programs, COUNTED + program, clean_method).lines == ["50000"]


# -- the server ----------------------------------------------------------------------------------------------

large: Any = list(range(deferred.MOST_BYTES))


def left_out() -> Deferred:
    """Return what stands for `large` in a message."""
    found: Any = deferred.in_place_of({"large": large}, __name__)["large"]
    assert type(found) is Deferred
    return found


def test_small_state_is_not_left_out() -> None:
    """What is quicker packed than asked for is in the message."""
    values = {"few": list(range(100)), "text": "x" * 100, "work": left_out, "none": None}

    assert deferred.in_place_of(values, __name__) is values


def test_only_processes_of_the_program_are_answered() -> None:
    """A stranger, who does not know the key, is told nothing; who knows it is answered all the same."""
    address = left_out()._address
    with pytest.raises((bequest.AuthenticationError, EOFError, OSError)):
        Client(address, authkey=hashlib.sha256(b"guessed").digest())
    with Client(address) as silent:  # says nothing, and delays nobody
        assert left_out().fetch() == large
        silent.send_bytes(marshal.dumps(None))


def test_sender_that_has_ended_is_named() -> None:
    """Who reads what a process that is no more has left out is told what is missing, and what to do."""
    lost = Deferred("\0bequest-nobody", (__name__, "large"), False).fetch()

    with pytest.raises(LeftBehindError, match=r"test_deferred\.large[^$]*keep its sender alive"):
        len(lost)


def test_deleted_state_is_named() -> None:
    """State that its sender has deleted since is a stand-in that says so."""
    gone = Deferred(left_out()._address, (__name__, "gone"), False)

    with pytest.raises(LeftBehindError, match="deleted it since"):
        len(gone.fetch())
