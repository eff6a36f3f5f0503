"""What a child's `__main__` becomes: described by a real program, established in a fresh interpreter.

A test writes a main module, some user modules, and a package `third` that passes for an installed one. The
main module is run, describes itself where it says so, and a second interpreter establishes what it
said and answers questions.
"""

from __future__ import annotations

import json
import marshal
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest

LIMIT_S = 60.0  # reached only by a failing test
SOURCE = str(Path(__file__).resolve().parents[2] / "src")

THIRD = """\
calls = []
options = {}
class Client:
    def __init__(self, *args, **kwargs): self.made_with = args, kwargs
def setup(*args, **kwargs): calls.append(("setup", args, kwargs))
def set_option(*args): calls.append(("set_option", *args))
def use(name): calls.append(("use", name))
def fail(*args): raise RuntimeError("fail")
def show(): calls.append(("show",))
def get(url): calls.append(("get", url))
configured = False
box = Client()
"""

DESCRIBE = """
def _describe():
    import marshal, os, sys
    from bequest.carry.mainmodule import describe, remake_reads, remake_statement
    main = sys.modules["__main__"]
    mode = os.environ["MODE"]
    with open("described", "wb") as file:
        asked = os.environ["ASK"].split()
        remade = {name: (remake_statement(main, name), remake_reads(main, name)) for name in asked}
        again = describe(main, mode) is describe(main, mode)
        file.write(marshal.dumps((describe(main, mode), remade, again)))
"""

TELL = """
import json, marshal, sys
with open("described", "rb") as file:
    described, remade, again = marshal.load(file)
before = set(sys.modules)
from bequest.carry.mainmodule import establish
main = establish(described)
third = sys.modules.get("third")
space = {"main": main, "third": third, "sys": sys, "establish": establish, "described": described}
print("\\0" + json.dumps(eval(sys.argv[1], space)))
"""


class Programs:
    """A folder of modules, and the means to run a main module there and to ask its child."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        site = folder / "site-packages"
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join((SOURCE, str(site), str(folder)))}
        self.environment |= {"MODE": "replay", "ASK": "", "PYTHONDONTWRITEBYTECODE": "1"}
        self.write("site-packages/third/__init__.py", THIRD)
        self.write("site-packages/third/sub.py", "level = 0\n")
        self.write("describing.py", DESCRIBE)

    def write(self, name: str, text: str) -> None:
        """Write a module."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def describe(self, *command: str, mode: str = "replay", ask: str = "") -> dict[str, Any]:
        """Run a program that calls `describing._describe()`; return what it said of the globals asked for."""
        self.environment |= {"MODE": mode, "ASK": ask}
        self.run(*command)
        _, remade, again = marshal.loads((self.folder / "described").read_bytes())
        assert again, "describing twice gives the same object"
        result: dict[str, Any] = remade
        return result

    def child(self, question: str) -> Any:
        """Establish in a new interpreter what was described; return the value of an expression there."""
        said = self.run("-c", TELL, question)
        return json.loads(said.rpartition("\0")[2])

    def run(self, *command: str) -> str:
        """Run an interpreter in the folder; return its standard output."""
        where: Any = {"cwd": self.folder, "env": self.environment, "timeout": LIMIT_S}
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, **where)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def ask(self, main: str, question: str, mode: str = "replay") -> Any:
        """Run `main` as a script, and return the value of `question` in its child."""
        self.write("program.py", main)
        self.describe("program.py", mode=mode)
        return self.child(question)

    def remade(self, main: str, name: str) -> Any:
        """Run `main` as a script, and return the source that makes its global `name` again."""
        self.write("program.py", main)
        return self.describe("program.py", ask=name)[name]


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """Programs in a folder of their own."""
    return Programs(tmp_path)


GUARD = """
if __name__ == "__main__":
    from describing import _describe
    _describe()
"""
NO_GUARD = """
from describing import _describe
_describe()
"""


def test_main_of_a_script_has_the_attributes_of_the_parents(programs: Programs) -> None:
    """A child's `__main__` has the script's file, doc and loader, no spec, and is `__mp_main__` too."""
    question = (
        "[main.__name__, main.__file__, main.__doc__, main.__package__, main.__spec__, main.__loader__.path,"
        " main is sys.modules['__main__'] is sys.modules['__mp_main__'], sorted(vars(main))]"
    )
    name, file, doc, package, spec, path, same, names = programs.ask('"""Says it."""\n' + GUARD, question)

    assert (name, doc, package, spec, same) == ("__main__", "Says it.", None, None, True)
    assert file == path == str(programs.folder / "program.py")
    assert all(one.startswith("__") for one in names)


def test_main_of_a_package_has_its_spec(programs: Programs) -> None:
    """Under `-m` the spec, the package and the loader are those of the module that was named."""
    programs.write("pkg/__init__.py", "")
    programs.write("pkg/__main__.py", "from . import part\n" + GUARD)
    programs.write("pkg/part.py", "")
    programs.describe("-m", "pkg")
    spec = "[main.__spec__.name, main.__spec__.origin, main.__spec__.parent, main.__spec__.has_location]"
    origin = str(programs.folder / "pkg" / "__main__.py")
    assert programs.child(spec) == ["pkg.__main__", origin, "pkg", True]
    imported = "[main.__package__, main.__loader__.name, 'pkg.part' in sys.modules]"
    assert programs.child(imported) == ["pkg", "pkg.__main__", True]
    assert programs.child("'pkg.__main__' in sys.modules") is False


def test_main_in_a_zip_file_is_replayed_too(programs: Programs) -> None:
    """The main module of a zip file has source, so its configuration is replayed."""
    with zipfile.ZipFile(programs.folder / "program.zip", "w") as file:
        file.writestr("__main__.py", "import third\nthird.use('a')\n" + GUARD)
    programs.describe("program.zip")

    assert programs.child("[third.calls, type(main.__loader__).__name__]") == [[["use", "a"]], "zipimporter"]


def test_main_without_source_has_its_user_modules_imported(programs: Programs) -> None:
    """The user modules that its globals come from are imported, nothing is replayed."""
    programs.write("plugin.py", "")
    programs.write("kinds.py", "class Kind: pass\n")
    text = "import plugin, third, json\nfrom kinds import Kind\nthird.use('a')\n" + GUARD
    programs.describe("-c", text)

    question = "[name in sys.modules for name in ('plugin', 'kinds', 'third', 'describing')]"
    assert programs.child(question) == [True, True, False, True]
    question = "[main.__spec__, hasattr(main, '__file__'), main.__loader__.__name__]"
    assert programs.child(question) == [None, False, "BuiltinImporter"]


def test_source_is_read_whatever_open_is(programs: Programs) -> None:
    """A program that puts a function of its own in the place of `open` is not asked for its own source."""
    patch = """\
import builtins, third
def picky(file, *args, really=open):
    assert str(file) == "described", file
    return really(file, *args)
builtins.open = picky
third.use("a")
"""
    assert programs.ask(patch + GUARD, "third.calls") == [["use", "a"]]


def test_user_modules_are_imported_in_order(programs: Programs) -> None:
    """What the top level imports of the user's own is imported, guard or none; libraries are not."""
    programs.write("plugins/__init__.py", "found = []\n")
    for name in ("b", "a", "c"):
        programs.write(f"plugins/{name}.py", f"import plugins\nplugins.found.append({name!r})\n")
    programs.write("optional.py", "import plugins\nplugins.found.append('optional')\n")
    imports = """\
        import plugins.b
        from plugins import a
        try:
            import nowhere
        except ImportError:
            import optional
        if True:
            from plugins import c as see
        import colorsys
        import third
        """
    question = "[sys.modules['plugins'].found, 'colorsys' in sys.modules, 'third' in sys.modules]"
    for end in (GUARD, NO_GUARD):
        answer = programs.ask(textwrap.dedent(imports) + end, question)
        assert answer == [["b", "a", "optional", "c"], False, False]


def test_what_is_imported_behind_the_guard_is_not_imported(programs: Programs) -> None:
    """The program that runs once may need much that its children do not."""
    programs.write("program.py", "")
    programs.write("shared.py", "")
    guard = "if __name__ == '__main__':\n    import program\n"
    guarded = f"import shared\n{guard}    from describing import _describe\n    _describe()\n"

    assert programs.ask(guarded, "[name in sys.modules for name in ('shared', 'program')]") == [True, False]


def test_module_whose_import_runs_the_program_is_not_imported(programs: Programs) -> None:
    """A user module that the parent is still importing is the program itself: it must not begin again."""
    programs.write("whole.py", "print('begins')\nfrom describing import _describe\n_describe()\n")

    assert programs.ask("import whole\n", "'whole' in sys.modules") is False


def test_failing_import_is_skipped(programs: Programs) -> None:
    """An import that works in the parent alone does not keep the child from the others."""
    programs.write("once.py", "import os\nos.mkdir('made')\n")
    programs.write("other.py", "")

    question = "['once' in sys.modules, 'other' in sys.modules]"
    assert programs.ask("import once, other\n" + GUARD, question) == [False, True]


def test_configuration_of_packages_is_replayed(programs: Programs) -> None:
    """Discarded calls on packages, and assignments into them, are replayed in order, with what they read."""
    main = """\
        import os.path
        import third as t
        import third.sub
        from pathlib import Path
        from third import set_option, box
        from third import options as opts

        HERE = Path(__file__).resolve().parent
        DEEP: str = os.path.join("a", "b")
        SETTINGS = {"deep": DEEP, "name": HERE.name}
        t.use("one")
        set_option("display", len(SETTINGS), SETTINGS["deep"])
        t.setup(path=str(HERE / "x"), key=lambda v: v * 2)
        third.sub.level = 3
        box.size = [n for n in range(3)]
        opts["color"] = "red"
        opts.update(font="serif")
        """
    question = (
        "[[c[:1] for c in third.calls], third.calls[1][1:], third.calls[2][2]['path'],"
        " third.calls[2][2]['key'](4), third.sub.level, third.box.size, third.options,"
        " sorted(n for n in vars(main) if not n.startswith('__'))]"
    )
    answer = programs.ask(textwrap.dedent(main) + GUARD, question)

    assert answer == [
        [["use"], ["set_option"], ["setup"]],
        ["display", 2, "a/b"],
        str(programs.folder.resolve() / "x"),
        8,
        3,
        [0, 1, 2],
        {"color": "red", "font": "serif"},
        [],
    ]


def test_nothing_is_replayed_without_a_guard(programs: Programs) -> None:
    """A main module with no guard is a program from top to bottom: none of its calls is repeated."""
    assert programs.ask("import third\nthird.use('a')\n" + NO_GUARD, "third") is None


@pytest.mark.parametrize(
    "guard",
    [
        "if '__main__' == __name__:",
        "if (__name__) == ('__main__') and third:",
        "if __name__ in {'__main__', '__mp_main__'}:",
        "if not __name__ != '__main__':",
    ],
)
def test_guard_is_known_in_any_spelling(programs: Programs, guard: str) -> None:
    """Whatever way the guard is written, what stands above it is replayed and what is in it is not."""
    main = f"import third\nthird.use('a')\n{guard}\n    third.use('b')\n    from describing import *\n"
    main += "    import describing; describing._describe()\n"

    assert programs.ask(main, "third.calls") == [["use", "a"]]


@pytest.mark.parametrize(
    "guard", ["__name__ == '__main__' and work()", "work() if __name__ == '__main__' else None"]
)
def test_guard_may_be_an_expression(programs: Programs, guard: str) -> None:
    """A guard need not be an `if` statement."""
    main = f"import third\nfrom describing import _describe as work\nthird.use('a')\n{guard}\n"

    assert programs.ask(main, "third.calls") == [["use", "a"]]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("if not third.configured: third.use('a')", [["use", "a"]]),
        ("if third.configured: third.use('a')\nelse:\n    print('no')\n    third.use('b')", [["use", "b"]]),
        ("if LIMIT > 2: third.use(str(LIMIT))", [["use", "3"]]),
        ("if helper.truth(): third.use('a')", []),
        ("try:\n    import nowhere\nexcept ImportError:\n    nowhere = None\nthird.use(str(nowhere))", []),
        ("try:\n    third.use('a')\nexcept Exception:\n    pass", [["use", "a"]]),
        (
            "for n, v in {'x': 1, 'y': LIMIT}.items():\n    third.set_option(n, v)",
            [["set_option", "x", 1], ["set_option", "y", 3]],
        ),
        ("for n in range(2):\n    third.use(n)\n    print(n)", []),
        ("with open('f', 'w') as f:\n    third.use('a')", []),
        ("def configure(): third.use('a')\nconfigure()", []),
        ("class A: third.use('a')", []),
        ("helper.configure()", []),
        ("third.use(helper.truth())", []),
        ("third.use(own())", []),
        ("third.setup(hook=own)", []),
        ("third.use(input.__name__)", [["use", "input"]]),
        ("third.use(open('f', 'w').name)", []),
        ("third.use(os.environ.get('NO_SUCH', 'agg'))", [["use", "agg"]]),
        ("third.use(os.popen('true').read())", []),
        ("third.show()", []),
        ("third.get('http://localhost')", []),
        ("third = helper.replace(third)\nthird.use('a')", []),
        ("TWICE = 1\nTWICE = 2\nthird.use(TWICE)", []),
        ("print(third.setup())", []),
        ("value = third.setup()", []),
        ("try:\n    third.fail()\nexcept RuntimeError:\n    pass\nthird.use('a')", [["use", "a"]]),
        ("third.use(f'{LIMIT:>3}'.strip())", [["use", "3"]]),
    ],
)
def test_what_is_replayed_and_what_is_not(programs: Programs, statement: str, expected: list[Any]) -> None:
    """Only what configures packages and reads nothing but harmless things is replayed."""
    programs.write("helper.py", "def truth(): return True\ndef configure(): pass\ndef replace(x): return x\n")
    main = f"import os\nimport third, helper\nLIMIT = 3\ndef own(): return 1\n{statement}\n{GUARD}"

    assert programs.ask(main, "third.calls if third else []") == expected


def test_only_what_the_parent_has_passed_is_replayed(programs: Programs) -> None:
    """A process that starts above a statement does not get its effect, as under fork."""
    main = f"import third\nthird.use('a')\n{NO_GUARD}\nthird.use('b')\nif __name__ == '__main__':\n    pass\n"

    assert programs.ask(main, "third.calls") == [["use", "a"]]


def test_establishing_again_does_nothing(programs: Programs) -> None:
    """A forked child of a template that has established its `__main__` finds it done."""
    question = "[establish(dict(described)) is main, len(third.calls)]"

    assert programs.ask("import third\nthird.use('a')\n" + GUARD, question) == [True, 1]


def test_longer_plan_replays_the_rest(programs: Programs) -> None:
    """Where the parent has gone on since, only what is new is done."""
    rest = "(9, 'run', 'third.use(2)')"
    question = f"[establish({{**described, 'steps': (*described['steps'], {rest})}}) is main, third.calls]"

    answer = programs.ask("import third\nthird.use('a')\n" + GUARD, question)

    assert answer == [True, [["use", "a"], ["use", 2]]]


def test_modules_are_imported_between_the_calls_as_they_were(programs: Programs) -> None:
    """A user module whose import needs a call above it gets it, and one that a call needs is there."""
    programs.write("before.py", "import third\nthird.use('before')\n")
    programs.write(
        "after.py", "import third\nassert third.calls[-1] == ('setup', (), {})\nthird.use('after')\n"
    )
    main = "import before, third; third.use('z'); third.use('a')\nthird.setup()\nimport after\n"

    assert programs.ask(main + GUARD, "[call[1] for call in third.calls]") == [
        "before",
        "z",
        "a",
        [],
        "after",
    ]


def test_step_that_failed_in_a_template_is_tried_again_in_its_children(programs: Programs) -> None:
    """A forked child may have what its template lacked; what was done is not done again."""
    programs.write("needy.py", "import os\nassert 'NEEDED' in os.environ\n")
    main = "import os\nos.environ['NEEDED'] = '1'\nimport needy, third\nthird.use('a')\n" + GUARD

    assert programs.ask(main, f"exec({FORK!r}) or [names, third.calls]") == [
        ["needy", "absent"],
        [["use", "a"]],
    ]


FORK = """
import os
global names
reading, writing = os.pipe()
def look(): return "needy" if "needy" in sys.modules else "absent"
if not os.fork():
    os.environ["NEEDED"] = "1"
    establish(described)
    os.write(writing, look().encode())
    os._exit(0)
os.wait()
names = [os.read(reading, 99).decode(), look()]
"""


def test_never_mode_sets_attributes_alone(programs: Programs) -> None:
    """With `main="never"` nothing is imported or replayed."""
    programs.write("plugin.py", "")
    main = "import third, plugin\nthird.use('a')\n" + GUARD

    assert programs.ask(main, "[third, 'plugin' in sys.modules, main.__name__]", "never") == [
        None,
        False,
        "__main__",
    ]


def test_import_mode_runs_the_main_module_again(programs: Programs) -> None:
    """With `main="import"` the main module runs as `__mp_main__`, as in the standard library."""
    main = "import third\nthird.use('a')\ndef f(): pass\n" + GUARD

    answer = programs.ask(main, "[third.calls, main.__name__, main.f.__module__]", "import")
    assert answer == [[["use", "a"]], "__mp_main__", "__mp_main__"]


def test_unknown_mode_is_refused(programs: Programs) -> None:
    """A mode that does not exist is an error in the parent."""
    with pytest.raises(AssertionError, match="ValueError: main='sometimes' is none of"):
        programs.ask(GUARD, "", "sometimes")


@pytest.mark.parametrize(
    ("statement", "reads"),
    [
        ("it = third.Client('host', port=PORT)", ["PORT", "third"]),
        ("it: object = sqlite3.connect(str(HERE))", ["HERE", "sqlite3"]),
        ("it = zlib.decompressobj()", ["zlib"]),
        ("it = Own(PORT)", ["Own", "PORT"]),
        ("it = open(__file__)", []),
        ("it = open(__file__, 'rb')", []),
    ],
)
def test_global_is_made_again_by_its_statement(programs: Programs, statement: str, reads: list[str]) -> None:
    """The one plain assignment that made a global is given back, with the names that it reads."""
    source, names = programs.remade(f"{REMAKING}{statement}\n{GUARD}", "it")

    assert source == statement.replace("it: object =", "it =")
    assert sorted(names) == reads


REMAKING = """\
import sqlite3, zlib, os, subprocess, socket, tempfile, time
import third
PORT = 80
HERE = __file__
class Own:
    def __init__(self, *args): pass
"""


@pytest.mark.parametrize(
    "statement",
    [
        "it = PORT",
        "it = open('made', 'w')",
        "it = open('made', mode=chr(119))",
        "it = subprocess.Popen(['true']); it.wait()",
        "it = os.open(__file__, 0)",
        "it = tempfile.TemporaryFile()",
        "it = print('x')",
        "it = time.time()",
        "it = sqlite3.connect(':memory:')",
        "it = socket.create_server(('', 0))",
        "it = third.get('x')",
        "it = third.Client(); it = third.Client()",
        "it = other = third.Client()",
        "it, other = third.Client(), 1",
        "if PORT:\n    it = third.Client()",
        "it = third.Client()\ndef change():\n    global it\n    it = 2",
        "with open(__file__) as it: pass",
        "PORT = 81\nPORT = 82\nit = third.Client(never) if PORT == 80 else 0",
    ],
)
def test_global_is_not_made_again(programs: Programs, statement: str) -> None:
    """What acts on the world, or cannot be told from its statement alone, is not made again."""
    assert programs.remade(f"{REMAKING}{statement}\n{GUARD}", "it") == (None, ())


def test_assignments_to_its_attributes_are_made_again_with_a_global(programs: Programs) -> None:
    """What the top level sets on the object is part of what made it."""
    statement = "it = sqlite3.connect(HERE + '.db')\nit.row_factory = sqlite3.Row\n"

    source, names = programs.remade(REMAKING + statement + GUARD, "it")

    assert source == statement.rstrip()
    assert sorted(names) == ["HERE", "sqlite3"]


def test_global_of_a_module_without_a_guard_is_not_made_again(programs: Programs) -> None:
    """Without a guard there is no telling what is set up from what is done."""
    assert programs.remade(f"{REMAKING}it = third.Client()\n{NO_GUARD}", "it") == (None, ())
