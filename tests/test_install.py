"""`bequest.install()` reaches all of multiprocessing and concurrent.futures, and `uninstall()` undoes it."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import queues
from typing import Any

import pytest

import bequest
from bequest import putting, reduction
from bequest.install import installed_options, is_installed

# Python 3.12 and later warn of a fork while a thread runs: here faulthandler's, which watches the tests.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

LIMIT_S = 30.0  # reached only by a failing test
METHODS = ("fork", "spawn", "forkserver")

# Objects that installing may change, as {(owner, name): value}.
LOOK = """
def look():
    owners = [m for n, m in sys.modules.items() if n.startswith("multiprocessing")]
    owners += [context.DefaultContext, context.ForkProcess, context.SpawnProcess, context.ForkServerProcess]
    owners += [multiprocessing.process.BaseProcess, multiprocessing.reduction.AbstractReducer]
    if "multiprocessing.queues" in sys.modules:
        owners += [multiprocessing.queues.Queue, multiprocessing.queues.JoinableQueue]
    found = {(owner.__name__, name): value for owner in owners for name, value in vars(owner).items()}
    found |= {("contexts", name): value for name, value in context._concrete_contexts.items()}
    return found | {("default", name): value for name, value in vars(context._default_context).items()}
"""


class EarlyProcess(multiprocessing.get_context("spawn").Process):  # type: ignore[misc]
    """Derived from multiprocessing's class before anything is installed."""


@pytest.fixture
def installed() -> Iterator[None]:
    """Bequest, installed in this process for one test."""
    bequest.install()
    yield
    bequest.uninstall()


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    """Each start method."""
    return str(request.param)


def _answer(value: int) -> Callable[[Any], None]:
    return lambda queue: queue.put(lambda: value)


def _tell_whether_installed(queue: Any, generations: int) -> None:
    queue.put(is_installed())
    if generations:
        process = multiprocessing.Process(target=_tell_whether_installed, args=(queue, generations - 1))
        process.start()
        process.join()


def _run_python(code: str) -> list[str]:
    return _run_plain_python(
        f"import multiprocessing, bequest.contexts\nfrom multiprocessing import context\n{LOOK}\n{code}"
    )


def _run_plain_python(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}"],
        capture_output=True, text=True, timeout=LIMIT_S, check=True,
    )  # fmt: skip
    return done.stdout.split()


# -- what is put in, and out again


@pytest.mark.parametrize("before", ["", "import multiprocessing.queues", "import multiprocessing.managers"])
@pytest.mark.parametrize("after", ["", "import multiprocessing.sharedctypes, multiprocessing.queues"])
def test_uninstall_restores_every_object(before: str, after: str) -> None:
    """Each attribute is the object that it was, and modules loaded meanwhile are the standard library's."""
    changed = _run_python(
        f"{before}\nbefore = look()\nbequest.install()\nduring = look()\n{after}\nbequest.uninstall()\n"
        "after = look()\n"
        "assert any(during[key] is not value for key, value in before.items())\n"
        "print(*[key for key, value in before.items() if after[key] is not value])\n"
        "foreign = lambda value: 'bequest' in str(getattr(value, '__module__', ''))\n"
        "print(*[key for key, value in after.items() if foreign(value) and key not in before])\n"
    )

    assert changed == []


def test_installing_twice_is_installing_once() -> None:
    """The second call changes nothing, and one uninstall is enough."""
    changed = _run_python(
        "before = look()\nbequest.install()\nfirst = look()\nbequest.install()\nsecond = look()\n"
        "bequest.uninstall()\nafter = look()\nbequest.uninstall()\n"
        "print(*[key for key, value in first.items() if second[key] is not value])\n"
        "print(*[key for key, value in before.items() if after[key] is not value])\n"
    )

    assert changed == []


def test_looking_for_queues_changes_nothing() -> None:
    """Asking where multiprocessing.queues is does not keep bequest out of it when it is imported."""
    output = _run_python(
        "import importlib.util\nbequest.install()\nimportlib.util.find_spec('multiprocessing.queues')\n"
        "multiprocessing.SimpleQueue()\nprint(sys.modules['multiprocessing.queues']._ForkingPickler.__module__)\n"
    )

    assert output == ["bequest.putting"]


def test_uninstall_alone_does_nothing() -> None:
    """There is nothing to undo."""
    bequest.uninstall()

    assert not is_installed()
    assert installed_options() == {}


def test_installing_loads_no_more_of_multiprocessing() -> None:
    """Pipes, queues and the carrying side are loaded when they are used."""
    loaded = _run_python(
        "bequest.install()\n"
        "late = {'multiprocessing.connection', 'multiprocessing.queues', 'bequest.carry.pickler'}\n"
        "print(*late & set(sys.modules))"
    )

    assert loaded == []


def test_modules_that_are_imported_later_are_changed() -> None:
    """Modules are changed at their import, once, and keep their own loader; then nobody watches any more."""
    told = _run_python(
        "bequest.install()\n"
        "finders = len(sys.meta_path)\n"
        "import multiprocessing.queues as queues, multiprocessing.synchronize\n"
        "import multiprocessing.resource_tracker\n"
        "import multiprocessing.pool, multiprocessing.managers, concurrent.futures.process as process\n"
        "print(queues._ForkingPickler.__name__, finders - len(sys.meta_path))\n"
        "print(multiprocessing.pool.Pool.__module__, process.ProcessPoolExecutor.__module__)\n"
        "print(type(queues.__loader__).__name__, queues.__spec__.loader is queues.__loader__)\n"
        "print(multiprocessing.connection.Connection.send.__module__)\n"
    )

    assert told == [
        *("QueuePickler", "1", "bequest.pool.pool", "bequest.pool.executor"),
        *("SourceFileLoader", "True", "bequest.passing"),
    ]


@pytest.mark.parametrize("install", ["bequest.install()", "import bequest.startup.sitecustomize"])
def test_finders_of_others_are_left_in_peace(install: str) -> None:
    """A program's own finders may hold bequest's, and may be older than `find_spec`."""
    told = _run_plain_python(
        "import os\nos.environ['BEQUEST_RUN'] = ':'\n"
        f"import bequest\n{install}\n"
        "class Holding:\n"
        "    def __init__(self, held): self.held = held\n"
        "    def find_spec(self, *what):\n"
        "        return next(filter(None, (one.find_spec(*what) for one in self.held)), None)\n"
        "class Old:\n"
        "    def find_module(self, *what): return None\n"
        "sys.meta_path[:] = [Holding(list(sys.meta_path)), Old(), *sys.meta_path[1:]]\n"
        "import multiprocessing\n"
        "print(type(multiprocessing.get_context()).__module__)"
    )

    assert told == ["bequest.contexts"]


def test_program_without_multiprocessing_does_not_load_it() -> None:
    """Installing costs a program that never imports multiprocessing three small modules."""
    loaded = _run_plain_python(
        "before = set(sys.modules)\nimport bequest\nbequest.install()\nprint(*set(sys.modules) - before)"
    )

    assert set(loaded) <= {"__future__", "bequest", "bequest.install", "bequest.imports"}


@pytest.mark.parametrize("how", ["import multiprocessing", "from multiprocessing.pool import Pool"])
def test_installed_before_multiprocessing_is_imported(how: str) -> None:
    """Whatever of multiprocessing the program imports first finds bequest installed."""
    told = _run_plain_python(
        "import bequest\nbequest.install()\n"
        f"{how}\n"
        "context = sys.modules['multiprocessing'].get_context()\n"
        "print(type(context).__module__, bequest.install.is_installed())\n"
        "bequest.uninstall()\n"
        "context = sys.modules['multiprocessing'].get_context()\n"
        "print(type(context).__module__, bequest.install.is_installed())\n"
    )

    assert told == ["bequest.contexts", "True", "multiprocessing.context", "False"]


def test_installed_before_the_executor_is_imported() -> None:
    """Who imports concurrent.futures alone, which imports multiprocessing, finds bequest's executor."""
    told = _run_plain_python(
        "import bequest\nbequest.install()\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "print(ProcessPoolExecutor.__module__)\n"
        "bequest.uninstall()\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "print(ProcessPoolExecutor.__module__)\n"
    )

    assert told == ["bequest.pool.executor", "concurrent.futures.process"]


def test_uninstall_before_multiprocessing_is_imported() -> None:
    """Nothing waits for multiprocessing any more."""
    told = _run_plain_python(
        "import bequest\nfinders = list(sys.meta_path)\nbequest.install()\nbequest.uninstall()\n"
        "print(finders == sys.meta_path)\n"
        "import multiprocessing\n"
        "print(type(multiprocessing.get_context()).__module__, 'bequest.contexts' in sys.modules)"
    )

    assert told == ["True", "multiprocessing.context", "False"]


def test_picklers_are_bequests(installed: None) -> None:
    """Every place that holds the pickler holds bequest's."""
    plain: Any = multiprocessing.reduction

    assert plain.ForkingPickler is plain.AbstractReducer.ForkingPickler is reduction.ForkingPickler
    assert queues._ForkingPickler is putting.QueuePickler  # type: ignore[attr-defined]


def test_options_are_told() -> None:
    """What a child has to install with is what install was called with."""
    bequest.install(start_method="spawn", strict=True)
    try:
        assert installed_options() == {"start_method": "spawn", "strict": True}
    finally:
        bequest.uninstall()


# -- start methods


def test_default_start_method_is_bequests() -> None:
    """Where the program chooses none, it is that of `import bequest`."""
    told = _run_python(
        "bequest.install()\nprint(multiprocessing.get_start_method(), bequest.get_start_method())"
    )

    assert told[0] == told[1]


@pytest.mark.parametrize("order", ["before", "after"])
def test_program_keeps_its_start_method(order: str, method: str) -> None:
    """A choice of the program holds, made before or after; and past uninstall(), but for the default."""
    calls = ["multiprocessing.set_start_method(METHOD)", "bequest.install()"]
    told = _run_python(
        f"METHOD = {method!r}\n"
        + "\n".join(calls if order == "before" else calls[::-1])
        + "\nprint(multiprocessing.get_start_method(), type(multiprocessing.get_context()).__module__)\n"
        "bequest.uninstall()\n"
        "print(multiprocessing.get_start_method(), type(multiprocessing.get_context()).__module__)\n"
    )

    assert told[:2] == [method, "bequest.contexts"]
    assert told[3] == "multiprocessing.context"
    assert told[2] == method or (order, method) == ("after", bequest.get_start_method())


def test_given_start_method_wins(method: str) -> None:
    """With start_method=, the program's calls of set_start_method are accepted, and have no effect."""
    other = "spawn" if method == "fork" else "fork"
    told = _run_python(
        f"bequest.install(start_method={method!r})\n"
        f"multiprocessing.set_start_method({other!r})\n"
        f"multiprocessing.set_start_method({other!r}, force=True)\n"
        "print(multiprocessing.get_start_method())\n"
        f"print(multiprocessing.get_context({other!r}).get_start_method())\n"
    )

    assert told == [method, other]


def test_unknown_start_method_is_refused() -> None:
    """An error, and nothing is installed."""
    with pytest.raises(ValueError, match="warp"):
        bequest.install(start_method="warp")

    assert not is_installed()


# -- what then works


def test_processes_and_queues_of_multiprocessing_carry_closures(installed: None, method: str) -> None:
    """A lambda for a target, and one in the queue."""
    plain = multiprocessing.get_context(method)
    queue = plain.Queue()
    process = plain.Process(target=_answer(7), args=(queue,))  # type: ignore[attr-defined]
    process.start()

    assert queue.get(timeout=LIMIT_S)() == 7
    process.join(LIMIT_S)
    assert process.exitcode == 0


def test_classes_and_contexts_from_before_are_reached() -> None:
    """A class derived, and a context taken, before install()."""
    early: Any = multiprocessing.get_context("spawn")
    queue = early.SimpleQueue()
    bequest.install()
    try:
        processes = [
            EarlyProcess(target=_answer(1), args=(queue,)),
            early.Process(target=_answer(2), args=(queue,)),
        ]
        for process in processes:
            process.start()

        assert {queue.get()(), queue.get()()} == {1, 2}
        for process in processes:
            process.join(LIMIT_S)
    finally:
        bequest.uninstall()


def test_executor_takes_closures(installed: None, method: str) -> None:
    """concurrent.futures, on multiprocessing's contexts."""
    amount = 5
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as executor:
        assert executor.submit(lambda: amount).result(LIMIT_S) == 5


def test_put_refuses_what_cannot_be_carried(installed: None) -> None:
    """multiprocessing's own queue raises in the caller."""
    queue: Any = multiprocessing.Queue()
    with pytest.raises(bequest.CarryError):
        queue.put(sys._getframe())
    queue.close()


def test_children_and_grandchildren_are_installed(installed: None, method: str) -> None:
    """The installation goes down the tree of processes, whatever its start method."""
    plain = multiprocessing.get_context(method)
    queue = plain.Queue()
    process = plain.Process(target=_tell_whether_installed, args=(queue, 1))  # type: ignore[attr-defined]
    process.start()

    assert [queue.get(timeout=LIMIT_S) for _ in range(2)] == [True, True]
    process.join(LIMIT_S)
