"""What the documentation of multiprocessing says of a child is so, in programs run as users run them."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from programs import LIMIT_S, SOURCE, Programs, importing

# Each program prints what its child has found; the lines of the child come first, as the parent joins it.
_HEAD = """
import atexit, os, signal, sys, threading
import multiprocessing
from multiprocessing import util

def start(target, *args, **options):
    process = multiprocessing.Process(target=target, args=args, **options)
    process.start()
    return process

def run(target, *args, **options):
    process = start(target, *args, **options)
    process.join()
    return process.exitcode
"""
_TAIL = """
if __name__ == "__main__":
    multiprocessing.set_start_method(os.environ["START_METHOD"])
    main()
"""

NAMES = """
def grandchild():
    print(multiprocessing.current_process().name, multiprocessing.parent_process().name)

def child():
    print(multiprocessing.current_process().name, multiprocessing.parent_process().name)
    run(grandchild)
    run(grandchild, name="given")

def main():
    run(child)
    run(child, name="named")
    print(multiprocessing.current_process().name, multiprocessing.parent_process())
"""

DAEMONS = """
def child():
    print(multiprocessing.current_process().daemon)
    try:
        start(print, "started").join()
    except AssertionError as error:
        print(error)

def grandchild(pipe):
    pipe.recv()

def parent(pipe):
    start(grandchild, pipe, daemon=True)

def main():
    run(child, daemon=True)
    run(child)
    # Terminated and joined when its parent ends, though it waits for what never comes.
    ours, theirs = multiprocessing.Pipe()
    print(run(parent, theirs))
    theirs.close()
    try:
        ours.recv()
    except EOFError:
        print("terminated")
"""

KEYS = """
def child():
    print(bytes(multiprocessing.current_process().authkey))

def main():
    multiprocessing.current_process().authkey = b"the parent's"
    run(child)
    process = multiprocessing.Process(target=child)
    process.authkey = b"its own"
    process.start()
    process.join()
    print(bytes(multiprocessing.current_process().authkey))
"""

FAMILY = """
def child(parent, event):
    me, mine = multiprocessing.current_process(), multiprocessing.parent_process()
    print(me.pid == me.ident == os.getpid(), mine.pid == parent, mine.is_alive(), me.is_alive())
    print(multiprocessing.active_children(), me.exitcode)
    event.wait()

def main():
    event = multiprocessing.Event()
    process = start(child, os.getpid(), event)
    print(multiprocessing.active_children() == [process])
    event.set()
    process.join()
    print(multiprocessing.active_children(), process.exitcode)
"""

ENDINGS = """
def last():
    threading.main_thread().join()
    print("thread")

def child():
    atexit.register(print, "atexit")
    util.Finalize(None, print, ("finalizer",), exitpriority=1)
    threading.Thread(target=last).start()  # not daemonic: the end of the process waits for it
    sys.stdout.write("no newline,")

def main():
    sys.stdout.write("of the parent\\n")  # in its buffer, of which a child must have no copy
    if multiprocessing.get_start_method() == "fork":
        sys.stdout.flush()
    run(child)
"""

STDIN = """
def child():
    print(repr(sys.stdin.read()))

def main():
    run(child)
    print(sys.stdin.read())
"""

PATHS = """
def child():
    import only_there
    print(only_there.__name__, os.environ["PYTHON_USERS"], sys.path[0] == "added", sys.argv[1:], os.getcwd())

def main():
    os.makedirs("added")
    with open("added/only_there.py", "w"):
        pass
    sys.path.insert(0, "added")
    os.environ["PYTHON_USERS"] = "set"
    sys.argv[1:] = ["new"]
    run(child)
    print(os.getcwd())
"""


FLAGS = """
def found():
    flags = {name: getattr(sys.flags, name) for name in dir(sys.flags) if name[0] != "_"}
    del flags["n_fields"], flags["n_sequence_fields"], flags["n_unnamed_fields"]
    return flags, sys.warnoptions, sys._xoptions, sys.pycache_prefix, __debug__, sys.prefix, sys.executable

def child(pipe):
    pipe.send(found())

def main():
    ours, theirs = multiprocessing.Pipe()
    run(child, theirs)
    theirs, mine = ours.recv(), found()
    print("same" if theirs == mine else (theirs, mine))
"""

SIGNALS = """
def child(pipe):
    try:
        pipe.send("there")  # the parent may be faster than the way back from here
        pipe.recv()
    except KeyboardInterrupt:
        sys.exit(3)

def main():
    for method in ("terminate", "kill", "interrupt"):
        if hasattr(multiprocessing.Process, method):
            ours, theirs = multiprocessing.Pipe()
            process = start(child, theirs)
            ours.recv()
            getattr(process, method)()
            process.join()
            print(method, process.exitcode)
"""

EXECUTABLE = """
def child():
    print("in the child")

def main():
    multiprocessing.set_executable(os.path.abspath("other"))
    run(child)
"""


def run(programs: Programs, text: str, way: str, *options: str, stdin: str = "", method: str) -> list[str]:
    """Run a program of this module, with options of the interpreter; return its lines."""
    text = _HEAD + text + _TAIL
    if way == "import":
        text = importing(text)
    programs.write("program.py", text)
    before = () if way == "import" else ("-m", "bequest", "run")
    return programs.python(*options, *before, "program.py", stdin=stdin, start_method=method).lines


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """A folder for programs."""
    return Programs(tmp_path)


@pytest.fixture(params=["import", "run"])
def way(request: pytest.FixtureRequest) -> str:
    """Using bequest by name, and by its command."""
    return str(request.param)


def test_names(programs: Programs, way: str, method: str) -> None:
    """A process is called by its number, below its parent's number, or as it was given."""
    assert run(programs, NAMES, way, method=method) == [
        "Process-1 MainProcess", "Process-1:1 Process-1", "given Process-1",
        "named MainProcess", "Process-2:1 named", "given named",
        "MainProcess None",
    ]  # fmt: skip


def test_daemons(programs: Programs, way: str, method: str) -> None:
    """A daemonic process may start none, and is terminated when its parent ends."""
    refused = "daemonic processes are not allowed to have children"
    assert run(programs, DAEMONS, way, method=method) == [
        "True", refused, "False", "started", "0", "terminated",
    ]  # fmt: skip


def test_authentication_keys(programs: Programs, way: str, method: str) -> None:
    """A child has its parent's key, or the one that was set on its process object."""
    keys = [b"the parent's", b"its own", b"the parent's"]
    assert run(programs, KEYS, way, method=method) == [repr(key) for key in keys]


def test_family(programs: Programs, way: str, method: str) -> None:
    """A child knows itself and its parent, and none of its parent's children."""
    lines = run(programs, FAMILY, way, method=method)
    assert sorted(lines) == sorted(["True", "True True True True", "[] None", "[] 0"])


def test_endings(programs: Programs, way: str, method: str) -> None:
    """What a child leaves to its end is done, in order, and what it has written is flushed; once."""
    lines = run(programs, ENDINGS, way, method=method)
    # To Python 3.12 a forked child does not run what it has registered with atexit.
    with_atexit = ["atexit"] if method == "spawn" or sys.version_info >= (3, 13) else []
    words = " ".join(lines).replace("no newline,", "no-newline ").split()
    assert sorted(words) == sorted([*"of the parent no-newline thread finalizer".split(), *with_atexit])


def test_stdin_is_closed(programs: Programs, way: str, method: str) -> None:
    """A child reads nothing from its standard input, and takes nothing from its parent's."""
    lines = run(programs, STDIN, way, stdin="for the parent", method=method)
    assert lines == ["''", "for the parent"]


def test_what_the_program_has_changed(programs: Programs, way: str, method: str) -> None:
    """The search path, the environment and the arguments of a child are its parent's of the moment."""
    lines = run(programs, PATHS, way, method=method)
    assert lines == [f"only_there set True ['new'] {programs.folder}", str(programs.folder)]


@pytest.mark.parametrize(
    "options",
    [
        "-O -B -s -Werror::UserWarning -Xdev -Xutf8=1",
        "-OO -bb -q -P -Xutf8=0 -Xcpu_count=3 -Xfrozen_modules=off",
        "-Xpycache_prefix=elsewhere -Xwarn_default_encoding -Xa_word_of_ones_own=1",
    ],
)
def test_flags(programs: Programs, clean_method: str, options: str) -> None:
    """A child's interpreter has its parent's options."""
    assert run(programs, FLAGS, "import", *options.split(), method=clean_method) == ["same"]


def test_isolated_mode(programs: Programs, clean_method: str) -> None:
    """The interpreter of a child ignores the environment where its parent's does, and still finds bequest."""
    programs.environment["PYTHONPATH"] = "nowhere"
    path = f"import sys\nsys.path[:0] = {[SOURCE, str(programs.folder)]}\n"
    programs.write("program.py", path + importing(_HEAD + FLAGS + _TAIL))
    assert programs.python("-I", "program.py", start_method=clean_method).lines == ["same"]


def test_virtual_environment(programs: Programs, clean_method: str) -> None:
    """A child runs in the virtual environment of its parent."""
    command = [sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(programs.folder / "venv")]
    subprocess.run(command, check=True, timeout=LIMIT_S)
    programs.write("program.py", importing(_HEAD + FLAGS + _TAIL))
    python = str(programs.folder / "venv" / "bin" / "python")
    assert programs.execute(python, "program.py", start_method=clean_method).lines == ["same"]


def test_set_executable(programs: Programs, way: str, clean_method: str) -> None:
    """Children are started by the executable that the program has set."""
    programs.write("other", f'#!/bin/sh\ntouch started\nexec "{sys.executable}" "$@"\n').chmod(0o755)
    lines = run(programs, EXECUTABLE, way, method=clean_method)

    assert lines == ["in the child"]
    assert (programs.folder / "started").exists()


def test_signals(programs: Programs, way: str, method: str) -> None:
    """Exit codes tell by which signal a child was ended; one that handles it ends as it likes."""
    codes = {"terminate": -signal.SIGTERM, "kill": -signal.SIGKILL, "interrupt": 3}
    known = [name for name in codes if hasattr(multiprocessing.Process, name)]  # interrupt(): since 3.14
    assert run(programs, SIGNALS, way, method=method) == [f"{name} {int(codes[name])}" for name in known]
