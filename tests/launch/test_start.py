"""Children begin, are followed to their end whatever ends them, and leave nothing behind."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import connection
from typing import Any

import launch_children as children
import launch_opening
import pytest

import bequest
from bequest.launch import handoff, spawn
from bequest.launch.template import templates
from descriptors import open_descriptors

LIMIT_S = 30.0  # reached only by a failing test, so it can be generous

# pytest's watchdog is a thread, and from 3.12 on os.fork() says so: of no account to these children.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

Start = Callable[..., Any]


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def ctx(request: pytest.FixtureRequest) -> Any:
    """A context of each start method."""
    return bequest.get_context(request.param)


@pytest.fixture(params=["spawn", "forkserver"])
def clean_ctx(request: pytest.FixtureRequest) -> Any:
    """A context of each start method whose children are given a message."""
    return bequest.get_context(request.param)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process; at the end none may be left."""
    started: list[Any] = []

    def begin(ctx: Any, target: Callable[..., object], *args: object, **options: Any) -> Any:
        process = ctx.Process(target=target, args=args, **options)
        process.start()
        started.append(process)
        return process

    yield begin
    survivors = [process for process in started if process.exitcode is None]
    for process in survivors:
        process.kill()
        exit_code(process)
    for process in started:
        process.close()
    assert not survivors, f"the test left children running: {survivors}"


def exit_code(process: Any) -> int:
    """Return how a child exited, once it has."""
    process.join(LIMIT_S)
    assert process.exitcode is not None, f"{process} still runs after {LIMIT_S} s"
    return int(process.exitcode)


def hear(pipe: Any) -> Any:
    """Return the next thing that a child says."""
    assert pipe.poll(LIMIT_S), f"nothing was said for {LIMIT_S} s"
    return pipe.recv()


def open_fds() -> set[str]:
    """Return the numbers of this process's descriptors."""
    gc.collect()
    return set(open_descriptors())


@pytest.mark.parametrize(
    ("how", "code"), [("", 0), ("exit 3", 3), ("text", 1), ("error", 1), ("kill", -9), ("_exit 7", 7)]
)
def test_exit_code(ctx: Any, start: Start, how: str, code: int) -> None:
    """However a child ends, its exit code says so."""
    assert exit_code(start(ctx, children.end_with, how)) == code


def test_child_knows_parent(ctx: Any, start: Start) -> None:
    """A child knows its parent, sees it alive, and has its start method as its own default."""
    ours, theirs = ctx.Pipe()
    process = start(ctx, children.tell_of_parent, theirs, name="the child")

    assert hear(ours) == (os.getpid(), True, ctx.get_start_method(), "the child")
    assert exit_code(process) == 0


def test_threads_wait_for_the_same_child(ctx: Any, start: Start) -> None:
    """Each thread that has joined a child knows its exit code, whichever of them has reaped it."""

    def join_at_once(process: Any) -> None:
        barrier.wait(LIMIT_S)
        seen.append(exit_code(process))

    seen: list[int] = []
    for _ in range(20):
        process, barrier = start(ctx, children.end_with, ""), threading.Barrier(3)
        threads = [threading.Thread(target=join_at_once, args=(process,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert seen == [0] * 60


def test_sentinel_tells_the_end(ctx: Any, start: Start) -> None:
    """A sentinel is not ready while the child runs, and ready once it has been killed."""
    ours, theirs = ctx.Pipe()
    process = start(ctx, children.tell, theirs)
    assert hear(ours) == process.pid
    assert connection.wait([process.sentinel], timeout=0) == []

    process.kill()

    assert connection.wait([process.sentinel], timeout=LIMIT_S) == [process.sentinel]
    assert exit_code(process) == -signal.SIGKILL


def test_exit_code_is_known_with_the_end(clean_ctx: Any, start: Start) -> None:
    """Who has seen a sentinel ready finds the exit code, however quickly it asks."""
    codes = []
    for _ in range(20):
        process = start(clean_ctx, children.end_with, "_exit 7")
        connection.wait([process.sentinel], timeout=LIMIT_S)
        codes.append(process.exitcode)

    assert codes == [7] * 20


def test_methods_of_a_lock_are_the_locks(ctx: Any, start: Start) -> None:
    """Methods that an object has kept of a lock of multiprocessing work on that lock in a child."""
    ours, theirs = ctx.Pipe()
    lock, rlock = ctx.Lock(), ctx.RLock()

    process = start(ctx, children.use_methods, theirs, lock, rlock, (lock.acquire, rlock.release))

    assert hear(ours) == ([True, False, True], False)
    assert exit_code(process) == 0
    assert not lock.acquire(False)


def test_join_gives_up_in_time(ctx: Any, start: Start) -> None:
    """join() with a timeout returns while the child goes on."""
    ours, theirs = ctx.Pipe()
    process = start(ctx, children.tell, theirs)
    process.join(0.01)
    assert process.is_alive()
    ours.send("go")
    assert exit_code(process) == 0


def test_killed_while_it_is_rebuilt(clean_ctx: Any, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is killed before its target began is reported by its signal; start() does not raise."""
    monkeypatch.setenv("LAUNCH_OPENING", "kill")
    assert exit_code(start(clean_ctx, launch_opening.work)) == -signal.SIGKILL


@pytest.fixture
def other_thread() -> Iterator[None]:
    """Have a thread that takes signals."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    yield
    end.set()
    thread.join()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.usefixtures("other_thread")
def test_interrupted_start_leaves_no_process(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """^C right after an interpreter has been started ends that process, and is raised by start()."""
    templates.stop()
    begun: list[int] = []
    begin = spawn.util.spawnv_passfds

    def interrupted(*args: Any) -> int:
        begun.append(begin(*args))
        os.kill(os.getpid(), signal.SIGINT)
        return begun[-1]

    before = open_fds()
    handoff.tracker_fd()
    process: Any = bequest.get_context(method).Process(target=os._exit)
    monkeypatch.setattr(spawn.util, "spawnv_passfds", interrupted)

    with pytest.raises(KeyboardInterrupt):
        process.start()

    monkeypatch.undo()
    with pytest.raises(ChildProcessError):
        os.waitpid(begun[0], 0)
    assert len(begun) == 1
    assert open_fds() <= before | {str(handoff.tracker_fd())}


def test_rebuilding_fails(
    clean_ctx: Any, start: Start, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child whose message cannot be unpickled says why and ends with code 1."""
    monkeypatch.setenv("LAUNCH_OPENING", "raise")
    assert exit_code(start(clean_ctx, launch_opening.work)) == 1
    assert "ValueError: on purpose" in capfd.readouterr().err


def test_refused_start_leaves_nothing(clean_ctx: Any) -> None:
    """A start that fails while it is packed raises, and leaves neither a child nor a descriptor."""
    handoff.tracker_fd()  # once started it stays
    pipe, _other = ends = clean_ctx.Pipe()
    suspended = (number for number in range(3))
    next(suspended)
    before = open_fds()

    # Packed in this order: a descriptor is already shared when the second one is refused.
    process = clean_ctx.Process(target=children.tell_of_ends, args=(pipe, suspended))
    with pytest.raises(bequest.CarryError):
        process.start()

    assert process.pid is None
    assert process not in bequest.active_children()
    assert open_fds() == before
    for end in ends:
        end.close()


@pytest.mark.parametrize("make", ["Lock", "Event", "Queue", "SimpleQueue", "Condition"])
def test_lock_of_fork_is_refused(clean_ctx: Any, make: str) -> None:
    """What is made of locks that only a forked child can have is refused, as in multiprocessing."""
    primitive = getattr(bequest.get_context("fork"), make)()
    process = clean_ctx.Process(target=children.tell, args=(primitive,))

    with pytest.raises(RuntimeError, match="A SemLock created in a fork context"):
        process.start()


def test_primitives_outlive_the_parents_references(clean_ctx: Any, start: Start) -> None:
    """What only the child refers to is kept until the child holds it, and not longer."""
    process = start(clean_ctx, children.set_event, clean_ctx.Event(), clean_ctx.Lock())
    gc.collect()
    assert exit_code(process) == 0
    assert process._popen._keep is None


def test_big_message(clean_ctx: Any, start: Start) -> None:
    """A message larger than any buffer arrives whole, and start() need not wait for its reader."""
    assert exit_code(start(clean_ctx, children.measure, bytes(5_000_000))) == 5


def test_many_descriptors(clean_ctx: Any, start: Start) -> None:
    """More descriptors than one message takes arrive, each in its place."""
    pairs = [clean_ctx.Pipe(duplex=False) for _ in range(270)]
    ours, theirs = clean_ctx.Pipe()
    process = start(clean_ctx, children.tell_of_ends, theirs, [w for _, w in pairs])
    assert hear(ours) == len(pairs)
    assert [hear(r) for r, _ in pairs] == list(range(len(pairs)))
    assert exit_code(process) == 0
    for pair in pairs:
        for end in pair:
            end.close()


def test_child_has_no_descriptor_of_another(clean_ctx: Any, start: Start) -> None:
    """Children that are started in a row have the same number of descriptors open."""
    told, released = clean_ctx.SimpleQueue(), clean_ctx.Event()
    started = [start(clean_ctx, children.tell_of_descriptors, told, released) for _ in range(6)]
    counts = [told.get() for _ in started]
    released.set()
    told.close()

    assert len(set(counts)) == 1, counts
    assert [exit_code(process) for process in started] == [0] * len(started)


def test_redirected_output(ctx: Any, start: Start, capfd: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    """Output that was redirected after the first child had started holds in the next one."""
    exit_code(start(ctx, children.write_word, "first"))
    saved = os.dup(1)
    with open(tmp_path / "out", "wb") as file:
        os.dup2(file.fileno(), 1)
    try:
        exit_code(start(ctx, children.write_word, "second"))
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    assert (tmp_path / "out").read_text() == "out second\n"
    assert capfd.readouterr() == ("out first\n", "err first\nerr second\n")


def test_many_starts_leave_nothing(ctx: Any) -> None:
    """Starts, one after the other and several at once, leave no descriptor, no zombie and no child."""
    run_and_close(ctx, 2)  # what is started once and stays: tracker, template
    before = open_fds()
    for _ in range(3):
        run_and_close(ctx, 5)
    assert open_fds() == before
    assert bequest.active_children() == []


def run_and_close(ctx: Any, count: int) -> None:
    """Start `count` children, see them end, and close them."""
    processes = [ctx.Process(target=children.end_with, args=("",)) for _ in range(count)]
    for process in processes:
        process.start()
    assert [exit_code(process) for process in processes] == [0] * count
    assert not [process.pid for process in processes if os.path.exists(f"/proc/{process.pid}")]
    for process in processes:
        process.close()


def test_threads_start_at_once(clean_ctx: Any) -> None:
    """Several threads may start and join processes at the same time."""
    threads = [threading.Thread(target=run_and_close, args=(clean_ctx, 3)) for _ in range(4)]
    failures: list[Any] = []
    hook, threading.excepthook = threading.excepthook, failures.append
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
    finally:
        threading.excepthook = hook
    assert not failures


def test_killed_template(start: Start) -> None:
    """When the template is killed its children go on and are followed; the next start has another."""
    ctx = bequest.get_context("forkserver")
    ours, theirs = ctx.Pipe()
    process = start(ctx, children.tell, theirs)
    hear(ours)
    template: Any = templates._current

    os.kill(template.pid, signal.SIGKILL)
    os.waitid(os.P_PID, template.pid, os.WEXITED | os.WNOWAIT)
    assert connection.wait([process.sentinel], timeout=0) == []
    assert process.is_alive()
    ours.send("go")

    assert exit_code(process) in (0, 255)  # 255 where the kernel does not tell
    assert exit_code(start(ctx, children.end_with, "exit 3")) == 3
    assert templates._current is not template


def test_template_leaves_with_its_lock(start: Start) -> None:
    """stop() ends the template; the next start begins another."""
    ctx = bequest.get_context("forkserver")
    exit_code(start(ctx, children.end_with, ""))
    template: Any = templates._current
    templates.stop()
    assert not os.path.exists(f"/proc/{template.pid}")
    assert exit_code(start(ctx, children.end_with, "exit 3")) == 3


def test_killed_before_its_first_word(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child killed between the fork and its first instruction is reported by its signal."""
    ctx = bequest.get_context("forkserver")
    templates.stop()
    preload(ctx, monkeypatch, ["launch_killing"])
    try:
        process = start(ctx, children.end_with, "")
        assert process.pid is not None
        assert exit_code(process) == -signal.SIGKILL
    finally:
        templates.stop()


def test_threads_are_not_forked(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that starts threads when imported is not in the template: children import it themselves."""
    ctx = bequest.get_context("forkserver")
    templates.stop()
    preload(ctx, monkeypatch, ["launch_threaded", "launch_imported"])
    ours, theirs = ctx.Pipe()
    for name, expected in (("launch_threaded", False), ("launch_imported", True)):
        process = start(ctx, children.tell_of_module, theirs, name)
        there, imported_in, pid = hear(ours)
        assert there is expected
        assert (imported_in == pid) is not expected
        assert exit_code(process) == 0
    templates.stop()


def preload(ctx: Any, monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    """Name the modules to be preloaded, for one test."""
    from multiprocessing import forkserver

    monkeypatch.setattr(forkserver._forkserver, "_preload_modules", [])
    ctx.set_forkserver_preload(names)


def test_learned_modules(start: Start) -> None:
    """A module that a child had to import, as its parent had, is there before the next child is forked."""
    import launch_imported

    ctx = bequest.get_context("forkserver")
    templates.stop()
    templates.learn([launch_imported.__name__, "no_such_module_here"])
    ours, theirs = ctx.Pipe()
    process = start(ctx, children.tell_of_module, theirs, "launch_imported")
    there, imported_in, pid = hear(ours)
    assert there
    assert imported_in != pid
    assert exit_code(process) == 0


def test_status_taken_by_somebody_else(start: Start) -> None:
    """A spawned child whose status was taken by os.waitpid() elsewhere is seen to have ended all the same."""
    process = start(bequest.get_context("spawn"), children.end_with, "exit 3")
    os.waitpid(process.pid, 0)
    assert exit_code(process) in (3, 255)


def test_exit_callbacks_run_in_a_spawned_child(tmp_path: Any) -> None:
    """What a spawned child registered with atexit runs, and what it wrote is flushed."""
    script = (
        "import atexit, sys\n"
        "def work():\n"
        "    atexit.register(print, 'bye')\n"
        "    print('work')\n"
        "if __name__ == '__main__':\n"
        "    import bequest\n"
        "    process = bequest.get_context('spawn').Process(target=work)\n"
        "    process.start()\n"
        "    process.join()\n"
        "    sys.exit(process.exitcode)\n"
    )
    assert run_script(tmp_path, script) == (0, "work\nbye\n", "")


def run_script(tmp_path: Any, text: str, *args: str) -> tuple[int, str, str]:
    """Run a program; return its exit code and output."""
    import subprocess

    (tmp_path / "script.py").write_text(text)
    command = [sys.executable, str(tmp_path / "script.py"), *args]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    return done.returncode, done.stdout, done.stderr


def environment() -> dict[str, str]:
    """Return the environment in which a program finds what this process finds."""
    return dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))


_ASKING = """
import signal, sys
import bequest
def ask(number, frame):
    asked.append((len(bequest.active_children()), process.is_alive()))
def wait(pipe):
    pipe.poll(None)
if __name__ == "__main__":
    asked = []
    ctx = bequest.get_context(sys.argv[1])
    ours, theirs = ctx.Pipe()
    process = ctx.Process(target=wait, args=(theirs,))
    process.start()
    signal.signal(signal.SIGALRM, ask)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
    while len(asked) < 300:  # enough for several to come in the middle of a question
        process.is_alive()
    signal.setitimer(signal.ITIMER_REAL, 0)
    ours.send("end")
    process.join()
    print(set(asked))
"""


def test_signal_handler_asks_for_children(method: str, tmp_path: Any) -> None:
    """A signal handler may ask how children are, whatever the code that it interrupts asks at that moment."""
    assert run_script(tmp_path, _ASKING, method) == (0, "{(1, True)}\n", "")


_THREADED = """
import threading
import bequest
import threaded
def nothing():
    pass
def start():
    process = bequest.get_context("forkserver").Process(target=nothing)
    process.start()
    process.join()
    codes.append(process.exitcode)
codes = []
threads = [threading.Thread(target=start) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(codes)
"""


def test_first_starts_at_once_from_a_template_with_threads(tmp_path: Any) -> None:
    """A module that starts a thread when it is imported is denied once, however many starts hear of it."""
    (tmp_path / "threaded.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    assert run_script(tmp_path, _THREADED) == (0, f"{[0] * 8}\n", "")


_LIMITED = """
import resource
import bequest
def wait(event):
    event.wait()
if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, most))
    ctx = bequest.get_context("forkserver")
    event = ctx.Event()
    processes = [ctx.Process(target=wait, args=(event,)) for _ in range(50)]
    processes[0].start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for process in processes[1:]:
        process.start()
    event.set()
    for process in processes:
        process.join()
    print({process.exitcode for process in processes})
"""


def test_template_has_a_descriptor_for_every_child(tmp_path: Any) -> None:
    """The limit on descriptors that the program had at its first start is not that of its template."""
    assert run_script(tmp_path, _LIMITED) == (0, "{0}\n", "")


_WITHOUT_INIT = """
import ctypes, os, subprocess, sys
PR_SET_CHILD_SUBREAPER = 36  # sys/prctl.h; orphans become ours
ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
subprocess.run([sys.executable, *sys.argv[1:]], check=True)
while True:
    try:
        print("orphan", os.waitpid(-1, 0))
    except ChildProcessError:
        break
"""

_STARTING = """
import sys
import bequest
def work():
    print("work")
if __name__ == "__main__":
    ctx = bequest.get_context(sys.argv[1])
    lock = ctx.Lock()
    process = ctx.Process(target=work)
    process.start()
    process.join()
"""


def test_a_program_that_ends_leaves_no_orphans(method: str, tmp_path: Any) -> None:
    """Tracker and template are waited for: where nobody reaps orphans they would stay as zombies."""
    (tmp_path / "starting.py").write_text(_STARTING)
    assert run_script(tmp_path, _WITHOUT_INIT, str(tmp_path / "starting.py"), method) == (0, "work\n", "")


_ORPHANING = """
import importlib, os, sys
import bequest
from bequest.launch.template import templates
if __name__ == "__main__":
    ctx = bequest.get_context(sys.argv[1])
    os.environ["LAUNCH_OPENING"] = sys.argv[2]
    # By a name that the template does not see: it is the child that has to import it.
    process = ctx.Process(target=importlib.import_module("launch_opening").work)
    process.start()
    template = templates._current.pid if sys.argv[1] == "forkserver" else 0
    print(process.pid, template, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_killed_parent(method: str, tmp_path: Any) -> None:
    """When the parent is killed its template leaves, and a child that then fails to begin says nothing."""
    import subprocess

    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "script.py").write_text(_ORPHANING)
    command = [sys.executable, str(tmp_path / "script.py"), method, str(fifo)]
    parent = subprocess.Popen(
        command, env=environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        told = parent.stdout.readline().split()
        followed = [os.pidfd_open(int(pid)) for pid in told if pid != "0"]
        parent.kill()
        parent.wait(LIMIT_S)
        opener = threading.Thread(target=lambda: open(fifo, "wb").close(), daemon=True)
        opener.start()  # opens once the child reads; its end is the child's cue
        opener.join(LIMIT_S)
        assert not opener.is_alive(), "the child never came to its import"
        for fd in followed:
            assert connection.wait([fd], timeout=LIMIT_S), f"one of {told} is still there"
            os.close(fd)
        assert "on purpose" not in parent.stderr.read()
