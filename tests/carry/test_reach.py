"""State of imported modules: what carried code can see of it, a child sees as its parent left it."""

from __future__ import annotations

from pathlib import Path

import pytest

from programs import Programs

HELPER = """\
level = "as imported"
table = {"a": 1}
names = ["a"]
alias = table
flag = None

class Settings:
    debug = False
    def __init__(self):
        self.values = {}

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
        "json.dumps = lambda it: 'patched'",
        "json.dumps(1)",
        "patched",
    ),
    "function used before it was replaced": (
        "import unittest.mock; json.dumps = unittest.mock.Mock(return_value='mocked')",
        "json.dumps(1)",
        "mocked",
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
