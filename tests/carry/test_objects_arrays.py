"""Arrays of numpy over memory that another object owns: shared with a child, and a snapshot in a message."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from bequest.carry.pickler import pack
from programs import Programs

numpy: Any = pytest.importorskip("numpy")

SHARING = """
import mmap
import multiprocessing
import os
from multiprocessing import shared_memory
import numpy

method = os.environ["START_METHOD"]
multiprocessing.set_start_method(method)
raw = multiprocessing.RawArray("d", 4)
locked = multiprocessing.Array("i", 4)
block = shared_memory.SharedMemory(create=True, size=32)

class Named(numpy.ndarray):
    pass

shown = {
    "raw": numpy.frombuffer(raw),
    "reshaped": numpy.frombuffer(locked.get_obj(), dtype="i").reshape(2, 2),
    "by ctypes": numpy.ctypeslib.as_array(multiprocessing.RawArray("b", 4)),
    "block": numpy.ndarray((4,), dtype="d", buffer=block.buf),
    "class": numpy.frombuffer(multiprocessing.RawArray("d", 4)).view(Named),
    "file": numpy.memmap("mapped", dtype="u1", mode="w+", shape=(8,))[2:6],
}
shown["class"].name = "name"

def write():
    print(shown["class"].name, type(shown["file"]).__name__)
    for array in shown.values():
        array[...] = 7

child = multiprocessing.Process(target=write)
child.start()
child.join()
for name, array in shown.items():
    print(name, array.ravel().tolist() == [7] * 4)
print(raw[:] == [7] * 4, locked[:] == [7] * 4)
shown.clear()
array = None
block.close()
block.unlink()
"""


@pytest.mark.parametrize("way", ["script import", "script run"])
def test_child_writes_into_the_memory_of_its_parent(tmp_path: Path, way: str, clean_method: str) -> None:
    """What a child writes through an array over shared memory, its parent sees, whatever shares it."""
    ended = Programs(tmp_path).run(SHARING, way, clean_method)

    every = ("raw", "reshaped", "by ctypes", "block", "class", "file")
    assert ended.lines == ["name memmap", *(f"{name} True" for name in every), "True True"]


def test_message_brings_a_snapshot(tmp_path: Path) -> None:
    """To a running process an array over shared memory goes as it is now."""
    mapped = numpy.memmap(tmp_path / "mapped", dtype="u1", mode="w+", shape=(2,))
    shown = numpy.asarray(mapped)

    arrived = pickle.loads(pack(shown).data)
    mapped[:] = 2

    assert arrived.tolist() == [0, 0]


def test_view_shares_memory_with_its_owner() -> None:
    """Two views of one array still are."""
    whole = numpy.zeros(6)

    owner, view = pickle.loads(pack((whole, whole[::-2])).data)
    owner[5] = 1

    assert view.tolist() == [1, 0, 0]
