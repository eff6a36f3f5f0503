"""A started process in another process: the same class and attributes, following the same process."""

from __future__ import annotations

import os
import pickle
import signal
from multiprocessing import connection
from multiprocessing import process as plain
from typing import Any

import launch_children as children
import pytest

import bequest
from bequest.launch.foreign import ForeignPopen
from bequest.process import SpawnProcess, process_class, rebuild_process

LIMIT_S = 30.0  # reached only by a failing test, so it can be generous

# pytest's watchdog is a thread, and from 3.12 on os.fork() says so: of no account to these children.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


class Marked(SpawnProcess):
    """A process class of a user, with an attribute of its own."""

    mark = ""


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def ctx(request: pytest.FixtureRequest) -> Any:
    """A context of each start method."""
    return bequest.get_context(request.param)


def parked(ctx: Any) -> tuple[Any, Any]:
    """Return a running process and the connection that lets it go."""
    ours, theirs = ctx.Pipe()
    process = ctx.Process(target=children.tell, args=(theirs,))
    process.start()
    assert ours.poll(LIMIT_S)
    assert ours.recv() == process.pid
    return process, ours


def foreign(process: Any) -> Any:
    """Return a handle such as another process would get."""
    rebuild, (kind, pid, began, code), state = process.__reduce_ex__(2)
    assert rebuild is rebuild_process
    known = plain._children.copy()  # type: ignore[attr-defined]
    plain._children.clear()  # type: ignore[attr-defined]
    try:
        handle = rebuild(kind, pid, began, code)
    finally:
        plain._children.update(known)  # type: ignore[attr-defined]
    vars(handle).update(state)
    return handle


@pytest.mark.parametrize(
    "ctx", ["spawn", "forkserver"], indirect=True
)  # a forked child has the object itself
def test_handle_in_another_process(ctx: Any) -> None:
    """Another process sees the pid, the attributes and the life of a started process, and can end it."""
    first, _pipe = parked(ctx)
    first.mark = "mine"
    ours, theirs = ctx.Pipe()
    second = ctx.Process(target=children.tell_of_handle, args=(theirs, first))
    second.start()

    assert ours.poll(LIMIT_S)
    assert ours.recv() == ((first.pid, True, None, "mine", type(first).__name__), False, True)
    assert ours.poll(LIMIT_S)
    second.join(LIMIT_S)
    first.join(LIMIT_S)
    assert (first.exitcode, second.exitcode) == (-signal.SIGTERM, 0)


def test_handle_that_comes_home_is_the_process() -> None:
    """Unpickled by the parent of the process, a handle is the very process object."""
    process, pipe = parked(bequest.get_context("spawn"))
    assert pickle.loads(pickle.dumps(process)) is process
    pipe.send("go")
    process.join(LIMIT_S)
    assert process.exitcode == 0


def test_handle_follows_to_the_end(ctx: Any) -> None:
    """A handle is alive as long as its process, waits with a timeout, and then tells an exit code."""
    process, pipe = parked(ctx)
    handle = foreign(process)
    assert handle.is_alive()
    handle.join(0.01)
    assert handle.exitcode is None
    assert "authkey" not in process.__reduce_ex__(2)[2]["_config"]

    handle.kill()
    handle.join(LIMIT_S)

    assert not handle.is_alive()
    assert handle.exitcode in (-signal.SIGKILL, 255)
    process.join(LIMIT_S)
    assert process.exitcode == -signal.SIGKILL
    handle.close()
    pipe.close()


def test_handle_of_an_ended_process(ctx: Any) -> None:
    """A process that had ended when it was packed has its exit code everywhere."""
    process = ctx.Process(target=children.end_with, args=("exit 3",))
    process.start()
    process.join(LIMIT_S)
    handle = pickle.loads(pickle.dumps(process))
    assert (handle.pid, handle.exitcode, handle.is_alive()) == (process.pid, 3, False)
    assert connection.wait([handle.sentinel], LIMIT_S) == [handle.sentinel]
    handle.close()


@pytest.mark.parametrize("ctx", ["spawn", "forkserver"], indirect=True)
def test_forked_child_does_not_wait_for_what_it_cannot_see(ctx: Any) -> None:
    """Where there are no pidfds, a forked child that waits for a process of its parent gives up at once."""
    process, pipe = parked(ctx)
    process.kill()
    assert connection.wait([process.sentinel], LIMIT_S)
    child = os.fork()
    if child == 0:
        signal.alarm(int(LIMIT_S))  # ends it where it asks for ever
        process._popen._pidfd = None
        os._exit(process._popen.wait() is not None)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    process.join(LIMIT_S)
    process.close()
    pipe.close()


def test_reused_pid_is_not_mistaken() -> None:
    """A handle whose pid now belongs to a later process is one of an ended process, and signals nobody."""
    popen = ForeignPopen(os.getpid(), began=1, code=None)
    assert popen.poll() == 255
    popen.kill()


def test_process_not_started_is_pickled() -> None:
    """A process that has not been started can be pickled, and leaves its authentication key behind."""
    process = Marked(target=children.end_with, args=("",), name="later")
    process.mark = "mine"
    copy = pickle.loads(pickle.dumps(process))
    assert (type(copy), copy.name, copy.mark, copy.exitcode) == (Marked, "later", "mine", None)
    assert "authkey" not in copy._config
    assert process.authkey == bequest.current_process().authkey
    assert process.left_behind == ()


def test_options_make_classes_that_pickle_by_name() -> None:
    """The process class of a context with options is one class, found by its name."""
    kind = bequest.get_context("spawn", strict=True, main="never").Process
    assert kind is process_class(SpawnProcess, strict=True, main="never")
    assert pickle.loads(pickle.dumps(kind)) is kind
    assert issubclass(kind, SpawnProcess)
    assert kind.__name__.lower().startswith("spawn")
