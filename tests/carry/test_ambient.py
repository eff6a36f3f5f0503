"""What the program has set around its objects is so in a child that had none of it.

    a parent process runs SETUP and captures -> a file -> a fresh process restores, runs REPORT, prints

The child is started by the test, not by the parent, so it inherits nothing from it: as a child of a template
that started long before. Only plain pickles cross here; what the pickler adds is tested with it.
"""

from __future__ import annotations

import logging
import marshal
import os
import pathlib
import pickle
import subprocess
import sys
from typing import Any

import pytest

import bequest
from bequest.carry import ambient
from bequest.carry.ambient import adopter

LIMIT_S = 60.0  # reached only by a failing test

PARENT = """
import sys, multiprocessing
out, setup = sys.argv[1:]
sys.argv[1:] = []
exec(setup)
import marshal, pickle
from bequest.carry import ambient
plain = marshal.dumps(ambient.capture_plain())
state = marshal.dumps([plain, pickle.dumps(ambient.capture())])
with __import__("io").open(out, "wb") as file:
    file.write(state)
sys.stdout = sys.__stdout__
"""

CHILD = """
import sys, marshal
source, before, report = sys.argv[1:]
with open(source, "rb") as file:
    plain, packed = marshal.load(file)
exec(before)
from bequest.carry import ambient
import pickle
ambient.restore_plain(marshal.loads(plain))
ambient.restore(pickle.loads(packed))
exec(report)
"""

HELPERS = """
import logging

class Slow(UserWarning):
    pass

class Keep(logging.Handler):
    def __reduce__(self):
        return Keep, (self.name,)

    def __init__(self, name=None):
        super().__init__()
        self.name = name

    def emit(self, record):
        print("kept", record.getMessage())

class Finder:
    def find_spec(self, name, path=None, target=None):
        return None

def shown(message, *rest, **named):
    print("shown:", message)

def handle(number, frame):
    print("handled", number)

def hook(*args):
    print("hook")

def reduce(value):
    return str, ("reduced",)
"""


def run(code: str, *arguments: str, cwd: pathlib.Path) -> str:
    """Run `code` in a fresh interpreter and return what it printed."""
    source = str(pathlib.Path(bequest.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([source, str(cwd)]), "UNTOUCHED": "1"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory with a module that both processes can import."""
    (tmp_path / "helpers.py").write_text(HELPERS)
    return tmp_path


def carried(folder: pathlib.Path, setup: str, report: str, before: str = "") -> str:
    """Return what `report` prints in a child that has been given the state that `setup` leaves."""
    state = str(folder / "state")
    run(PARENT, state, setup, cwd=folder)
    return run(CHILD, state, before, report, cwd=folder)


PLAIN = {
    "environment set": ("import os; os.environ['A'] = 'b'", "import os; print(os.environ['A'])", "b"),
    "environment reaches C": (
        "import os; os.environ['A'] = 'b'",
        "import subprocess; print(subprocess.getoutput('echo $A'))",
        "b",
    ),
    "environment removed": (
        "import os; del os.environ['UNTOUCHED']",
        "import os; print(os.getenv('UNTOUCHED'))",
        "None",
    ),
    "working directory": (
        "import os; os.mkdir('in'); os.chdir('in')",
        "import os; print(os.path.basename(os.getcwd()))",
        "in",
    ),
    "umask": ("import os; os.umask(0o027)", "import os; print(oct(os.umask(0)))", "0o27"),
    "umask beside a thread": (
        "import os, threading as t; os.umask(0o027); t.Thread(target=t.Event().wait, daemon=True).start()",
        "import os; print(oct(os.umask(0)))",
        "0o27",
    ),
    "arguments": ("import sys; sys.argv[1:] = ['--x', 'y']", "print(sys.argv[1:])", "['--x', 'y']"),
    "search path": (
        "import sys; sys.path.insert(0, '/nowhere')",
        "print(sys.path[0], '' in sys.path)",
        "/nowhere False",
    ),
    "recursion limit": ("import sys; sys.setrecursionlimit(4321)", "print(sys.getrecursionlimit())", "4321"),
    "digits": (
        "import sys; sys.set_int_max_str_digits(9999)",
        "print(sys.get_int_max_str_digits())",
        "9999",
    ),
    "switch interval": ("import sys; sys.setswitchinterval(0.25)", "print(sys.getswitchinterval())", "0.25"),
    "collector": (
        "import gc; gc.disable(); gc.set_threshold(5, 6, 7)",
        "import gc; print(gc.isenabled(), gc.get_threshold()[:2])",
        "False (5, 6)",
    ),
    "thread stack": (
        "import threading; threading.stack_size(1 << 20)",
        "import threading; print(threading.stack_size())",
        str(1 << 20),
    ),
    "byte code": ("import sys; sys.dont_write_bytecode = True", "print(sys.dont_write_bytecode)", "True"),
    "traceback limit": ("import sys; sys.tracebacklimit = 3", "print(sys.tracebacklimit)", "3"),
    "no traceback limit": ("", "print(hasattr(sys, 'tracebacklimit'))", "False"),
    "stream modes": (
        "import sys; sys.stdout.reconfigure(encoding='latin-1', errors='replace')",
        "print(sys.stdout.encoding, sys.stdout.errors)",
        "latin-1 replace",
    ),
    "time zone": (
        "import os, time; os.environ['TZ'] = 'XYZ-3'; time.tzset()",
        "import time; print(time.tzname[0], time.timezone, time.localtime(0).tm_hour)",
        "XYZ -10800 3",
    ),
    "locale": (
        "import locale; locale.setlocale(locale.LC_CTYPE, 'C')",
        "import locale; print(locale.setlocale(locale.LC_CTYPE))",
        "C",
    ),
    "soft limit": (
        "import resource as r; r.setrlimit(r.RLIMIT_CORE, (0, r.getrlimit(r.RLIMIT_CORE)[1]))",
        "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)[0])",
        "0",
    ),
    "nice": (
        "import os; os.setpriority(os.PRIO_PROCESS, 0, 7)",
        "import os; print(os.nice(0))",
        "7",
    ),
    "scheduling": (
        "import os; os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))",
        "import os; print(os.sched_getscheduler(0) == os.SCHED_BATCH)",
        "True",
    ),
    "affinity": (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
        "import os; print(len(os.sched_getaffinity(0)))",
        "1",
    ),
    "blocked signals": (
        "import signal as s; s.pthread_sigmask(s.SIG_BLOCK, [s.SIGUSR2])",
        "import signal as s; print(sorted(s.pthread_sigmask(s.SIG_BLOCK, [])) == [s.SIGUSR2])",
        "True",
    ),
    "name of the thread": (
        "import threading; threading.current_thread().name = 'starter'",
        "import threading; print(threading.current_thread().name, threading.main_thread().name)",
        "starter starter",
    ),
    "ignored signal": (
        "import signal as s; s.signal(s.SIGTERM, s.SIG_IGN)",
        "import signal as s; print(s.getsignal(s.SIGTERM) == s.SIG_IGN)",
        "True",
    ),
    "default signal": (
        "import signal as s; s.signal(s.SIGPIPE, s.SIG_DFL)",
        "import signal as s; print(s.getsignal(s.SIGPIPE) == s.SIG_DFL)",
        "True",
    ),
    "warning filters": (
        "import warnings; warnings.filterwarnings('error', 'Ol.', DeprecationWarning)",
        "import warnings\ntry: warnings.warn('old', "
        "DeprecationWarning)\nexcept Warning as e: print('got', e)",
        "got old",
    ),
}

OBJECTS = {
    "signal handler": (
        "import signal, helpers; signal.signal(signal.SIGUSR1, helpers.handle)",
        "import signal; signal.raise_signal(signal.SIGUSR1)",
        "handled 10",
    ),
    "own warning": (
        "import warnings, helpers; warnings.simplefilter('always'); "
        "warnings.simplefilter('error', helpers.Slow)",
        "import warnings, helpers\ntry: warnings.warn('s', "
        "helpers.Slow)\nexcept Warning as e: print(repr(e))",
        "Slow('s')",
    ),
    "showwarning": (
        "import warnings, helpers; warnings.simplefilter('always'); warnings.showwarning = helpers.shown",
        "import warnings; warnings.warn('slow')",
        "shown: slow",
    ),
    "excepthook": (
        "import sys, helpers; sys.excepthook = helpers.hook",
        "import helpers; print(sys.excepthook is helpers.hook)",
        "True",
    ),
    "thread excepthook": (
        "import threading, helpers; threading.excepthook = helpers.hook",
        "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
        "hook",
    ),
    "builtin added": (
        "import builtins, helpers; builtins._ = helpers.shown; builtins.LEVEL = 3",
        "_('text'); print(LEVEL)",
        "shown: text\n3",
    ),
    "stdout": (
        "import sys, io; sys.stdout = io.StringIO('before')",
        "print('unseen'); print(type(sys.stdout).__name__, file=sys.__stdout__)",
        "StringIO",
    ),
    "arguments of other types": (
        "import sys, pathlib; sys.argv[1:] = [pathlib.PurePosixPath('x')]",
        "print(sys.argv[1:])",
        "[PurePosixPath('x')]",
    ),
    "importer": (
        "import sys, helpers; sys.meta_path.insert(0, helpers.Finder())",
        "print(type(sys.meta_path[0]).__name__)",
        "Finder",
    ),
    "context variable": (
        "import decimal\ndecimal.getcontext().prec = 5",
        "import decimal; print(decimal.Decimal(1) / 3)",
        "0.33333",
    ),
    "decimal default": (
        "import decimal\ndecimal.DefaultContext.traps[decimal.Inexact] = True",
        "import decimal; c = decimal.Context(); print(c.traps[decimal.Inexact])",
        "True",
    ),
    "csv dialect": (
        "import csv; csv.register_dialect('p', delimiter='|', quotechar=None, quoting=csv.QUOTE_NONE)",
        "import csv; print(next(csv.reader(['a|b'], 'p')))",
        "['a', 'b']",
    ),
    "csv limit": ("import csv; csv.field_size_limit(9)", "import csv; print(csv.field_size_limit())", "9"),
    "socket timeout": (
        "import socket; socket.setdefaulttimeout(2.5)",
        "import socket; print(socket.getdefaulttimeout())",
        "2.5",
    ),
    "mime type": (
        "import mimetypes as m; m.add_type('text/x-b', '.bq'); m.add_type('a/b', '.bqq', strict=False)",
        "import mimetypes as m; "
        "print(m.guess_type('a.bq')[0], m.guess_type('a.bqq', False)[0], m.guess_all_extensions('text/x-b'))",
        "text/x-b a/b ['.bq']",
    ),
    "temporary directory": (
        "import tempfile, os; tempfile.tempdir = os.getcwd()",
        "import tempfile, os; print(tempfile.gettempdir() == os.getcwd())",
        "True",
    ),
    "gettext": (
        "import gettext; gettext.bindtextdomain('d', '/x'); gettext.textdomain('d')",
        "import gettext; print(gettext.textdomain(), gettext.bindtextdomain('d'))",
        "d /x",
    ),
    "xml namespace": (
        "import xml.etree.ElementTree as E; E.register_namespace('q', 'urn:q')",
        "import xml.etree.ElementTree as E; print(E.tostring(E.Element('{urn:q}a')))",
        "b'<q:a xmlns:q=\"urn:q\" />'",
    ),
    "sqlite adapter": (
        "import sqlite3, helpers; sqlite3.register_adapter(helpers.Finder, repr)",
        "import sqlite3, helpers; print((helpers.Finder, sqlite3.PrepareProtocol) in sqlite3.adapters)",
        "True",
    ),
    "archive format": (
        "import shutil, helpers; shutil.register_archive_format('h', helpers.hook)",
        "import shutil; print('h' in dict(shutil.get_archive_formats()))",
        "True",
    ),
    "copyreg": (
        "import copyreg, helpers; copyreg.pickle(helpers.Finder, helpers.reduce)",
        "import copy, helpers; print(copy.copy(helpers.Finder()))",
        "reduced",
    ),
    "urllib opener": (
        "import urllib.request as u; o = u.OpenerDirector(); o.addheaders = []; u.install_opener(o)",
        "import urllib.request as u; print(u._opener.addheaders)",
        "[]",
    ),
    "faulthandler": (
        "import faulthandler; faulthandler.enable()",
        "import faulthandler; print(faulthandler.is_enabled())",
        "True",
    ),
    "logging levels": (
        "import logging as l; l.getLogger('a').setLevel(7); l.getLogger('b').propagate = False; l.disable(3)",
        "import logging as l; "
        "print(l.getLogger('a').level, l.getLogger('b').propagate, l.root.manager.disable)",
        "7 False 3",
    ),
    "logging handler": (
        "import logging, helpers; logging.root.addHandler(helpers.Keep('h')); logging.root.setLevel(10)",
        "import logging; logging.getLogger('x').debug('it'); "
        "print(len(logging.root.handlers), 'h' in logging._handlers)",
        "kept it\n1 True",
    ),
    "logging names": (
        "import logging as l; l.addLevelName(15, 'TRACE'); l.addLevelName(30, 'warn')",
        "import logging as l; print(l.getLevelName(15), l.getLevelName(30), l.getLevelName(20))",
        "TRACE warn INFO",
    ),
    "captured warnings": (
        "import logging, helpers; logging.captureWarnings(True); logging.root.addHandler(helpers.Keep())",
        "import warnings; warnings.warn('w'); print('end')",
        "kept <string>:1: UserWarning: w",
    ),
    "multiprocessing's log": (
        "import multiprocessing as mp, helpers; mp.get_logger().addHandler(helpers.Keep()); "
        "mp.get_logger().setLevel(10)",
        "import multiprocessing as mp; print(mp.util._logger.level, len(mp.util._logger.handlers))",
        "10 1",
    ),
    "numpy": (
        "import numpy as n; n.set_printoptions(precision=2); n.seterr(divide='raise')",
        "import numpy as n; print(n.array([1 / 3]), n.geterr()['divide'])",
        "[0.33] raise",
    ),
    "numpy.random": (
        "import numpy as n; n.random.seed(4); n.random.rand(3); "
        "open('next', 'w').write(str(n.random.get_state()[2]))",
        "import numpy as n; print(n.random.get_state()[2] == int(open('next').read()), n.random.rand() > 0)",
        "True True",
    ),
    "pandas": (
        "import pandas as p; p.set_option('display.max_rows', 7); p.set_option('display.float_format', str)",
        "import pandas as p; print(p.get_option('display.max_rows'), p.get_option('display.float_format'))",
        "7 <class 'str'>",
    ),
}


def _needs(name: str) -> None:
    if name.partition(".")[0] in ("numpy", "pandas"):
        pytest.importorskip(name.partition(".")[0])


@pytest.mark.parametrize("name", [*PLAIN, *OBJECTS])
def test_what_the_parent_has_set_is_so_in_the_child(name: str, folder: pathlib.Path) -> None:
    """The child's report is what the parent would have reported after the setup."""
    _needs(name)
    setup, report, expected = {**PLAIN, **OBJECTS}[name]
    printed = carried(folder, setup, report)
    lines = expected.splitlines()
    assert printed.splitlines()[: len(lines)] == lines


OVERRIDDEN = {
    "environment": ("import os; os.environ['A'] = 'late'", "import os; print(os.environ['A'])", "late"),
    "working directory": ("", "import os; print(os.path.basename(os.getcwd()))", ""),
    "logging": (
        "import logging",
        "import logging; print(logging.root.level, logging.root.handlers)",
        "30 []",
    ),
    "signal": ("", "import signal; print(signal.getsignal(signal.SIGINT).__name__)", "default_int_handler"),
    "umask": ("import os; os.umask(0o022)", "import os; print(oct(os.umask(0)))", "0o22"),
}

ALIEN = """
import os, signal, logging
os.environ["A"] = "early"
os.chdir("/")
signal.signal(signal.SIGINT, signal.SIG_IGN)
logging.basicConfig(level=5)
os.umask(0o077)
"""


@pytest.mark.parametrize("name", list(OVERRIDDEN))
def test_what_the_child_had_differently_gives_way(name: str, folder: pathlib.Path) -> None:
    """State that a template or an import has set in the child is replaced by the parent's."""
    setup, report, expected = OVERRIDDEN[name]
    assert carried(folder, setup, report, ALIEN) == (expected or folder.name)


def test_waiting_state_costs_no_import(folder: pathlib.Path) -> None:
    """A package whose options are carried is not imported by the child, and has them once it is."""
    pytest.importorskip("numpy")
    told = (
        "print('numpy' in sys.modules); import numpy; print(numpy.array([1 / 3])); print(len(sys.meta_path))"
    )
    printed = carried(folder, "import numpy; numpy.set_printoptions(precision=3)", told).split()
    assert printed[:2] == ["False", "[0.333]"]


def test_waiting_state_is_captured_again(folder: pathlib.Path) -> None:
    """What still waits in a child is inherited by a child of its own."""
    told = "print(ambient.capture()['libraries']['csv'][1])"
    assert carried(folder, "import csv; csv.field_size_limit(77)", told) == "77"


def test_module_looked_up_but_not_imported_keeps_its_state_waiting(folder: pathlib.Path) -> None:
    """find_spec alone does not use the waiting state up."""
    told = "import importlib.util as u; u.find_spec('csv'); import csv; print(csv.field_size_limit())"
    assert carried(folder, "import csv; csv.field_size_limit(77)", told) == "77"


def test_awaited_module_looks_as_if_nobody_had_waited(folder: pathlib.Path) -> None:
    """Its loader is the usual one, and the watch has gone when nothing is left to wait for."""
    told = "before = len(sys.meta_path); import csv; print(before - len(sys.meta_path))"
    told += "; print(type(csv.__loader__).__name__); print(csv.__spec__.loader is csv.__loader__)"
    printed = carried(folder, "import csv; csv.field_size_limit(77)", told)
    assert printed == "1\nSourceFileLoader\nTrue"


def test_signal_before_its_handler_is_delivered_later(folder: pathlib.Path) -> None:
    """A signal that has a Python handler in the parent is held back until the handler is in place."""
    state = str(folder / "state")
    run(PARENT, state, "import signal, helpers; signal.signal(signal.SIGUSR1, helpers.handle)", cwd=folder)
    kill = "import signal, os; os.kill(os.getpid(), signal.SIGUSR1)\n"
    early = CHILD.replace("ambient.restore(", kill + "ambient.restore(")
    assert run(early, state, "", "print('end')", cwd=folder) == "handled 10\nend"


def test_second_child_of_a_program_sees_what_changed_in_between(folder: pathlib.Path) -> None:
    """Nothing is remembered from one capture to the next."""
    told = "import os; print(os.environ.get('A'))"
    assert carried(folder, "import os; os.environ['A'] = '1'", told) == "1"
    assert carried(folder, "", told) == "None"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
def test_dropped_rights_are_dropped_in_the_child(folder: pathlib.Path) -> None:
    """A parent that has become another user since the template started has children of that user."""
    state = str(folder / "state")
    setup = (
        "import os, marshal, pickle, sys; from bequest.carry import ambient\n"
        "file = open(sys.argv[1], 'wb'); ambient.capture_plain()\n"  # which imports what it needs
        "os.setgroups([]); os.setresgid(4, 4, 4); os.setresuid(3, 3, 3)\n"
        "marshal.dump([marshal.dumps(ambient.capture_plain()), pickle.dumps({})], file); file.close()"
    )
    run(setup, state, cwd=folder)
    told = "import os; print(os.getresuid(), os.getresgid(), os.getgroups())"
    assert run(CHILD, state, "", told, cwd=folder) == "(3, 3, 3) (4, 4, 4) []"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
def test_rights_that_cannot_be_taken_over_end_the_child(folder: pathlib.Path) -> None:
    """A child never runs as another user than its parent."""
    plain = ambient.capture_plain()
    state: dict[str, Any] = {"system": {"credentials": (plain["system"]["credentials"][0], (9, 9, 9), [])}}
    code = "import sys, os, marshal; from bequest.carry import ambient\n"
    code += "os.setresuid(3, 3, 3)\n"
    code += "try: ambient.restore_plain(marshal.loads(bytes.fromhex(sys.argv[1])))\n"
    code += "except PermissionError: print('refused')"
    assert run(code, marshal.dumps(state).hex(), cwd=folder) == "refused"


def test_unchanged_program_has_no_objects(folder: pathlib.Path) -> None:
    """Nothing but plain data crosses for a program that has changed nothing, and marshal takes it."""
    code = "import multiprocessing, logging, decimal, csv, socket, mimetypes, sqlite3, marshal\n"
    code += "from bequest.carry import ambient\n"
    code += "print(ambient.capture().keys() - {'logs'}, len(marshal.dumps(ambient.capture_plain())) < 50_000)"
    assert run(code, cwd=folder) == "set() True"


def test_restoring_a_plain_state_imports_next_to_nothing(folder: pathlib.Path) -> None:
    """Restoring brings in no module that a bare interpreter lacks, but bequest's own few."""
    told = (
        "import sys, bequest.carry; before = set(sys.modules)\nfrom bequest.carry import ambient\n"
        "ambient.restore_plain(ambient.capture_plain())\n"
        "print(sorted(n for n in set(sys.modules) - before if not n.startswith('bequest')))"
    )
    allowed = {"__future__", "gc", "_locale", "_contextvars", "_py_warnings", "warnings"}
    assert set(eval(run(told, cwd=folder))) <= allowed


def test_failing_adopter_is_reported_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A start goes on without the state that could not be read, and says which it was."""
    from multiprocessing import util

    from bequest.carry.ambient import libraries

    def fail() -> None:
        raise RuntimeError("broken package")

    broken = adopter.Adopter("broken", fail, lambda state: None)
    monkeypatch.setattr(libraries, "ADOPTERS", (broken,))
    monkeypatch.setattr(ambient, "_listed", {})  # what it remembers of the families
    monkeypatch.setattr(util, "_logger", logging.getLogger("test-ambient"))
    with caplog.at_level(logging.INFO, "test-ambient"):
        assert "libraries" not in ambient.capture()
    assert "broken package" in caplog.text


def test_stand_ins_are_dropped_from_loggers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler or filter that stayed in the parent does not get in the way of the child's logging."""
    from bequest.carry.ambient import logs
    from bequest.carry.leftbehind import Explanation, LeftBehind

    logger = logging.getLogger("test-ambient-stand-in")
    gone = LeftBehind(Explanation("handler", "x.Handler", "it cannot", "do something"))
    stream = logging.StreamHandler()
    vars(stream)["stream"] = gone
    logs._restore_logger(logger, {"handlers": [gone, stream], "filters": [gone]})
    try:
        assert logger.handlers == [stream]
        assert stream.stream is sys.stderr
        assert logger.filters == []
    finally:
        logger.handlers.clear()


def test_front_ends_are_recognised() -> None:
    """Hooks of a test runner or an event loop are told from the program's own, without touching proxies."""
    import asyncio
    import functools

    class Proxy:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

    with asyncio.Runner() as runner:
        assert adopter.is_front_end(functools.partial(runner._on_sigint, main_task=None))  # type: ignore[attr-defined]
    assert not adopter.is_front_end(Proxy())
    assert not adopter.is_front_end([].append)
    assert not adopter.is_front_end(pickle.dumps)


def test_last_look_is_taken_anew_for_other_objects() -> None:
    """What was made of the same objects is not made again; an equal object is another one."""
    made: list[tuple[Any, ...]] = []
    look = adopter.LastLook(lambda objects: made.append(tuple(objects)) or len(made))  # type: ignore[func-returns-value]
    first, equal = ["a"], ["a"]

    assert [look.of([first]), look.of([first]), look.of([equal]), look.of([first, equal])] == [1, 1, 2, 3]
