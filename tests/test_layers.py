"""The shape of the source: imports point down, files and functions stay small, and a child imports little."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from programs import Programs

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "bequest"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES_OF_FILE = 500
MOST_LINES_OF_FUNCTION = 60

# From the bottom up; a module may import from its own layer and from those below it, while it is imported.
# `mirror` is what the mirror modules are made with; it knows nothing of bequest. The pool is one of them, and
# so is the pickler of messages that it uses.
LAYERS = (
    "errors",
    "imports",
    "mirror",
    "carry",
    "launch",
    "explain",
    "process",
    "contexts",
    "mirrors",
    "replacing",
    "install",
    "cli",
)
MIRRORS = frozenset(
    path.stem if path.is_file() else path.name
    for path in PACKAGE.iterdir()
    if path.stem not in (*LAYERS, "__init__", "__main__", "__pycache__", "py")
)

# Modules that cost a child milliseconds, none of which it needs to begin.
HEAVY = (
    "ast",
    "asyncio",
    "argparse",
    "cloudpickle",
    "concurrent",
    "ctypes",
    "dataclasses",
    "importlib.metadata",
    "inspect",
    "multiprocessing.pool",
    "random",
    "rich",
    "tempfile",
    "typing",
    "unittest",
    "urllib",
    "bequest.carry.pickler",
    "bequest.cli",
    "bequest.explain",
)

TRIVIAL = """\
import json
import os
import sys
import multiprocessing as mp

mp.set_start_method(os.environ["START_METHOD"])


def tell():
    print(json.dumps(sorted(sys.modules)))


if __name__ == "__main__":
    child = mp.Process(target=tell)
    child.start()
    child.join()
"""


def layer_of(module: str) -> str:
    """Return the layer of a module, or of a public name, given by its dotted name below `bequest`."""
    top = module.partition(".")[0]
    if top in ("", "__main__"):
        return "cli"
    if top in MIRRORS:
        return "mirrors"
    return top if top in LAYERS else "contexts"  # a public name of the package is one of a context


def name_of(path: Path) -> str:
    """Return a module's dotted name below `bequest`; empty for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.Module) -> Iterator[str]:
    """Yield the modules of bequest that are imported while the module is: not in functions, not for types."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    """A module imports only from its own layer and from those below."""
    height = LAYERS.index(layer_of(name_of(path)))
    imported = [name for name in imports_of(ast.parse(path.read_text())) if name.startswith("bequest.")]

    too_high = [name for name in imported if LAYERS.index(layer_of(name.partition(".")[2])) > height]

    assert not too_high


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_file_is_short(path: Path) -> None:
    """No file has more lines than a reader keeps in mind."""
    assert len(path.read_text().splitlines()) <= MOST_LINES_OF_FILE


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_are_short(path: Path) -> None:
    """No function has more lines than fit a screen."""
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}

    assert {name: length for name, length in lengths.items() if length > MOST_LINES_OF_FUNCTION} == {}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_module_says_what_it_is_for(path: Path) -> None:
    """Every module opens with its purpose."""
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_child_imports_little(tmp_path: Path, clean_method: str) -> None:
    """A child of a program without imports of its own has loaded none of the heavy modules."""
    ended = Programs(tmp_path).run(TRIVIAL, "script import", clean_method)
    loaded = set(json.loads(ended.lines[0]))

    assert loaded & set(HEAVY) == set()
