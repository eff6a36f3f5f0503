"""State of imported modules: what carried code can see of it, a child sees as its parent left it."""

from __future__ import annotations

from pathlib import Path

import pytest

from programs import Programs

HELPER = """\
import enum
import functools
import warnings

def warn():
    warnings.warn("slow")

level = "as imported"
table = {"a": 1}
names = ["a"]
alias = table
flag = None

class Settings:
    debug = False
    def __init__(self):
        self.values = {}

class Colour(enum.Enum):
    RED = 1

def collect(item, *, found=table, seen=[]):
    seen.append(item)
    return seen

def plain(value=1):
    return value

def hinted(value: "Late"):
    return value

class Local(Settings):
    debug = True
    def describe(self):
        return "described"
    def __str__(self):
        return "as imported"

chosen = Settings
codec = None

def get_codec():
    return codec

def __getattr__(name):
    if name in _answers:
        return _answers[name]
    raise AttributeError(name)

_answers = {}

settings = Settings()
current = settings

def get_level():
    return level

def get_table(found=table):
    return found

def registered(kind):
    names.append(kind)
    return kind

def _closure():
    cache = {}
    def remember(key, value=None):
        if value is not None:
            cache[key] = value
        return cache.get(key)
    return remember

remember = _closure()

def counted():
    counted.calls += 1
    return counted.calls

counted.calls = 0

def inner():
    import other
    return other.value

@functools.singledispatch
def show(value):
    return "anything"

def kept(function):
    calls = []
    @functools.wraps(function)
    def wrapper(*given):
        calls.append(given)
        return (len(calls), function(*given))
    wrapper.calls = calls
    return wrapper

def tally(function):
    count = 0
    @functools.wraps(function)
    def wrapper(*given):
        nonlocal count
        count += 1
        return (count, function(*given))
    return wrapper

@kept
@tally
@kept
def work(given):
    return given

class Measured:
    @property
    @tally
    def size(self):
        return "as imported"
    @staticmethod
    @tally
    def static():
        return "static"
    @functools.cached_property
    def area(self):
        return "as imported"

def _hooked():
    hook = None
    def set_hook(function):
        nonlocal hook
        hook = function
    return set_hook, lambda: hook and hook()

set_hook, run_hook = _hooked()

def aliased():
    import simplejson
    return simplejson.dumps([1])
"""
OTHER = 'value = "as imported"\n'

PROGRAM = """\
import json
import os
import multiprocessing as mp
import helper
import other

mp.set_start_method(os.environ["START_METHOD"])

if __name__ == "__main__":
    {change}
    queue = mp.SimpleQueue()
    child = mp.Process(target=lambda: queue.put({question}))
    child.start()
    print(queue.get())
    child.join()
"""

CHANGES: dict[str, tuple[str, str, str]] = {
    "global read as an attribute": ("helper.level = 'changed'", "helper.level", "changed"),
    "global read by a function": ("helper.level = 'changed'", "helper.get_level()", "changed"),
    "dict changed in place": ("helper.table['b'] = 2", "helper.table", "{'a': 1, 'b': 2}"),
    "list changed in place": ("helper.registered('b')", "helper.names", "['a', 'b']"),
    "alias stays an alias": (
        "helper.table['b'] = 2",
        "(helper.alias is helper.table, len(helper.alias))",
        "(True, 2)",
    ),
    "default argument stays the global": (
        "helper.table['b'] = 2",
        "(helper.get_table() is helper.table, helper.get_table()['b'])",
        "(True, 2)",
    ),
    "class attribute": ("helper.Settings.debug = True", "helper.Settings().debug", "True"),
    "attribute of an object": ("helper.settings.values['x'] = 1", "helper.settings.values", "{'x': 1}"),
    "identity of an object": (
        "helper.settings.values['x'] = 1",
        "(helper.current is helper.settings, type(helper.settings) is helper.Settings)",
        "(True, True)",
    ),
    "content of a closure": ("helper.remember('k', 5)", "helper.remember('k')", "5"),
    "attribute of a function": ("helper.counted()", "helper.counted()", "2"),
    "module imported in a function": ("other.value = 'changed'", "helper.inner()", "changed"),
    "new name": ("helper.extra = 9", "helper.extra", "9"),
    "function replaced": ("helper.get_level = lambda: 'patched'", "helper.get_level()", "patched"),
    "method replaced": ("helper.Settings.ask = lambda self: 'patched'", "helper.Settings().ask()", "patched"),
    "function of the standard library replaced": (
        "json.loads = lambda it: 'patched'",
        "json.loads(1)",
        "patched",
    ),
    "function used before it was replaced": (
        "import unittest.mock; json.loads = unittest.mock.Mock(return_value='mocked')",
        "json.loads(1)",
        "mocked",
    ),
    "implementation registered with singledispatch": (
        "helper.show.register(int, lambda value: 'a number')",
        "(helper.show(1), helper.show(''), sorted(k.__name__ for k in helper.show.registry))",
        "('a number', 'anything', ['int', 'object'])",
    ),
    "singledispatch goes on in the child": (
        "helper.show.register(int, lambda value: 'a number'); helper.show(1)",
        "(helper.show.register(str, lambda value: 'text'), helper.show(''), helper.show(1))[1:]",
        "('text', 'a number')",
    ),
    "state of stacked decorators": ("helper.work(0)", "helper.work(5)", "(2, (2, (2, 5)))"),
    "one list in a cell and an attribute": (
        "helper.work(0)",
        "(helper.work(5), len(helper.work.calls), helper.work.__wrapped__.__wrapped__.calls)[1:]",
        "(2, [(0,), (5,)])",
    ),
    "state behind a property": ("helper.Measured().size", "helper.Measured().size", "(2, 'as imported')"),
    "state behind a static method": ("helper.Measured.static()", "helper.Measured.static()", "(2, 'static')"),
    "property replaced": (
        "helper.Measured.size = property(lambda self: 'patched')",
        "helper.Measured().size",
        "patched",
    ),
    "cached property replaced": (
        "import functools; it = helper.Measured.area = functools.cached_property(lambda self: 'patched');"
        " it.__set_name__(helper.Measured, 'area')",
        "helper.Measured().area",
        "patched",
    ),
    "function of the main module in a cell": (
        "helper.set_hook(lambda: 'hooked')",
        "helper.run_hook()",
        "hooked",
    ),
    "method of a library class replaced": (
        "json.JSONEncoder.default = lambda self, it: 'patched'",
        "json.dumps(object())",
        '"patched"',
    ),
    "library function replaced that only the library calls": (
        "json.encoder.py_encode_basestring_ascii = json.encoder.encode_basestring_ascii = lambda it: '!'",
        "json.JSONEncoder(indent=1).encode('x')",
        "!",
    ),
    "run of threads replaced": (
        "import threading; before = threading.Thread.run;"
        " threading.Thread.run = lambda self: (helper.names.append('patched'), before(self))",
        "(it := __import__('threading').Thread(target=int), it.start(), it.join(), helper.names)[-1]",
        "['a', 'patched']",
    ),
    "class of a library replaced": (
        "import socket; Proxied = type('Proxied', (socket.socket,), {'mark': 'patched'});"
        " socket.socket = Proxied",
        "(it := __import__('socket').create_server(('127.0.0.1', 0)), it.close(), it.mark)[-1]",
        "patched",
    ),
    "new name on a library module": ("json.VERBOSE = 5", "json.VERBOSE", "5"),
    "new name on sys": (
        "import sys; sys.my_flag = ('on', 1)",
        "__import__('sys').my_flag",
        "('on', 1)",
    ),
    "alias in sys.modules": ("import sys; sys.modules['simplejson'] = json", "helper.aliased()", "[1]"),
    "global that is another class of the module": (
        "helper.chosen = helper.Local",
        "(helper.chosen is helper.Local, helper.chosen.__name__)",
        "(True, 'Local')",
    ),
    "global that is a function of a library": (
        "helper.codec = json.dumps",
        "helper.get_codec()([1])",
        "[1]",
    ),
    "global that is a module": ("helper.codec = other", "helper.get_codec().value", "as imported"),
    "method that is another one of the class": (
        "helper.Local.ask = helper.Local.describe",
        "helper.Local().ask()",
        "described",
    ),
    "special method replaced": (
        "helper.Local.__str__ = lambda self: 'patched'",
        "str(helper.Local())",
        "patched",
    ),
    "global read by a constant name": ("helper.level = 'changed'", "getattr(helper, 'level')", "changed"),
    "global read by a computed name": (
        "helper.level = 'changed'",
        "getattr(helper, 'LEVEL'.lower())",
        "changed",
    ),
    "global read from the module's namespace": (
        "helper.level = 'changed'",
        "(vars(helper)['level'], helper.__dict__['level'])",
        "('changed', 'changed')",
    ),
    "class attribute read by a computed name": (
        "helper.Settings.debug = True",
        "getattr(helper.Settings, 'DEBUG'.lower())",
        "True",
    ),
    "global of a module imported by a string": (
        "other.value = 'changed'",
        "__import__('importlib').import_module('other').value",
        "changed",
    ),
    "what a module's own __getattr__ reads": ("helper._answers['late'] = 5", "helper.late", "5"),
    "default argument that grows": ("helper.collect(1)", "helper.collect(2)", "[1, 2]"),
    "defaults replaced": ("helper.plain.__defaults__ = (9,)", "helper.plain()", "9"),
    "code replaced": (
        "helper.plain.__code__ = (lambda value: 'swapped').__code__",
        "helper.plain()",
        "swapped",
    ),
    "code of another function": (
        "helper.Local.describe.__code__ = helper.Local.__str__.__code__",
        "helper.Local().describe()",
        "as imported",
    ),
    "attribute of an enum's member": (
        "helper.Colour.RED.note = 'noted'",
        "(helper.Colour.RED.note, helper.Colour.RED.value)",
        "('noted', 1)",
    ),
    "global deleted": ("del helper.flag", "hasattr(helper, 'flag')", "False"),
    "class attribute deleted": ("del helper.Local.debug", "helper.Local.debug", "False"),
    "class of the main module in an annotation that is text": (
        "Kind = type('Kind', (), {}); exec('def hinted(it: \"list[Kind]\"): pass', globals())",
        "__import__('typing').get_type_hints(hinted)['it'].__args__[0] is Kind",
        "True",
    ),
    "new class of a module in an annotation that is text": (
        "helper.Late = type('Late', (), {})",
        "__import__('inspect').get_annotations(helper.hinted, eval_str=True)['value'].__name__",
        "Late",
    ),
    "annotation of a function added": (
        "exec('def annotated(x, y: int = 1): pass', globals()); annotated.__annotations__['x'] = str",
        "sorted(annotated.__annotations__)",
        "['x', 'y']",
    ),
    "annotation of a class added": (
        "exec('class Kind:\\n a: int = 1', globals()); Kind.__annotations__['b'] = str",
        "sorted(Kind.__annotations__)",
        "['a', 'b']",
    ),
    "search path under another name": (
        "import sys; path, words = sys.path, sys.argv",
        "(path is __import__('sys').path, words is __import__('sys').argv)",
        "(True, True)",
    ),
    "object of the user's in a library": (
        "kind = type('Own', (json.JSONEncoder,), {'default': lambda self, it: 'own'});"
        " json._default_encoder = kind()",
        "json.dumps({1})",
        '"own"',
    ),
    "object that equals what it replaces, since the last start": (
        "first = mp.Process(target=int); first.start(); first.join();"
        " body = {'default': lambda self, it: 'own', '__eq__': lambda self, other: True};"
        " json._default_encoder = type('Own', (json.JSONEncoder,), body)()",
        "json.dumps({1})",
        '"own"',
    ),
    "first day of the week": (
        "import calendar; calendar.setfirstweekday(6)",
        "__import__('calendar').firstweekday()",
        "6",
    ),
    "nothing changed": ("pass", "helper.get_level()", "as imported"),
}


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """A folder with the user's two modules."""
    made = Programs(tmp_path)
    made.write("helper.py", HELPER)
    made.write("other.py", OTHER)
    return made


@pytest.mark.parametrize("name", CHANGES)
def test_child_sees_the_state_of_a_module(programs: Programs, clean_method: str, name: str) -> None:
    """What the main module has changed in a module since its import is so in a child that reads it."""
    change, question, answer = CHANGES[name]
    text = PROGRAM.replace("{change}", change).replace("{question}", question)

    assert programs.run(text, "script import", clean_method).lines == [answer]


def test_module_that_is_no_longer_found(programs: Programs, clean_method: str) -> None:
    """A module whose folder has left the search path, and whose file is gone, comes as it is."""
    programs.write("gone/module.py", "value = 'as imported'\n")
    change = (
        "import shutil, sys; sys.path.insert(0, 'gone'); import module;"
        " sys.path.remove('gone'); shutil.rmtree('gone'); module.value = 'changed'"
    )
    text = PROGRAM.replace("{change}", change).replace("{question}", "__import__('module').value")

    assert programs.run(text, "script import", clean_method).lines == ["changed"]


def test_state_that_refuses_to_be_pickled_stops_no_message(programs: Programs, clean_method: str) -> None:
    """An object of a module whose own `__getstate__` raises is left behind; a task without it runs."""
    programs.write(
        "refusing.py",
        "class Refusing:\n    def __getstate__(self):\n        raise RuntimeError('mine')\n"
        "kept = [Refusing()]\n"
        "def count():\n    return len(kept)\n",
    )
    text = (
        "import os\nimport multiprocessing as mp\nimport refusing\n"
        'mp.set_start_method(os.environ["START_METHOD"])\n'
        'if __name__ == "__main__":\n'
        "    with mp.Pool(1) as pool:\n        print(pool.apply(refusing.count))\n"
        "        try:\n            pool.apply(len, (refusing.kept,))\n"
        "        except RuntimeError as error:\n            print(error)\n"
    )

    assert programs.run(text, "script import", clean_method).lines == ["1", "mine"]


def test_warning_is_shown_once(programs: Programs, clean_method: str) -> None:
    """A warning that the parent has shown is not shown again by its child."""
    text = PROGRAM.replace("{change}", "helper.warn()").replace("{question}", "helper.warn()")

    assert programs.run(text, "script import", clean_method).errors.count("UserWarning: slow") == 1


def test_relative_search_path_stays_where_it_was(programs: Programs, clean_method: str) -> None:
    """A module found by a relative entry of `sys.path` is found by a child that starts in another folder."""
    programs.write("lib/near.py", "value = 'as imported'\ndef get():\n    return value\n")
    change = (
        "import sys; sys.path.insert(0, 'lib'); import near;"
        " near.value = 'changed'; os.mkdir('elsewhere'); os.chdir('elsewhere')"
    )
    text = PROGRAM.replace("{change}", change).replace("{question}", "near.get()")

    assert programs.run(text, "script import", clean_method).lines == ["changed"]


def test_function_by_name_brings_its_modules_state(programs: Programs, clean_method: str) -> None:
    """A target that goes by its name, with nothing of `__main__` in between, finds its module's state."""
    programs.write("worker.py", "import helper\ndef work(queue):\n    queue.put(helper.level)\n")
    text = PROGRAM.replace("{change}", "helper.level = 'changed'; import worker")
    text = text.replace("lambda: queue.put({question})", "worker.work, args=(queue,)")

    assert programs.run(text, "script import", clean_method).lines == ["changed"]


def test_state_that_cannot_be_carried_is_as_imported(programs: Programs, clean_method: str) -> None:
    """A global that cannot be carried is left as the import made it; the start goes on."""
    change = "helper.flag = (n for n in [1]); next(helper.flag)"
    text = PROGRAM.replace("{change}", change).replace("{question}", "helper.flag is None")

    assert programs.run(text, "script import", clean_method).lines == ["True"]


def test_childs_own_changes_stay_there(programs: Programs, clean_method: str) -> None:
    """What a child does to a module's state does not reach its parent."""
    question = "helper.table.update(c=3) or len(helper.table)"
    text = PROGRAM.replace("{change}", "pass").replace("{question}", question)
    text += "    print(helper.table)\n"

    assert programs.run(text, "script import", clean_method).lines == ["2", "{'a': 1}"]


def test_pool_tasks_see_state_at_the_pools_start(programs: Programs, clean_method: str) -> None:
    """Workers of a pool have the state that modules had when they started, whatever reads it."""
    text = (
        "import os\nimport multiprocessing as mp\nimport helper\n"
        'mp.set_start_method(os.environ["START_METHOD"])\n'
        'if __name__ == "__main__":\n'
        "    helper.level = 'changed'\n"
        "    with mp.Pool(1) as pool:\n"
        "        print(pool.apply(helper.get_level))\n"
    )

    assert programs.run(text, "script import", clean_method).lines == ["changed"]


def test_patch_waits_for_the_library(programs: Programs, clean_method: str) -> None:
    """A patch of a library that a child has not loaded neither loads it nor is lost, in its children too."""
    programs.write(
        "worker.py",
        "import importlib, sys\n"
        "def look(queue):\n"
        "    loaded = 'colorsys' in sys.modules\n"
        "    found = importlib.import_module('colorsys')\n"
        "    queue.put((loaded, getattr(found, 'rgb_to_hls')(0, 0, 0)))\n"
        "def start(queue, kind):\n"
        "    child = kind(target=look, args=(queue,))\n"
        "    child.start()\n"
        "    child.join()\n",
    )
    change = "import worker, colorsys; colorsys.rgb_to_hls = lambda *it: 'patched'"
    text = PROGRAM.replace("{change}", change)
    text = text.replace("lambda: queue.put({question})", "worker.start, args=(queue, mp.Process)")

    assert programs.run(text, "script import", clean_method).lines == ["(False, 'patched')"]
