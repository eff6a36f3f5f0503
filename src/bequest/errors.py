"""Every exception of bequest that a user can meet.

    BequestError
      CarryError       (also pickle.PicklingError)   in the sender: an object cannot be carried
        SharingError   (also RuntimeError)             an object that refuses to be shared in this way
      LeftBehindError                                in the child: a stand-in for such an object was used
      LostBuffersError                               in a receiver: a message came without its large data
      TemplateEndedError (also EOFError)             at a start: the template process ended before it forked
      WorkerDied                                     a worker of a pool ended while it had a task
      TaskTimeoutError (also TimeoutError)           a task had more time than it was given, and was stopped
      PoolBrokenError                                a pool gave up: none of its workers gets ready
      PoolEndedError                                 a pool was terminated before it had done a task

All constructor arguments are kept in `args`, because exceptions cross processes as `type(e)(*e.args)`.
This module imports nothing of bequest.
"""

from __future__ import annotations

from _pickle import PicklingError  # pickle itself costs a child some milliseconds


class BequestError(Exception):
    """The base of every error that bequest raises on its own behalf."""


class CarryError(BequestError, PicklingError):
    """An object that the receiver needs cannot be carried; raised in the sender, before anything is sent.

    No process has been started, nothing has been put or sent.

    Attributes:
        path: Where the object stands, in the user's own names, from the root of what was sent down to the
            object, such as `"target work -> closure packer"`.
        kind: Qualified name of the object's type.
        reason: Why it cannot be carried, as a clause without a full stop.
        remedy: What the caller can do, as an imperative without a full stop.
    """

    def __init__(self, path: str, kind: str, reason: str, remedy: str) -> None:
        super().__init__(path, kind, reason, remedy)
        self.path, self.kind, self.reason, self.remedy = path, kind, reason, remedy

    def __str__(self) -> str:
        return _told(f"cannot carry {self.kind}: {self.reason}.", self.path, self.remedy)


class SharingError(CarryError, RuntimeError):
    """A `CarryError` of an object that says itself that it cannot be shared in this way.

    The locks of multiprocessing do, with a RuntimeError, outside of a start, and where one of a fork context
    is given to a process that is not forked.
    """


class LeftBehindError(BequestError):
    """A stand-in for an object that stayed in the parent was used.

    Attributes:
        path, kind, reason, remedy: As in `CarryError`.
        use: What was attempted, such as `"attribute 'execute'"` or `"iteration"`.
    """

    def __init__(self, path: str, kind: str, reason: str, remedy: str, use: str) -> None:
        super().__init__(path, kind, reason, remedy, use)
        self.path, self.kind, self.reason, self.remedy, self.use = path, kind, reason, remedy, use

    def __str__(self) -> str:
        what = f"{self.use} of {self.kind}, which was left behind in the parent process: {self.reason}."
        return _told(what, self.path, self.remedy)


class LostBuffersError(BequestError):
    """A message has come without the descriptors of its large data, which went beside it.

    Raised where it is loaded. Only a message that was read by other means than those it was sent by (from the
    bare descriptor of a connection, say) can lose them.
    """


class TemplateEndedError(BequestError, EOFError):
    """The template process ended by itself while it was being prepared; what it said is on stderr.

    No child was started. (An `EOFError` as well, since that is what the standard fork server raises.)
    """


class WorkerDied(BequestError):
    """A worker ended while it had a task; that task, and no other, fails with this.

    What it had not begun has been given to other workers. The pool goes on, with a new worker in its place.

    Attributes:
        task: The task: its function and arguments, shortened.
        pid: The worker's process id.
        exitcode: As `Process.exitcode`: 0 or more is an exit, -n is signal n.
        how: What became of the worker, in words.
        output: The last lines that it wrote to `sys.stderr`, and the tracebacks of `faulthandler`, if any.
    """

    def __init__(self, task: str, pid: int, exitcode: int, how: str, output: str = "") -> None:
        super().__init__(task, pid, exitcode, how, output)
        self.task, self.pid, self.exitcode = task, pid, exitcode
        self.how, self.output = how, output

    def __str__(self) -> str:
        told = f"worker {self.pid} {self.how} while it had the task {self.task}"
        return f"{told}. The last that it wrote:\n{self.output.rstrip()}" if self.output else told


class TaskTimeoutError(BequestError, TimeoutError):
    """A task ran longer than it was given; it has been stopped, and its worker replaced.

    Attributes:
        task: The task: its function and arguments, shortened.
        timeout: What it was given, in seconds.
        pid: Process id of the worker that was stopped.
    """

    def __init__(self, task: str, timeout: float, pid: int) -> None:
        super().__init__()
        self.args = (task, timeout, pid)  # TimeoutError would take them for a number, a text and a file
        self.task, self.timeout, self.pid = task, timeout, pid

    def __str__(self) -> str:
        return f"the task {self.task} was stopped in worker {self.pid} after {self.timeout:g} s"


class PoolBrokenError(BequestError):
    """A pool has given up, because its workers end, one after the other, before they can take a task.

    All of its tasks fail with this, and so does every later call. Where an initializer raised, what it raised
    is the cause.
    """


class PoolEndedError(BequestError):
    """A pool was terminated before it had done this task."""


def branch(path: str) -> str:
    """Return a path as the branch of a tree, as `bequest.explain` shows it, in three lines at most.

    Args:
        path: As `CarryError.path`: "target work (job.py:12) -> closure packer['k']".
    """
    steps = path.split(" -> ")
    if len(steps) > _MOST_LINES:
        steps = [steps[0], " -> ".join(steps[1:-1]), steps[-1]]
    lines = [
        steps[0],
        *(f"{'    ' * depth}\u2514\u2500\u2500 {step}" for depth, step in enumerate(steps[1:])),
    ]
    return "\n".join(f"    {line}" for line in lines)


_MOST_LINES = 3


def _told(what: str, path: str, remedy: str) -> str:
    return f"{what}\n{branch(path)}\n  {remedy}."
