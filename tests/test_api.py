"""`import bequest as mp` is multiprocessing: its names, its submodules, its classes; and light to import."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import pkgutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from queue import Full
from types import FrameType
from typing import Any

import pytest

import bequest
import bequest.dummy.connection  # noqa: F401 - what it does to multiprocessing.dummy is tested
import bequest.sharedctypes  # noqa: F401 - loading ctypes keeps a descriptor, which is no test's doing
from bequest import connection, managers, queues, reduction

# Python 3.12 and later warn of a fork while a thread runs: here faulthandler's, which watches the tests.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

LIMIT_S = 30.0  # reached only by a failing test
OWN = {
    "BequestError",
    "CarryError",
    "LeftBehindError",
    "PoolBrokenError",
    "PoolEndedError",
    "ProcessPoolExecutor",
    "TaskTimeoutError",
    "WorkerDied",
    "dumps",
    "explain",
    "loads",
    "install",
    "one_snapshot",
    "uninstall",
}
UNCHANGED = (
    "dummy",
    "forkserver",
    "heap",
    "popen_fork",
    "resource_tracker",
    "shared_memory",
    "util",
)


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request: pytest.FixtureRequest) -> Any:
    """A context of each start method."""
    return bequest.get_context(request.param)


@pytest.fixture
def pipe() -> Iterator[tuple[Any, Any]]:
    """Both ends of a pipe."""
    ends = bequest.Pipe()
    yield ends
    for end in ends:
        end.close()


def _adder(amount: int) -> Callable[[int], int]:
    return lambda number: number + amount


def _this_frame() -> FrameType:
    return sys._getframe()


def _call_and_answer(pipe: Any, queue: Any) -> None:
    function = pipe.recv()
    pipe.send(_adder(function(1)))
    queue.put(_adder(function(2)))


def _answer_calls(pipe: Any, times: int) -> None:
    for _ in range(times):
        pipe.send(pipe.recv()())


def _send_back(pipe: Any) -> None:
    pipe.send(pipe.recv())


def _run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    return done.stdout


# -- names


def test_all_is_that_of_multiprocessing_and_bequests_own() -> None:
    """No public name of multiprocessing on this Python is missing, and none is made up."""
    assert set(bequest.__all__) == set(multiprocessing.__all__) | OWN


@pytest.mark.parametrize("name", [*multiprocessing.__all__, "SUBDEBUG", "SUBWARNING"])
def test_each_name_of_multiprocessing_is_there(name: str) -> None:
    """Each public name is found, is in dir(), and is callable where multiprocessing's is."""
    value = getattr(bequest, name)

    assert callable(value) == callable(getattr(multiprocessing, name))
    assert name in dir(bequest)


def test_star_import_binds_every_name() -> None:
    """`from bequest import *` binds all that `__all__` lists."""
    namespace: dict[str, Any] = {}
    exec("from bequest import *", namespace)

    assert set(bequest.__all__) <= set(namespace)


@pytest.mark.parametrize("name", ["current_process", "parent_process", "active_children"])
def test_process_state_is_one_with_multiprocessing(name: str) -> None:
    """Functions on the state of the process are the standard library's, so that both see one state."""
    assert getattr(bequest, name) is getattr(multiprocessing, name)


@pytest.mark.parametrize("name", ["ProcessError", "BufferTooShort", "TimeoutError", "AuthenticationError"])
def test_errors_are_those_of_multiprocessing(name: str) -> None:
    """A program that catches multiprocessing's errors catches bequest's."""
    assert getattr(bequest, name) is getattr(multiprocessing, name)


def test_unknown_name_is_an_attribute_error() -> None:
    """A name that neither has is missing in the usual way."""
    with pytest.raises(AttributeError, match="module 'bequest' has no attribute 'Thread'"):
        bequest.Thread  # noqa: B018


def test_version_is_that_of_the_package() -> None:
    """`__version__` and the packaging agree."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())

    assert bequest.__version__ == project["project"]["version"]


def test_importing_bequest_loads_nothing_else() -> None:
    """A child pays for what it uses: neither multiprocessing nor typing comes with the package."""
    loaded = _run_python(
        "import sys; before = set(sys.modules); import bequest; print(*set(sys.modules) - before)"
    )

    assert loaded.split() == ["bequest"]


# -- submodules


@pytest.mark.parametrize(
    "name", [m.name for m in pkgutil.iter_modules(multiprocessing.__path__) if "win32" not in m.name]
)
def test_each_submodule_has_the_public_names_of_its_model(name: str) -> None:
    """Each module of multiprocessing has one of that name in bequest, with all that it has."""
    plain = importlib.import_module(f"multiprocessing.{name}")
    ours = importlib.import_module(f"bequest.{name}")

    assert [attribute for attribute in dir(plain) if not hasattr(ours, attribute)] == []


@pytest.mark.parametrize("name", UNCHANGED)
def test_unchanged_submodule_is_the_very_module(name: str) -> None:
    """What is patched in the one is patched in the other."""
    ours = importlib.import_module(f"bequest.{name}")

    assert ours is importlib.import_module(f"multiprocessing.{name}")
    assert getattr(bequest, name) is ours


def test_submodule_of_dummy_is_loaded_once() -> None:
    """multiprocessing.dummy keeps its own connection module."""
    assert sys.modules["bequest.dummy.connection"] is sys.modules["multiprocessing.dummy.connection"]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (connection, "Connection"),
        (connection, "Listener"),
        (queues, "Queue"),
        (queues, "JoinableQueue"),
        (queues, "SimpleQueue"),
        (managers, "BaseManager"),
        (managers, "SyncManager"),
        (managers, "BaseProxy"),
        (managers, "DictProxy"),
        (managers, "PoolProxy"),
        (reduction, "ForkingPickler"),
    ],
)
def test_changed_class_is_a_subclass_that_pickles_by_its_name(module: Any, name: str) -> None:
    """isinstance with the standard library's class holds, and the class itself can be named."""
    ours = getattr(module, name)
    plain = getattr(importlib.import_module(f"multiprocessing.{module.__name__.partition('.')[2]}"), name)

    assert issubclass(ours, plain)
    assert ours is not plain
    assert ours.__module__ == module.__name__


def test_multiprocessing_itself_is_left_alone() -> None:
    """Using bequest changes no attribute of the standard library's modules."""
    changed = _run_python(
        "import multiprocessing.connection, multiprocessing.managers, multiprocessing.queues as queues, sys\n"
        "plain = [m for n, m in sys.modules.items() if n.startswith('multiprocessing')]\n"
        "look = lambda: {(m.__name__, n): v for m in [*plain, queues.Queue] for n, v in vars(m).items()}\n"
        "before = look()\n"
        "import bequest.managers, bequest.pool, bequest.sharedctypes, bequest.queues\n"
        "bequest.Queue(), bequest.Pipe()\n"
        "print(*[k for k, v in look().items() if k in before and before[k] is not v])\n"
    )

    assert changed.split() == []


# -- what crosses


def test_pipe_carries_closures(pipe: tuple[Any, Any]) -> None:
    """Connection.send takes what bequest carries."""
    pipe[0].send(_adder(2))

    assert pipe[1].recv()(3) == 5


def test_listener_and_client_carry_closures() -> None:
    """Both ends of a Listener are bequest's connections."""
    with (
        connection.Listener() as listener,
        connection.Client(listener.address) as client,
        listener.accept() as end,
    ):
        client.send(_adder(1))
        end.send(end.recv()(1))

        assert client.recv() == 2


def test_message_of_plain_values_loads_nothing_of_the_carrying_side() -> None:
    """A child that answers with numbers does not load the pickler for functions."""
    loaded = _run_python(
        "import bequest, sys; a, b = bequest.Pipe(); a.send((1, 'a', {b'k': [2.5, None]})); b.recv()\n"
        "print('bequest.carry.pickler' in sys.modules)"
    )

    assert loaded.strip() == "False"


def test_process_answers_by_pipe_and_queue(context: Any, pipe: tuple[Any, Any]) -> None:
    """Pipes and queues are inherited by a child, and carry closures both ways."""
    queue = context.Queue()
    process = context.Process(target=_call_and_answer, args=(pipe[1], queue))
    process.start()
    pipe[0].send(_adder(10))

    assert pipe[0].poll(LIMIT_S)
    assert pipe[0].recv()(0) == 11
    assert queue.get(timeout=LIMIT_S)(0) == 12
    process.join(LIMIT_S)
    assert process.exitcode == 0


def test_manager_keeps_closures(context: Any) -> None:
    """A referent holds a closure, and a proxy's class is bequest's."""
    with context.Manager() as manager:
        shared = manager.dict(one=_adder(1))

        assert isinstance(shared, managers.DictProxy)
        assert shared["one"](1) == 2


def test_executor_on_a_context_takes_closures(context: Any) -> None:
    """concurrent.futures, not installed, carries what the context that it was given carries."""
    amount = 3
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        result = executor.submit(lambda: _adder(amount)).result(LIMIT_S)

    assert result(4) == 7


def test_forked_child_rebuilds_what_it_is_sent(pipe: tuple[Any, Any]) -> None:
    """A function or class that its parent has made since the fork is whole."""
    ours, theirs = pipe
    bequest.dumps(lambda: None)  # from here on this process has given names to what it sent
    process = bequest.get_context("fork").Process(target=_answer_calls, args=(theirs, 2))
    process.start()

    class Local:
        def double(self, number: int = 2) -> int:
            return number * 2

    ours.send(lambda number=4: number * 2)
    assert ours.recv() == 8
    ours.send(lambda: Local().double())
    assert ours.recv() == 4
    process.join(LIMIT_S)


def test_what_comes_home_after_it_was_dropped_is_whole(context: Any, pipe: tuple[Any, Any]) -> None:
    """A function that a process has sent and forgotten is rebuilt there with all that it had."""
    ours, theirs = pipe
    process = context.Process(target=_send_back, args=(theirs,))
    process.start()
    ours.send(lambda number=4: number * 2)
    gc.collect()

    assert ours.recv()() == 8
    process.join(LIMIT_S)


# -- queues


@pytest.mark.parametrize("make", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_what_cannot_be_carried_is_refused_by_put(context: Any, make: str) -> None:
    """The caller of put() hears of it, and the queue goes on."""
    queue = getattr(context, make)()
    with pytest.raises(bequest.CarryError):
        queue.put(_this_frame())
    queue.put("next")

    assert queue.get() == "next"
    queue.close()


def test_put_takes_a_snapshot() -> None:
    """A change after put() is not in the item."""
    queue: Any = bequest.Queue()
    items = [1]
    queue.put(items)
    items.append(2)

    assert queue.get(timeout=LIMIT_S) == [1]
    queue.close()


def test_error_of_the_users_own_code_is_reported_by_the_thread(capfd: pytest.CaptureFixture[str]) -> None:
    """As in multiprocessing: the feeder thread prints it, and the queue goes on."""

    class Broken:
        def __reduce__(self) -> str:
            raise AttributeError("of the user")

    queue: Any = bequest.Queue(1)
    queue.put(Broken())
    queue.put(True, timeout=LIMIT_S)

    assert queue.get(timeout=LIMIT_S)
    assert "of the user" in capfd.readouterr().err
    queue.close()


def test_full_queue_refuses_before_it_pickles() -> None:
    """put_nowait on a full queue does no work."""
    queue: Any = bequest.Queue(1)
    queue.put(1)

    class Counted:
        reduced = 0

        def __reduce__(self) -> tuple[Any, ...]:
            Counted.reduced += 1
            return int, ()

    with pytest.raises(Full):
        queue.put_nowait(Counted())

    assert Counted.reduced == 0
    queue.get(timeout=LIMIT_S)
    queue.close()


@pytest.mark.parametrize("make", ["Queue", "JoinableQueue"])
def test_queue_closed_unused_gives_its_descriptors_back(make: str) -> None:
    """Both ends of the pipe are closed, and the queue still answers empty()."""
    queue = getattr(bequest, make)()
    ends = (queue._reader, queue._writer)
    queue.close()
    queue.join_thread()

    assert all(end.closed for end in ends)
    assert queue.empty()
    with pytest.raises(ValueError, match="is closed"):
        queue.put(1)


# -- the pickler, and shared memory


def test_registrations_are_shared_with_multiprocessing() -> None:
    """A reducer that is registered through either pickler counts for both."""

    class Odd:
        pass

    reduction.register(Odd, lambda odd: (int, ()))
    try:
        plain = multiprocessing.reduction.ForkingPickler
        assert plain.loads(plain.dumps(Odd())) == 0
        assert bequest.loads(bequest.dumps([Odd()])) == [0]
    finally:
        del reduction.ForkingPickler._extra_reducers[Odd]  # type: ignore[attr-defined]


def test_pickler_writes_to_a_file(tmp_path: Path) -> None:
    """`ForkingPickler(file, protocol).dump(obj)` is one pickle in the file."""
    path = tmp_path / "pickle"
    with path.open("wb") as file:
        reduction.ForkingPickler(file, 5).dump(_adder(1))

    assert bequest.loads(path.read_bytes())(1) == 2


def test_value_without_a_context_has_a_lock_of_bequests() -> None:
    """The lock of a Value made without a context can be given to a child of bequest's default method."""
    told = _run_python(
        "import bequest.sharedctypes, multiprocessing.sharedctypes as plain\n"
        "value = bequest.sharedctypes.Value('i', 4)\n"
        "print(isinstance(value, plain.Synchronized), value.get_lock()._is_fork_ctx)\n"
    )

    assert told.split() == ["True", "False"]
