"""`bequest run` and plain Python, side by side: the same programs, the same output, errors and exit status.

Every program here runs twice, and what it wrote to the two streams is compared byte for byte.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

LIMIT_S = 60.0  # reached only by a failing test
SOURCE = str(Path(__file__).resolve().parent.parent / "src")

TELL = """\
import sys
space = globals()
print(list(space))
for name in ("__name__", "__file__", "__package__", "__doc__", "__cached__", "__annotations__"):
    print(name, repr(space.get(name, "absent")))
print(type(__builtins__).__name__, __builtins__ is sys.modules["builtins"])
loader = __loader__ if isinstance(__loader__, type) else type(__loader__)
print(loader, getattr(__loader__, "name", None), getattr(__loader__, "path", None))
spec = space["__spec__"]
print(spec and (spec.name, spec.origin, spec.parent, spec.has_location))
print(sys.modules["__main__"].__dict__ is space, sys.argv, repr(sys.path[0]), __name__ == "__main__")
"""

FILES: dict[str, str | bytes] = {
    "tell.py": TELL,
    "empty.py": "",
    "documented.py": '"""What it does."""\nfrom __future__ import annotations\nprint(__doc__, annotations)\n',
    "latin.py": b"# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))\n",
    "marked.py": b"\xef\xbb\xbfprint('a byte order mark')\n",
    "exit_nothing.py": "import sys\nsys.exit()\n",
    "exit_number.py": "import sys\nsys.exit(7)\n",
    "exit_text.py": "import sys\nsys.exit('a reason')\n",
    "exit_object.py": "raise SystemExit({'a': 1})\n",
    "exit_from.py": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise SystemExit(3) from e\n",
    "fails.py": "def f():\n    g()\n\ndef g():\n    raise ValueError('no')\n\nprint('before')\nf()\n",
    "fails_at_once.py": "1 / 0\n",
    "chained.py": "def f():\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n"
    "        raise KeyError('k') from e\n\ntry:\n    f()\nexcept KeyError:\n    raise OSError('last')\n",
    "group.py": "raise ExceptionGroup('several', [ValueError(1), ExceptionGroup('more', [TypeError(2)])])\n",
    "syntax.py": "print('never')\ndef f(:\n    pass\n",
    "indentation.py": "def f():\npass\n",
    "unfinished.py": "x = (1,\n",
    "imports_broken.py": "import syntax\n",
    "imports_missing.py": "import no_such_module_anywhere\n",
    "hook.py": "import sys, traceback\ndef hook(kind, value, tb):\n    print('hook', kind.__name__, value)\n"
    "    traceback.print_exception(kind, value, tb)\n    traceback.print_exception(value)\n"
    "    print(sys.excepthook is hook, sys.last_value is value, sys.last_traceback is tb)\n"
    "sys.excepthook = hook\ndef f():\n    {}['key']\nf()\n",
    "hook_fails.py": "import sys\ndef hook(*_):\n    raise OSError('hook')\nsys.excepthook = hook\n1 / 0\n",
    "hook_exits.py": "import sys\nsys.excepthook = lambda *_: sys.exit(9)\n1 / 0\n",
    "hook_set.py": "import sys\nprint(sys.excepthook is sys.__excepthook__)\n",
    "interrupted.py": "import os, signal\ndef wait():\n    os.kill(os.getpid(), signal.SIGINT)\n"
    "    while True:\n        pass\nwait()\n",
    "interrupt_caught.py": "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n"
    "    while True:\n        pass\nexcept KeyboardInterrupt:\n    print('caught')\n",
    "terminated.py": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nsignal.pause()\n",
    "at_exit.py": "import atexit, threading\natexit.register(print, 'at exit')\n"
    "main = threading.main_thread()\ndef late():\n    main.join()\n    print('late', main.is_alive())\n"
    "threading.Thread(target=late).start()\nprint('main ends')\n",
    "teardown.py": "import sys\nclass Last:\n    def __init__(self, name):\n        self.name = name\n"
    "    def __del__(self):\n        print('gone', self.name, 'sys' in globals())\n"
    "first = Last('first')\nsecond = Last('second')\ndef keeps(): return first\n",
    "fails_in_thread.py": "import threading\ndef work():\n    raise ValueError('in a thread')\n"
    "t = threading.Thread(target=work, name='worker')\nt.start()\nt.join()\n",
    "reads_input.py": "print(input(), input())\n",
    "flags.py": "import sys\nprint(sys.flags)\nprint(sys.dont_write_bytecode, sys.warnoptions)\n",
    "warns.py": "import warnings\ndef f():\n    warnings.warn('old', DeprecationWarning)\nf()\n",
    "by_name.py": "import pickle, __main__\nclass A: pass\n"
    "print(type(pickle.loads(pickle.dumps(A()))) is A is __main__.A)\n",
    "sibling.py": "import neighbour\nprint(neighbour.__file__)\n",
    "neighbour.py": "",
    "pkg/__init__.py": "print('package')\n",
    "pkg/__main__.py": "from . import part\n" + TELL,
    "pkg/part.py": TELL,
    "pkg/fails.py": "def f():\n    raise ValueError('no')\nf()\n",
    "broken/__init__.py": "1 / 0\n",
    "broken/__main__.py": "",
    "folder/__main__.py": TELL,
    "bare/other.py": "",
    "sub/tell.py": TELL,
}

SCRIPTS = [name for name in FILES if "/" not in name and name != "neighbour.py"]

COMMANDS: dict[str, list[str]] = {
    **{f"script {name}": [name, "a", "-b", "--", "--start"] for name in SCRIPTS},
    "script in a folder": ["sub/tell.py"],
    "script with dots": ["./sub/../tell.py"],
    "absolute script": ["{here}/tell.py"],
    "linked script": ["link.py", "x"],
    "missing script": ["nowhere.py"],
    "compiled script": ["compiled.pyc", "x"],
    "compiled by content": ["compiled_without_suffix", "x"],
    "broken compiled": ["broken.pyc"],
    "folder": ["folder", "x"],
    "folder without main": ["bare"],
    "zip file": ["program.zip", "x", "y"],
    "zip file that fails": ["failing.zip"],
    "zipapp": ["program.pyz"],
    "package": ["-m", "pkg", "-x", "y"],
    "module of a package": ["-m", "pkg.part", "x"],
    "joined module": ["-mtell", "x"],
    "failing module": ["-m", "pkg.fails"],
    "broken package": ["-m", "broken"],
    "missing module": ["-m", "no_such_module"],
    "missing module of a package": ["-m", "pkg.no_such"],
    "package without main": ["-m", "json"],
    "exit of a module": ["-m", "exit_number"],
    "interrupted module": ["-m", "interrupted"],
    "standard module": ["-m", "json.tool", "--help"],
    "command": ["-c", TELL, "-x", "y"],
    "joined command": ["-cprint(1)"],
    "failing command": ["-c", "def f():\n    1 / 0\nf()"],
    "broken command": ["-c", "x ="],
    "indented command": ["-c", "\n    print(1)\n    if 1:\n        print(2)\n"],
    "exit of a command": ["-c", "raise SystemExit('bye')"],
}

STDIN: dict[str, str] = {
    "tell": TELL,
    "fails": "def f():\n    1 / 0\nf()\n",
    "broken": "x = = 1\n",
    "reads": "import sys\nprint(repr(sys.stdin.read()))\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all the programs."""
    here = tmp_path_factory.mktemp("programs")
    for name, content in FILES.items():
        path = here / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (here / "link.py").symlink_to("sub/tell.py")
    compile_to = f"import py_compile; py_compile.compile('tell.py', {str(here / 'compiled.pyc')!r})"
    subprocess.run([sys.executable, "-c", compile_to], cwd=here, check=True, timeout=LIMIT_S)
    compiled = (here / "compiled.pyc").read_bytes()
    (here / "compiled_without_suffix").write_bytes(compiled)
    (here / "broken.pyc").write_bytes(b"\0\0\r\n" + compiled[4:])
    for archive, main in (("program.zip", TELL), ("failing.zip", FILES["fails.py"])):
        with zipfile.ZipFile(here / archive, "w") as file:
            file.writestr("__main__.py", main)
    body = (here / "program.zip").read_bytes()
    (here / "program.pyz").write_bytes(b"#!/usr/bin/env python3\n" + body)
    return here


def run(folder: Path, before: list[str], command: list[str], text: str | None = None) -> tuple[int, str, str]:
    """Run an interpreter with `before` (its options) and `command`; return its status, output and errors."""
    filled = [word.replace("{here}", str(folder)) if "{here}" in word else word for word in command]
    environment = {**os.environ, "PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, *before, *filled],
        cwd=folder,
        env=environment,
        input=text if text is not None else "one\ntwo\n",
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_program_runs_as_under_plain_python(folder: Path, name: str) -> None:
    """Output, errors and exit status are those of plain Python."""
    plain = run(folder, [], COMMANDS[name])

    assert run(folder, ["-m", "bequest", "run"], COMMANDS[name]) == plain


@pytest.mark.parametrize("name", STDIN)
def test_program_from_standard_input_runs_as_under_plain_python(folder: Path, name: str) -> None:
    """A program that is read from standard input runs as under plain Python."""
    plain = run(folder, [], ["-", "x"], STDIN[name])

    assert run(folder, ["-m", "bequest", "run"], ["-", "x"], STDIN[name]) == plain


@pytest.mark.parametrize("name", ["script tell.py", "folder", "package", "command", "script sibling.py"])
@pytest.mark.parametrize("option", ["-P", "-O", "-Wdefault", "-Xutf8"])
def test_options_of_the_interpreter_hold(folder: Path, name: str, option: str) -> None:
    """The interpreter's own options, -P (nothing before the search path) among them, hold for the program."""
    plain = run(folder, [option], COMMANDS[name])

    assert run(folder, [option, "-m", "bequest", "run"], COMMANDS[name]) == plain


def test_interrupt_ends_by_its_signal(folder: Path) -> None:
    """A program that does not catch SIGINT is seen by its shell as killed by it."""
    status, _, errors = run(folder, ["-m", "bequest", "run"], ["interrupted.py"])

    assert status == -signal.SIGINT
    assert "bequest" not in errors
    assert errors.endswith("KeyboardInterrupt\n")


def test_options_of_run_are_not_the_programs(folder: Path) -> None:
    """What follows the program is the program's, whatever it looks like."""
    show = "import sys; print(sys.argv)"

    result = run(
        folder, ["-m", "bequest", "run", "--start", "spawn", "--strict"], ["-c", show, "--strict", "-h"]
    )

    assert result == (0, "['-c', '--strict', '-h']\n", "")


def test_start_method_of_the_command_line_is_in_force(folder: Path) -> None:
    """`--start` sets the start method before the program begins."""
    show = "import multiprocessing; print(multiprocessing.get_start_method())"

    for method in ("fork", "spawn", "forkserver"):
        assert run(folder, ["-m", "bequest", "run", f"--start={method}"], ["-c", show]) == (
            0,
            f"{method}\n",
            "",
        )


def test_started_program_may_look_for_multiprocessing(folder: Path) -> None:
    """A program that one under `bequest run` starts has bequest, even if it first asks where modules are."""
    asks = (
        "import importlib.util; importlib.util.find_spec('multiprocessing'); import multiprocessing, sys; "
        "print('bequest.install' in sys.modules)"
    )
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {asks!r}], check=True)"

    assert run(folder, ["-m", "bequest", "run"], ["-c", starts]) == (0, "True\n", "")


@pytest.mark.parametrize(
    "command",
    [[], ["walk"], ["run"], ["run", "--fast", "x.py"], ["run", "--start", "thread", "x.py"], ["run", "-m"]],
    ids=" ".join,
)
def test_command_line_that_makes_no_sense_is_refused(folder: Path, command: list[str]) -> None:
    """Usage goes to standard error, and the status is 2."""
    status, output, errors = run(folder, ["-m", "bequest"], command)

    assert (status, output) == (2, "")
    assert errors.startswith("usage: python -m bequest run")


@pytest.mark.parametrize("command", [["-h"], ["--help"], ["run", "--help"]], ids=" ".join)
def test_help_goes_to_standard_output(folder: Path, command: list[str]) -> None:
    """Help that was asked for is no error."""
    status, output, errors = run(folder, ["-m", "bequest"], command)

    assert (status, errors) == (0, "")
    assert output.startswith("usage: python -m bequest run")


def test_script_of_the_console_runs_a_program(folder: Path) -> None:
    """The installed command `bequest`, whose folder Python puts first on the search path, leaves no trace."""
    command = folder / "bin" / "bequest"
    command.parent.mkdir(exist_ok=True)
    command.write_text("import sys\nfrom bequest.cli import main\nsys.exit(main())\n")

    for program in ("tell.py", "fails.py", "exit_number.py", "interrupted.py"):
        assert run(folder, [str(command), "run"], [program]) == run(folder, [], [program])
