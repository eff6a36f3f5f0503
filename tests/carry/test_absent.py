"""Names of the main module that nothing has brought to a child are there for who looks for them by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from programs import Programs

PROGRAM = """\
import os
import pickle
import multiprocessing as mp

print("run as", __name__, flush=True)
factor = 2


class Point:
    def __init__(self, number):
        self.number = number

    def scaled(self):
        return scale(self.number)


def scale(number):
    return number * factor


def read(data, queue):
    point = pickle.loads(data)
    queue.put((point, point.scaled(), pickle.dumps(point)))


def ask(name, queue):
    import __main__

    queue.put(hasattr(__main__, name))


def main(target, given):
    context = mp.get_context(os.environ["START_METHOD"])
    queue = context.SimpleQueue()
    process = context.Process(target=target, args=(given, queue))
    process.start()
    process.join()
    print(process.exitcode)
    return None if queue.empty() else queue.get()
"""
GUARDED = PROGRAM + "\n\nif __name__ == '__main__':\n    "


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """A folder for programs."""
    return Programs(tmp_path)


@pytest.mark.parametrize("way", ["script", "script import"])
def test_pickles_by_name_are_read(programs: Programs, clean_method: str, way: str) -> None:
    """What another pickler has made by name is found; it comes home as the class that it is."""
    text = GUARDED + (
        "point, scaled, data = main(read, pickle.dumps(Point(4)))\n"
        "    print(scaled, type(point) is Point, type(pickle.loads(data)) is Point)\n"
    )

    lines = programs.run(text, way, clean_method).lines

    assert lines == ["run as __main__", "run as __mp_main__", "0", "8 True True"]


def test_what_has_come_stays(programs: Programs, clean_method: str) -> None:
    """The module's run in a child does not undo what the parent has sent."""
    text = GUARDED.replace("factor = 2", "factor, sent = 2, 'as defined'") + (
        "sent = 'changed'\n"
        "    def target(data, queue):\n"
        "        scaled = pickle.loads(data).scaled()\n"
        "        queue.put((scaled, sent))\n"
        "    print(main(target, pickle.dumps(Point(4))))\n"
    )

    assert programs.run(text, "script", clean_method).lines[-1] == "(8, 'changed')"


@pytest.mark.parametrize("name", ["absent", "absent_altogether"])
def test_names_that_it_does_not_have_do_not_run_it(programs: Programs, clean_method: str, name: str) -> None:
    """Who asks for a name that the module does not mention gets none, and nothing is run."""
    text = GUARDED + f"print(main(ask, {name!r}))\n"

    assert programs.run(text, "script", clean_method).lines == ["run as __main__", "0", "False"]


def test_unguarded_module_is_not_run(programs: Programs, clean_method: str) -> None:
    """A main module without a guard is never run in a child: its work would be done there."""
    text = PROGRAM + "\nmain(read, pickle.dumps(Point(4)))\n"

    ended = programs.run(text, "script", clean_method)

    assert ended.output.splitlines() == ["run as __main__", "1"]
    assert (
        "module '__main__' has no attribute 'Point'" in ended.errors or "Can't get attribute" in ended.errors
    )


def test_classes_derived_in_the_run_have_the_bases_that_came(programs: Programs, clean_method: str) -> None:
    """A class that only the run defines is derived from the class that has come, not from a copy."""
    text = (
        "import os\nimport pickle\nimport multiprocessing as mp\n\n\n"
        "class Base:\n    pass\n\n\nclass Derived(Base):\n    pass\n\n\n"
        "count = 0\n\n\n"
        "def work(data):\n    global count\n    count += 1\n"
        "    return isinstance(pickle.loads(data), Base), count\n\n\n"
        "if __name__ == '__main__':\n"
        "    with mp.get_context(os.environ['START_METHOD']).Pool(1) as pool:\n"
        "        for kind in (Derived, Base):\n"
        "            print(pool.apply(work, (pickle.dumps(kind()),)))\n"
    )

    assert programs.run(text, "script", clean_method).lines == ["(True, 1)", "(True, 2)"]
