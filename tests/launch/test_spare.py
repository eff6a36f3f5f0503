"""The child that is kept forked ahead: it serves the next start, is never stale, and is in nobody's way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import connection
from pathlib import Path
from typing import Any

import launch_children as children
import pytest

import bequest
from bequest.launch import lines
from bequest.launch.spares import SPARE_IDLE_S, Pace
from bequest.launch.template import set_forkserver_spare, templates

LIMIT_S = 30.0  # reached only by a failing test, so it can be generous

# pytest's watchdog is a thread, and from 3.12 on os.fork() says so: of no account to these children.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture
def ctx() -> Iterator[Any]:
    """The context of forkserver, with a template of its own."""
    templates.stop()
    yield bequest.get_context("forkserver")
    set_forkserver_spare(SPARE_IDLE_S)
    templates.stop()


def run(ctx: Any, target: Any, *args: object) -> Any:
    """Run a child to its end, and return the process."""
    process = ctx.Process(target=target, args=args)
    process.start()
    process.join(LIMIT_S)
    assert process.exitcode == 0
    return process


def answer_of(ctx: Any, target: Any, *args: object) -> Any:
    """Return what a child that runs `target(pipe, *args)` says."""
    ours, theirs = ctx.Pipe()
    process = ctx.Process(target=target, args=(theirs, *args))
    process.start()
    theirs.close()
    assert ours.poll(LIMIT_S), f"nothing was said for {LIMIT_S} s"
    said = ours.recv()
    process.join(LIMIT_S)
    ours.close()
    assert process.exitcode == 0
    return said


def spare_pids() -> list[int]:
    """Return the process ids of the children that wait, once they have been forked."""
    return [_pid_of(line) for line in templates.spares.lines]


def _pid_of(line: Any) -> int:
    line.ours.settimeout(LIMIT_S)
    word = line.hear()
    line.ours.settimeout(None)
    assert word[:1] == b"P"
    return int(lines.BEGUN.unpack(word)[1])


def spare_pid() -> int:
    """Return the process id of the one child that waits, once it has been forked."""
    (pid,) = spare_pids()
    return pid


def await_end(pid: int) -> None:
    """Wait until a process that is not this one's child has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert connection.wait([fd], timeout=LIMIT_S), f"{pid} still runs after {LIMIT_S} s"
    os.close(fd)


def held_by(pid: int) -> set[str]:
    """Return what the descriptors of a process lead to."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:  # closed since: one that it used for a moment
            continue
    return found


def test_serves_the_next_start(ctx: Any) -> None:
    """The child that waits becomes the next one that is started, and another one waits then."""
    run(ctx, children.end_with, "")
    waiting = spare_pid()

    assert run(ctx, children.end_with, "").pid == waiting
    assert spare_pid() != waiting


def test_killed_one_is_replaced(ctx: Any) -> None:
    """A start does without a spare that has been killed."""
    run(ctx, children.end_with, "")
    waiting = spare_pid()
    os.kill(waiting, signal.SIGKILL)
    await_end(waiting)

    assert run(ctx, children.end_with, "").pid != waiting


def test_killed_with_its_template(ctx: Any) -> None:
    """A spare leaves when its template is killed, and the next start has another template."""
    run(ctx, children.end_with, "")
    waiting = spare_pid()
    template: Any = templates._current
    os.kill(template.pid, signal.SIGKILL)
    await_end(waiting)

    assert run(ctx, children.end_with, "").pid != waiting
    assert templates._current is not template


def test_interrupt_is_not_for_it(ctx: Any) -> None:
    """^C in the terminal, which reaches all processes there, does not end the spare."""
    run(ctx, children.end_with, "")
    waiting = spare_pid()
    os.kill(waiting, signal.SIGINT)

    assert run(ctx, children.end_with, "").pid == waiting


def test_knows_what_has_been_learned_since(ctx: Any) -> None:
    """A module that the next child is to find imported is there, though a spare was forked before."""
    import launch_imported

    run(ctx, children.end_with, "")
    spare_pid()
    templates.learn([launch_imported.__name__])

    there, _, _ = answer_of(ctx, children.tell_of_module, "launch_imported")

    assert there


def test_has_the_present_state(ctx: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """What the parent changes while a spare waits holds in the child that it becomes."""
    answer_of(ctx, children.tell_of_surroundings, "LAUNCH_SPARE")  # brings in what the next one needs
    waiting = spare_pid()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAUNCH_SPARE", "seen")

    assert answer_of(ctx, children.tell_of_surroundings, "LAUNCH_SPARE") == (waiting, str(tmp_path), "seen")


def test_holds_nothing_of_others(ctx: Any) -> None:
    """A spare that waits beside a running child has none of its descriptors."""
    ours, theirs = ctx.Pipe()
    process = ctx.Process(target=children.tell, args=(theirs,))
    process.start()
    theirs.close()
    assert ours.poll(LIMIT_S)
    ours.recv()
    held = held_by(process.pid)
    waiting = spare_pid()
    run(ctx, children.end_with, "")  # so that the one looked at was forked while the first child ran
    assert spare_pid() != waiting

    waits_with = held_by(spare_pid())

    own_sockets = {name for name in held if name.startswith("socket:")}
    assert own_sockets
    assert not own_sockets & waits_with
    ours.send("go")
    process.join(LIMIT_S)
    ours.close()


def test_leaves_when_it_has_waited_long(ctx: Any) -> None:
    """A spare ends by itself after the time that was set, and a start does without it."""
    set_forkserver_spare(0.001)
    run(ctx, children.end_with, "")
    waiting = spare_pid()
    await_end(waiting)

    assert run(ctx, children.end_with, "").pid != waiting


def test_none_is_kept(ctx: Any) -> None:
    """With 0 seconds no child is forked ahead, and the one that waits leaves."""
    run(ctx, children.end_with, "")
    waiting = spare_pid()
    set_forkserver_spare(0)
    await_end(waiting)

    run(ctx, children.end_with, "")

    assert not templates.spares.lines


class OfThree(Pace):
    """The pace of a program that starts three processes at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted = 3

    def end_round(self) -> None:
        """Go on as before."""


def test_several_wait_where_several_are_wanted(ctx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many children wait as the program starts at a time, and serve its starts in order."""
    monkeypatch.setattr(templates.spares, "pace", OfThree())
    run(ctx, children.end_with, "")
    waiting = spare_pids()

    assert [run(ctx, children.end_with, "").pid for _ in waiting] == waiting
    assert spare_pids()
    assert not set(spare_pids()) & set(waiting)


def test_one_of_several_that_is_killed_is_passed_over(ctx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start takes the next child that waits where the first has been killed."""
    monkeypatch.setattr(templates.spares, "pace", OfThree())
    run(ctx, children.end_with, "")
    first, second, _ = spare_pids()
    os.kill(first, signal.SIGKILL)
    await_end(first)

    assert run(ctx, children.end_with, "").pid == second


def test_all_of_several_know_what_has_been_learned(ctx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every child that waits is replaced when the next one is to find a module imported."""
    import launch_imported

    monkeypatch.setattr(templates.spares, "pace", OfThree())
    monkeypatch.setattr(templates, "_learned", {})  # of other tests
    run(ctx, children.end_with, "")
    waiting = spare_pids()
    templates.learn([launch_imported.__name__])

    assert not set(spare_pids()) & set(waiting)
    for pid in waiting:
        await_end(pid)
    told = [answer_of(ctx, children.tell_of_module, "launch_imported") for _ in waiting]
    assert [there for there, _, _ in told] == [True] * len(waiting)


def after(*rounds: int, pause_s: float = 1.0) -> Pace:
    """Return the pace after rounds of so many starts, each 1 ms after the other, with a pause behind each."""
    pace, now_s = Pace(), 0.0
    for count in rounds:
        now_s += pause_s
        for _ in range(count):
            pace.started(now_s)
            now_s += 0.001
    pace.started(now_s + pause_s)
    return pace


@pytest.mark.parametrize(
    ("rounds", "wanted"),
    [((), 1), ((1, 1), 1), ((8,), 1), ((8, 8), 8), ((8, 3), 3), ((3, 8, 1), 1), ((99, 99), 16)],
)
def test_pace_is_what_two_rounds_have_in_common(rounds: tuple[int, ...], wanted: int) -> None:
    """As many are wanted as the last two rounds of starts had at least, up to a limit."""
    assert after(*rounds).wanted == wanted


def test_waiting_for_a_process_ends_a_round() -> None:
    """A program that waits for each process before it starts the next wants one, however fast it is."""
    pace = Pace()
    for _ in range(9):
        pace.started(0.0)
        pace.end_round()

    assert pace.wanted == 1


def test_pace_is_forgotten() -> None:
    """Where those that waited have left, the program starts from one again."""
    pace = after(8, 8)
    pace.forget()

    assert pace.wanted == 1


@pytest.mark.parametrize("idle_s", [-1, float("nan")])
def test_time_is_checked(idle_s: float) -> None:
    """A negative time, or none, is refused."""
    with pytest.raises(ValueError, match="cannot wait"):
        set_forkserver_spare(idle_s)


_PARENT = """
import os, sys
import bequest
from bequest.launch import lines
from bequest.launch.template import templates
if __name__ == "__main__":
    process = bequest.get_context("forkserver").Process(target=os.getpid)
    process.start()
    process.join()
    print(lines.BEGUN.unpack(templates.spares.lines[0].hear())[1], flush=True)
    sys.stdin.read()
"""


def test_killed_with_its_parent(tmp_path: Any) -> None:
    """A spare leaves when the program that it waits for is killed."""
    (tmp_path / "script.py").write_text(_PARENT)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        fd = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        assert connection.wait([fd], timeout=LIMIT_S)
        os.close(fd)


def test_template_keeps_nothing(ctx: Any) -> None:
    """After many starts the template has as many descriptors as before, and one child: the spare."""
    run(ctx, children.end_with, "")
    spare_pid()
    template: Any = templates._current
    before = len(held_by(template.pid))

    for _ in range(60):
        run(ctx, children.end_with, "")

    waiting = spare_pid()
    assert len(held_by(template.pid)) <= before + 1  # the last one's line may be about to be closed
    listed = Path(f"/proc/{template.pid}/task/{template.pid}/children").read_text().split()
    assert listed == [str(waiting)]
    assert templates._current is template
