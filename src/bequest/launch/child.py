"""The first code that a child runs, by either start method that begins clean.

    descriptors -> message -> carry.start.open_ -> answer -> Process._bootstrap -> exit

A child whose message cannot be rebuilt says why and ends with code 1; one whose parent has gone meanwhile
(its semaphores with it) ends without a word. This module knows nothing of the parent's side.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from multiprocessing import context, process
from multiprocessing import util as _util

from bequest.launch import handoff, lean
from bequest.launch.watched import watching

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Any, NoReturn

    from typing_extensions import Buffer

util: Any = _util  # private names of it are used: the same in all versions

_FAILED = 1

# 3.13: children run `atexit`, and `_bootstrap` no longer calls `util._exit_function` itself.
FORKED_CHILDREN_RUN_ATEXIT = sys.version_info >= (3, 13)


class InheritedFd:
    """A descriptor that came through exec under the number it was given; what pickled connections hold."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def detach(self) -> int:
        """Return the descriptor, which becomes the caller's."""
        os.set_inheritable(
            self.fd, False
        )  # it had to be, to pass exec; it is not for this process's children
        return self.fd


class ReceivedFd:
    """The descriptor that came at place `index` beside a request to the template."""

    received: Sequence[int] = ()

    def __init__(self, index: int) -> None:
        self.index = index

    def detach(self) -> int:
        """Return the descriptor, which becomes the caller's."""
        return self.received[self.index]


def spawned(message: Buffer, tracker_fd: int, watch_fd: int, answer_fd: int | None) -> NoReturn:
    """Be a child in a new interpreter, to which this is imported; see `lean.spawned`. Does not return."""
    for fd in (tracker_fd, watch_fd, *(() if answer_fd is None else (answer_fd,))):
        os.set_inheritable(fd, False)
    share_tracker(tracker_fd)

    def answer(_learned: list[str]) -> None:
        if answer_fd is not None:
            _tell(answer_fd)
            os.close(answer_fd)

    code = _FAILED
    try:
        code = begin(lambda: handoff.decode(message), watch_fd, answer)
    finally:
        leave(code)


def begin(
    read: Callable[[], tuple[dict[str, Any], dict[str, Any], Any]],
    watch_fd: int,
    answer: Callable[[list[str]], None],
) -> int:
    """Rebuild the process object of a message, run it, and return its exit code.

    Args:
        read: Returns header, notes and body of the message.
        watch_fd: Becomes readable when the parent ends.
        answer: Called with the names of the modules that were imported on the way, once all is held.
    """
    try:
        process_obj, learned = _open(*read())
        answer(learned)
        if watching.watcher is not None:
            watching.watcher.begins()
    # The boundary of this process: whatever it was, it ends here, reported.
    except BaseException as error:  # noqa: BLE001
        return _report(error, error.__traceback__, watch_fd)
    return int(process_obj._bootstrap(parent_sentinel=watch_fd))


def _open(header: dict[str, Any], notes: dict[str, Any], body: Any) -> tuple[Any, list[str]]:
    _take_over_defaults(notes)
    current: Any = process.current_process()
    current._inheriting = True  # what the message imports must not start processes: the standard check
    try:
        from bequest.carry import start

        process_obj = start.open_(header, body)
        return process_obj, start.learned()
    finally:
        del current._inheriting


def _take_over_defaults(notes: dict[str, Any]) -> None:
    defaults = notes["defaults"]
    context._force_start_method(defaults["multiprocessing"] or notes["method"])
    handoff.chosen.method = defaults["bequest"] or notes["method"]


def _report(error: BaseException, trace: TracebackType | None, watch_fd: int) -> int:
    from bequest.launch.pidfd import is_ready

    if isinstance(error, SystemExit):
        return _code_of(error)
    if not is_ready(watch_fd):
        sys.excepthook(type(error), error, trace)
        util._flush_std_streams()
    return _FAILED


def _code_of(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    sys.stderr.write(f"{error.code}\n")
    return _FAILED


def _tell(fd: int) -> None:
    try:
        os.write(fd, b"A")
    except BrokenPipeError:  # the parent has gone, or has stopped listening: nobody waits for the answer
        pass


def share_tracker(fd: int | None) -> None:
    """Make the resource tracker of the parent, to which `fd` leads, that of this process; None for none."""

    def share() -> None:
        # A module that a template has imported may have made it start a tracker of its own.
        tracker: Any = sys.modules["multiprocessing.resource_tracker"]
        vars(tracker._resource_tracker).update(_fd=fd, _pid=None)

    lean.postpone("resource_tracker", share)


def leave(code: int) -> NoReturn:
    """End a spawned child as the interpreter would, less the teardown, which costs time and can only fail."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # private: joins what is not a daemon
        atexit._run_exitfuncs()
        util._flush_std_streams()
    finally:
        os._exit(code)
