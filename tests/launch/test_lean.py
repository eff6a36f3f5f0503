"""A spawned child begins with little of multiprocessing loaded, and finds the rest when it asks for it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

LIMIT_S = 30.0  # reached only by a failing test, so it can be generous

_SCRIPT = """
import sys


def tell():
    before = sorted(sys.modules)
    finders = [type(finder).__module__ for finder in sys.meta_path]
    # By names that nobody but this line sees: what carried code reads of modules is loaded for it.
    named = "multiprocessing.reduction multiprocessing.resource_tracker collections inspect signal subprocess"
    for name in named.split():
        __import__(name)
    reduction, resource_tracker, collections, *others = map(sys.modules.get, named.split())
    inspect, signal, subprocess = others
    tracker = resource_tracker._resource_tracker
    print((
        before,
        finders,
        (tracker._fd is not None, tracker._pid),
        issubclass(reduction.ForkingPickler, reduction.pickle.Pickler) and type(reduction) is type(sys),
        subprocess.run([sys.executable, "-c", ""]).returncode,
        isinstance(signal.SIGINT, int) and signal.SIGINT.name,
        "class OrderedDict" in inspect.getsource(collections),
        [type(module.__loader__).__name__ for module in (collections, reduction)],
    ))


if __name__ == "__main__":
    import bequest

    process = bequest.get_context("spawn").Process(target=tell)
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


def test_spawned_child_loads_what_it_uses(tmp_path: Path) -> None:
    """What multiprocessing imports for other purposes is not there at first, and is as ever once it is."""
    (tmp_path / "script.py").write_text(_SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, finders, tracker, *rest = ast.literal_eval(done.stdout)

    assert not {"pickle", "runpy", "selectors", "signal", "socket", "subprocess"} & set(before)
    assert not [name for name in finders if name.startswith("bequest")]
    assert tracker == (True, None)
    assert rest == [True, 0, "SIGINT", True, ["SourceFileLoader", "SourceFileLoader"]]
