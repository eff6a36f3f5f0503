"""The two programs that bequest was begun for, run in every way that a person runs a program.

A lambda over a local dict as target of a process, and an application that keeps its started processes in a
list while they run its methods: both written for plain `multiprocessing` under fork.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from programs import LIMIT_S, WAYS, Programs, as_dialogue, importing

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SEEDS = {
    "lambda_closure": [
        "the child finds three",
        "the child changed its copy: {1: 'one', 2: 'two'}",
        "the parent still has: {1: 'one', 2: 'three'}",
    ],
    "application": [
        "3 workers are ready",
        "the second worker knows the first: True",
        "exit codes [0, 0, 0]",
    ],
}


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """A folder for programs."""
    return Programs(tmp_path)


@pytest.fixture(params=SEEDS)
def seed(request: pytest.FixtureRequest) -> str:
    """The name of each seed."""
    return str(request.param)


def text_of(seed: str) -> str:
    """Return the program of a seed."""
    return (EXAMPLES / f"{seed}.py").read_text()


@pytest.mark.parametrize("way", WAYS)
def test_seed_runs(programs: Programs, seed: str, way: str, clean_method: str) -> None:
    """A seed's program prints under spawn and forkserver what it prints under fork, and not a word more."""
    ended = programs.run(text_of(seed), way, clean_method)

    assert ended.lines == SEEDS[seed]
    if not way.startswith("interactive"):  # there the prompts go to standard error
        assert ended.errors == ""
    assert "Traceback" not in ended.errors


def test_example_runs_as_it_stands(seed: str, programs: Programs) -> None:
    """The very file in examples/ runs where nobody has chosen a start method."""
    ended = programs.python("-m", "bequest", "run", str(EXAMPLES / f"{seed}.py"))

    assert ended.lines == SEEDS[seed]


def test_seed_runs_in_ipython(programs: Programs, seed: str, clean_method: str) -> None:
    """A seed's program runs as a script of IPython."""
    pytest.importorskip("IPython", reason="IPython is not installed", exc_type=ImportError)
    programs.write("program.py", importing(text_of(seed)))
    programs.environment["IPYTHONDIR"] = str(programs.folder / "ipython")

    ended = programs.python("-m", "IPython", "--no-banner", "program.py", start_method=clean_method)

    assert ended.lines == SEEDS[seed]


def test_seed_typed_into_ipython(programs: Programs, seed: str, clean_method: str) -> None:
    """A seed's program runs when it is typed into IPython."""
    pytest.importorskip("IPython", reason="IPython is not installed", exc_type=ImportError)
    programs.environment["IPYTHONDIR"] = str(programs.folder / "ipython")
    typed = as_dialogue(importing(text_of(seed)))

    command = ("-m", "IPython", "--no-banner", "--simple-prompt", "--no-confirm-exit", "--colors=NoColor")
    ended = programs.python(*command, stdin=typed, start_method=clean_method)

    assert "Traceback" not in ended.output + ended.errors
    for line in SEEDS[seed]:
        assert line in ended.output


NOTEBOOK = """
import os, sys
import nbformat
from nbclient import NotebookClient

cells = [nbformat.v4.new_code_cell(text) for text in open("cells").read().split("# next cell\\n")]
notebook = nbformat.v4.new_notebook(cells=cells)
NotebookClient(notebook, timeout=90, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.outputs:
        if output.output_type == "stream":
            print(output.text, end="", file=getattr(sys, output.name))
        else:
            print(output)
"""

# A child's own output reaches a notebook whenever it does; into a file it goes at once.
INTO_FILE = """\
import os, sys
_file = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.stdout = os.fdopen(_file, "w", buffering=1)
# next cell
"""


@pytest.mark.parametrize("how", ["import", "install"])
def test_seed_runs_in_a_notebook(programs: Programs, seed: str, clean_method: str, how: str) -> None:
    """A seed's program runs in the cells of a notebook, with bequest imported or installed."""
    for name in ("nbclient", "ipykernel"):
        pytest.importorskip(name, reason=f"{name} is not installed", exc_type=ImportError)
    text = importing(text_of(seed))
    if how == "install":
        text = "import bequest\nbequest.install()\n# next cell\n" + text_of(seed)
    programs.write("cells", INTO_FILE + text)
    programs.write("notebook.py", NOTEBOOK)
    programs.environment["JUPYTER_PLATFORM_DIRS"] = "1"
    programs.environment["IPYTHONDIR"] = str(programs.folder / "ipython")

    ended = programs.python("notebook.py", start_method=clean_method)

    assert ended.status == 0, ended
    assert (programs.folder / "output").read_text().splitlines() == SEEDS[seed], ended


def test_lambda_typed_at_a_terminal(programs: Programs, clean_method: str) -> None:
    """At the prompt of a real terminal, which since 3.13 is another REPL, a lambda is a fine target."""
    lines = [
        "import bequest as mp",
        f"mp.set_start_method({clean_method!r})",
        "data = {1: 'one', 2: 'th' + 'ree'}",
        "child = mp.Process(target=lambda: print('the child finds', data[2]))",
        "child.start(); child.join()",  # else it prints behind the next prompt, or into what is typed
        "print('exit', 'code', child.exitcode)",
        "exit()",
    ]
    programs.environment.pop("PYTHON_BASIC_REPL", None)

    said = at_terminal(programs, lines)

    assert "the child finds three" in said
    assert "exit code 0" in said
    assert "Traceback" not in said


# What a terminal is told, beside the text: colours, the cursor's moves, modes.
_CONTROL = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>])")


def at_terminal(programs: Programs, lines: list[str]) -> str:
    """Type lines at the interpreter's prompts in a terminal of its own; return all that was shown."""
    ours, theirs = pty.openpty()
    environment = {**programs.environment, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "200"}
    history = str(programs.folder / "history")
    process = subprocess.Popen(
        [sys.executable, "-q"],
        cwd=programs.folder,
        env={**environment, "PYTHON_HISTORY": history, "HOME": str(programs.folder)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = ""
    try:
        for line in lines:
            shown += _until_prompt(ours)
            os.write(ours, line.encode() + b"\r")
        shown += _until_end(ours)
    finally:
        process.kill()
        process.wait(LIMIT_S)
        os.close(ours)
    return shown


def _until_prompt(terminal: int) -> str:
    shown = ""
    deadline = time.monotonic() + LIMIT_S
    while not _CONTROL.sub("", shown).rstrip().endswith(">>>"):
        shown += _some(terminal, deadline, shown)
    return shown


def _until_end(terminal: int) -> str:
    shown = ""
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            shown += _some(terminal, deadline, shown)
        except OSError:  # EIO: nobody has the other end any more
            return shown


def _some(terminal: int, deadline: float, shown: str) -> str:
    ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
    assert ready, f"nothing came after {shown!r}"
    return os.read(terminal, 4096).decode(errors="replace")
