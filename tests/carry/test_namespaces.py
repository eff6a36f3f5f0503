"""The one `__main__` of a child, and which binding wins: real programs, seen from their children.

The rule: a start brings the sender's bindings; a later message of the same sender wins where the sender has
bound the name anew since and the receiver has not; anything else leaves the receiver's namespace alone.
"""

from __future__ import annotations

import gc
import importlib
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from bequest.carry import bindings, identity, namespaces
from bequest.carry.pickler import dumps
from programs import Programs

HEAD = """\
import os
import multiprocessing as mp

mp.set_start_method(os.environ["START_METHOD"])
"""

# A child that runs whatever functions come by its pipe, and answers; `tell` asks it.
SERVING = (
    HEAD
    + """
level = "first"

def serve(pipe):
    while True:
        function = pipe.recv()
        if function is None:
            break
        pipe.send(function())

ours, theirs = mp.Pipe()
child = mp.Process(target=serve, args=(theirs,), daemon=True)
child.start()
theirs.close()

def tell(function):
    ours.send(function)
    return ours.recv()

def get():
    return level

def put(value):
    global level
    level = value

{steps}
ours.send(None)
child.join()
"""
)

STEPS: dict[str, tuple[str, list[str]]] = {
    "bound at the start": ("print(tell(get))", ["first"]),
    "bound anew by the sender": ("tell(get); level = 'second'; print(tell(get))", ["second"]),
    "bound anew by the receiver": (
        "tell(lambda: put('its own')); print(tell(get), level)",
        ["its own first"],
    ),
    "bound anew by both": (
        "tell(lambda: put('its own')); level = 'second'; print(tell(get))",
        ["its own"],
    ),
    "one namespace for all messages": (
        "tell(lambda: globals().setdefault('extra', [])); tell(lambda: extra.append(1))\n"
        "print(tell(lambda: extra), 'extra' in globals())",
        ["[1] False"],
    ),
    "defined after the start": ("def later(): return 'later ' + get()\nprint(tell(later))", ["later first"]),
    "defined anew": (
        "def work(): return 1\ntell(work)\ndef work(): return 2\nprint(tell(lambda: work()))",
        ["2"],
    ),
    "asked for by name": ("other = 5\nprint(tell(lambda: eval('other')))", ["5"]),
    "main's own name": ("print(tell(lambda: __name__), tell(get.__module__.upper))", ["__main__ __MAIN__"]),
}


@pytest.mark.parametrize("name", STEPS)
def test_which_binding_a_child_sees(tmp_path: Path, clean_method: str, name: str) -> None:
    """Messages to a running child lay over its `__main__` what the rule says, and nothing else."""
    steps, said = STEPS[name]
    text = SERVING.replace("{steps}", steps)

    assert Programs(tmp_path).run(text, "script import", clean_method).lines == said


WHOLE: dict[str, tuple[str, str]] = {
    "globals()": ("lambda: print(globals()['hidden'])", "7"),
    "eval": ("lambda: print(eval('hid' + 'den'))", "7"),
    "exec as target": ("exec", "7"),
    "import __main__": ("by_import", "7"),
    "sys.modules": ("by_modules", "7"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_code_that_asks_by_name_gets_all(tmp_path: Path, clean_method: str, name: str) -> None:
    """Where the code asks for its namespace by name, the whole of it is there."""
    target, said = WHOLE[name]
    args = ', args=("print(hidden)", globals())' if target == "exec" else ""
    text = (
        HEAD
        + "hidden = 7\ndef by_import():\n    import __main__\n    print(__main__.hidden)\n"
        + "import sys\ndef by_modules():\n    print(sys.modules['__main__'].hidden)\n"
        + f"child = mp.Process(target={target}{args})\nchild.start()\nchild.join()\n"
    )

    assert Programs(tmp_path).run(text, "script import", clean_method).lines == [said]


def test_names_that_nobody_reads_stay(tmp_path: Path, clean_method: str) -> None:
    """What the target does not read is not sent, whatever it is: a generator in use is no obstacle."""
    text = HEAD + (
        "used = (n for n in [1, 2])\nnext(used)\n"
        "child = mp.Process(target=lambda: print('fine'))\nchild.start()\nchild.join()\n"
        "print(child.exitcode)\n"
    )

    assert Programs(tmp_path).run(text, "script import", clean_method).lines == ["fine", "0"]


def test_binding_has_a_number_that_grows() -> None:
    """A binding's number stays while the name is bound to one object, and grows when it is bound anew."""
    value: list[Any] = [1]
    items = (value, value, [1], [1])
    first, same, second, third = (bindings.numbers_of("of this test alone", {"name": it})[0] for it in items)

    assert first == same < second < third


def test_older_message_does_not_win() -> None:
    """A message that has been overtaken by a newer one of the same sender binds nothing anew."""
    messages = []
    for value in ("older", "newer"):
        packed = bindings.pack("overtaken", {"name": value}, ["name"])
        assert packed is not None
        messages.append(("another process", *packed[1:]))
    space: dict[str, Any] = {}
    bindings.bind(space, messages[0])
    bindings.bind(space, messages[1])
    bindings.bind(space, messages[0])

    assert space == {"name": "newer"}


def test_child_frees_what_it_unbinds(tmp_path: Path, method: str) -> None:
    """What a child has got in a global is freed when it binds the global to something else."""
    text = HEAD + (
        "import gc, weakref\nclass Big: pass\ndata = [Big()]\n"
        "def work():\n    global data\n    big = weakref.ref(data[0])\n    data = None\n    gc.collect()\n"
        "    print('kept' if big() else 'freed')\n"
        "child = mp.Process(target=work)\nchild.start()\nchild.join()\n"
    )

    assert Programs(tmp_path).run(text, "script import", method).lines == ["freed"]


def test_classes_may_go_while_containers_are_given_up() -> None:
    """The collector may take classes that were sent away while a message looks for unbound containers."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.disable()
    try:
        for number in range(3000):  # more than the interpreter keeps pairs in stock
            kind = type("Local", (), {})
            bindings.numbers_of(identity.token_of(kind), {"items": [number]})
        gc.set_threshold(gc.get_count()[0] + 100)  # in the middle of the look, where a version collects there
        gc.enable()
        bindings.versions.give_up()
    finally:
        gc.enable()
        gc.set_threshold(*thresholds)


def test_own_messages_bind_nothing() -> None:
    """A process that reads its own message keeps its bindings."""
    space = {"name": "present"}
    packed = bindings.pack("m", {"name": "packed"}, ["name", "absent"])
    assert packed is not None
    assert packed[0] == identity.maker()
    bindings.bind(space, packed)

    assert space == {"name": "present"}


def test_module_that_was_sent_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module whose function has been sent goes when the program lets go of it."""
    (tmp_path / "passing.py").write_text("def work(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("passing")
    dumps(module.work)
    gone = weakref.ref(module)
    del module, sys.modules["passing"]
    gc.collect()

    assert gone() is None


def test_nothing_to_bind_is_none() -> None:
    """Names that a namespace does not have are not sent."""
    assert bindings.pack("m", {}, ["absent"]) is None


def test_names_of_the_import_system_are_not_the_modules_own() -> None:
    """`__name__`, `__file__` and the like are left to the receiver's import."""
    assert namespaces.own_names({"a": 1, "__name__": "x", "__file__": "y", "__all__": []}) == ["a", "__all__"]


def test_found_namespaces_are_this_processs_own() -> None:
    """What a message refers to by name is found, not made."""
    assert namespaces.main_namespace() is vars(sys.modules["__main__"])
    assert namespaces.module_namespace("sent") is vars(sys.modules["sent"])
    assert namespaces.all_modules() is sys.modules


UNLISTED = (
    HEAD
    + """
import types

plugin = types.ModuleType("plugin")
exec("hits = 0\\ndef hit():\\n    global hits\\n    hits += 1\\n    return hits\\n", plugin.__dict__)
hit = plugin.hit

def look({parameters}):
    plugin.hits = 5
    print(hit(), plugin.hits, hit.__globals__ is vars(plugin), plugin.hit is hit)

child = mp.Process(target=look, args=({parameters}))
child.start()
child.join()
"""
)


@pytest.mark.parametrize("parameters", ["", "plugin, hit", "hit, plugin"])
def test_module_that_is_not_listed_is_one_with_its_functions(
    tmp_path: Path, clean_method: str, parameters: str
) -> None:
    """A module made by `ModuleType`, never put into `sys.modules`, and its functions share their globals."""
    text = UNLISTED.replace("{parameters}", parameters)

    assert Programs(tmp_path).run(text, "script import", clean_method).lines == ["6 6 True True"]


def test_object_that_is_a_global_by_its_own_word_comes_home(tmp_path: Path, clean_method: str) -> None:
    """What says that it is pickled as a global of the main module is that global in every process."""
    text = SERVING.format(
        steps="""
class Only:
    def __reduce__(self):
        return "ONLY"

ONLY = Only()
print(tell(lambda: ONLY) is ONLY)
ours.send(lambda found=ONLY: found is ONLY)
print(ours.recv())
"""
    )

    assert Programs(tmp_path).run(text, "script import", clean_method).lines == ["True", "True"]
