"""How errors show where an object stands: a branch of three lines at most, below the user's own frames."""

from __future__ import annotations

import traceback
import zlib
from typing import Any

import pytest

import bequest
from bequest import errors


def refusal(act: Any) -> BaseException:
    """Return the CarryError that `act` raises."""
    with pytest.raises(bequest.CarryError) as caught:
        act()
    return caught.value


def closing_over_compressor() -> Any:
    """Return a function that is bound to use what cannot be carried."""
    packer = zlib.compressobj()
    packer.compress(b"begun")
    return lambda: packer.flush()


def test_short_path_is_one_line() -> None:
    """A path without steps in between stands on one line."""
    assert errors.branch("args[0]['feed']") == "    args[0]['feed']"


def test_branch_grows_to_the_right() -> None:
    """Each step of a path hangs below the one before."""
    assert errors.branch("target work (job.py:12) -> closure packer -> self") == (
        "    target work (job.py:12)\n    \u2514\u2500\u2500 closure packer\n        \u2514\u2500\u2500 self"
    )


def test_long_branch_has_three_lines() -> None:
    """Of a long path the first and the last step have lines of their own, and all else shares one."""
    lines = errors.branch("target a -> closure b -> closure c -> global d -> self.e").splitlines()

    assert len(lines) == 3
    assert "closure b -> closure c -> global d" in lines[1]
    assert lines[2].endswith("self.e")


def test_text_names_object_place_and_remedy() -> None:
    """The text has what cannot be carried on its first line, the branch below, the remedy on its last."""
    error = refusal(bequest.Process(target=closing_over_compressor()).start)
    first, *branch, last = str(error).splitlines()

    assert first.startswith("cannot carry zlib.Compress: ")
    assert [line.strip(" \u2514\u2500").partition(" (")[0] for line in branch] == [
        "target closing_over_compressor.<lambda>",
        "closure packer",
    ]
    assert last.strip().endswith(".")


def test_traceback_of_a_start_is_short() -> None:
    """A refused start has one frame of bequest below the user's own."""
    error = refusal(bequest.Process(target=closing_over_compressor()).start)
    frames = traceback.extract_tb(error.__traceback__)

    assert [
        frame.name for frame in frames if "bequest" in frame.filename and "tests" not in frame.filename
    ] == ["start"]


def test_traceback_of_a_put_is_short() -> None:
    """A refused put has one frame of bequest below the user's own."""
    queue: Any = bequest.Queue()
    try:
        error = refusal(lambda: queue.put(closing_over_compressor()))
    finally:
        queue.close()
    frames = traceback.extract_tb(error.__traceback__)

    assert [
        frame.name for frame in frames if "bequest" in frame.filename and "tests" not in frame.filename
    ] == ["put"]


def test_what_the_object_raised_is_the_cause() -> None:
    """The error that an object's own way of being pickled raised is chained."""
    import ssl

    error = refusal(bequest.Process(target=print, args=(ssl.MemoryBIO(),)).start)

    assert isinstance(error.__cause__, TypeError)
    assert "MemoryBIO" in str(error.__cause__)
