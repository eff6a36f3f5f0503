"""What `set_forkserver_preload` names is imported in the template, the main module only if it is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from programs import Programs, importing

# Where it prints, standard output is a pipe: what a template left in its buffer would come out of each child.
_PROGRAM = """
import multiprocessing
import sys
print(__name__, sys.argv[1:])

def work(number):
    print("child", number)

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    {preload}
    sys.stdout.flush()
    for number in range(2):
        process = context.Process(target=work, args=(number,))
        process.start()
        process.join()
"""
_ONCE = ["__main__ ['argument']", "child 0", "child 1"]
_TWICE = ["__main__ ['argument']", "__mp_main__ ['argument']", "child 0", "child 1"]


@pytest.mark.parametrize("way", ["import", "run"])
@pytest.mark.parametrize(
    ("preload", "lines"),
    [
        ("", _ONCE),
        ("context.set_forkserver_preload(['json'])", _ONCE),
        ("context.set_forkserver_preload(['__main__'])", _TWICE),
        ("multiprocessing.set_forkserver_preload(['__main__', 'json'])", _TWICE),
    ],
)
def test_main_is_preloaded_where_it_is_named(
    tmp_path: Path, way: str, preload: str, lines: list[str]
) -> None:
    """Named, it runs once in the template, with the program's arguments; else it runs in no other process."""
    programs = Programs(tmp_path)
    text = _PROGRAM.format(preload=preload)
    programs.write("program.py", importing(text) if way == "import" else text)
    before = () if way == "import" else ("-m", "bequest", "run")

    assert programs.python(*before, "program.py", "argument").lines == lines


@pytest.mark.skipif(sys.version_info < (3, 15), reason="on_error= is new in 3.15")
@pytest.mark.parametrize(
    ("on_error", "status", "said"),
    [("ignore", 0, ""), ("warn", 0, "ImportWarning"), ("fail", 1, "ended while it was being prepared")],
)
def test_module_that_cannot_be_preloaded(tmp_path: Path, on_error: str, status: int, said: str) -> None:
    """It is passed over, warned of, or lets the start fail, as the program has chosen."""
    programs = Programs(tmp_path)
    preload = f"context.set_forkserver_preload(['no_such_module'], on_error='{on_error}')"
    programs.write("program.py", importing(_PROGRAM.format(preload=preload)))
    ended = programs.python("-W", "default::ImportWarning", "program.py", "argument")

    assert ended.status == status, ended
    assert said in ended.errors
    assert ("no_such_module" in ended.errors) == (on_error != "ignore")
    assert ended.output.splitlines() == (_ONCE if status == 0 else _ONCE[:1])
