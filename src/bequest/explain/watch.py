"""What a watched program does besides: it writes down its starts, one line of JSON each.

BEQUEST_WATCH=explain:FOLDER -> begin() -> FOLDER/PID.jsonl -> read by `report`
BEQUEST_WATCH=check:FOLDER   -> begin() -> the watcher of `checking`

Light, as every child of the program imports it. What it writes is read while the program runs; each line is
written at once.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from bequest.launch.watched import Watcher, watching

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

# Modules between a user's line and the start that it causes.
_MACHINERY = (
    "multiprocessing",
    "bequest",
    "concurrent",
    "threading",
    "importlib",
    "runpy",
    "weakref",
    "contextlib",
)
_OWNERS = {
    ("multiprocessing.pool", "__init__"): "Pool",  # of the standard library: a program may hold on to it
    ("multiprocessing.managers", "start"): "Manager",
    ("bequest.managers", "start"): "Manager",
    ("concurrent.futures.process", "submit"): "ProcessPoolExecutor",
    ("concurrent.futures.process", "map"): "ProcessPoolExecutor",
    ("concurrent.futures.process", "run"): "ProcessPoolExecutor",  # from its thread, for a worker more
    ("multiprocessing.pool", "_handle_workers"): "Pool",
}
_ENGINE = "bequest.pool.engine"


def begin(spec: str) -> None:
    """Watch this process, as `spec`, the value of BEQUEST_WATCH, says; a repetition does nothing."""
    if watching.watcher is not None:
        return
    what, _, folder = spec.partition(":")
    if what == "check":
        from bequest.explain.checking import CheckWatcher

        watching.watcher = CheckWatcher(Path(folder))
    else:
        watching.watcher = ExplainWatcher(Path(folder), with_trees=what == "trees")


class Place:
    """Which line of the user's caused a start or a message, and through what.

    Attributes:
        where: "app.py:31", or "" where only machinery is on the stack (a pool's own thread).
        file: Its full path.
        call: What the line called: "start", "put", "send", "submit" ...
        owner: "Process", or what started it on the user's behalf: "Pool", "ProcessPoolExecutor", "Manager".
        owner_id: Tells one such owner from another.
    """

    __slots__ = ("call", "file", "owner", "owner_id", "where")

    def __init__(self) -> None:
        self.where = self.file = self.call = ""
        self.owner, self.owner_id = "Process", 0
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            module = str(frame.f_globals.get("__name__", ""))
            owner = _OWNERS.get((module, frame.f_code.co_name))
            if owner is not None:
                self.owner = owner
                self.owner_id = _owner_id(frame)
            elif module == _ENGINE and "self" in frame.f_locals:
                engine = frame.f_locals["self"]
                self.owner, self.owner_id = engine.outcomes.face, id(engine)
            if module.partition(".")[0] not in _MACHINERY and not _is_a_childs_first(frame):
                self.file = frame.f_code.co_filename
                self.where = f"{os.path.basename(self.file)}:{frame.f_lineno}"
                return
            self.call = frame.f_code.co_name
            frame = frame.f_back


def _owner_id(frame: FrameType) -> int:
    """Return what tells a pool from another: its list of workers, which its own thread knows as well."""
    owner = frame.f_locals.get("self")
    return id(vars(owner).get("_pool", owner) if hasattr(owner, "__dict__") else frame.f_locals.get("pool"))


def _is_a_childs_first(frame: FrameType) -> bool:
    """Tell whether a frame is the text by which an interpreter of bequest's own was started."""
    return (
        frame.f_back is None
        and frame.f_code.co_filename == "<string>"
        and "--multiprocessing-fork" in sys.orig_argv
    )


class Reports:
    """Where a watched process writes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, **fields: Any) -> None:
        """Add one line; a folder that has gone, with the program that made it, is no longer written to."""
        line = json.dumps({"pid": os.getpid(), **fields}) + "\n"
        try:
            # In one go: other threads of this process write as well.
            fd = os.open(self._folder / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError:
            return
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)


class ExplainWatcher(Watcher):
    """Writes down every start, with the tree where that is asked for."""

    def __init__(self, folder: Path, *, with_trees: bool) -> None:
        self._reports, self._with_trees = Reports(folder), with_trees
        self._began: dict[int, tuple[int, Place, Any]] = {}  # by the id of the process object
        self._explained: set[tuple[str, int]] = set()  # places; one worker of a pool is like the other

    def starting(self, process_obj: Any, popen: Any) -> Any:
        """Remember when and where, and watch the pass where its tree is wanted."""
        place = Place()
        observer = None
        key = (place.where, place.owner_id)
        if self._with_trees and (place.owner == "Process" or key not in self._explained):
            from bequest.explain.observe import Observer

            self._explained.add(key)
            observer = Observer()
        self._began[id(process_obj)] = (time.monotonic_ns(), place, observer)
        return observer

    def started(self, process_obj: Any, popen: Any, parcel: Any, head_bytes: int) -> None:
        """Write the start down; a tree is built now, while the child is under way."""
        began_ns, place, observer = self._began.pop(id(process_obj))
        tree = None
        if observer is not None:
            from bequest.explain.rehearse import explain_parcel

            told = explain_parcel(parcel, popen._notes(parcel), observer, method=popen.method)
            tree = told.to_dict()
        size, left = head_bytes + len(parcel.body), parcel.left_behind
        self._write_start(place, process_obj, popen, began_ns=began_ns, bytes=size, left=left, tree=tree)

    def forked(self, process_obj: Any, popen: Any) -> None:
        """Write a start by fork down, which carries nothing."""
        self._write_start(Place(), process_obj, popen, began_ns=0, bytes=0, left=(), tree=None)

    def _write_start(self, place: Place, process_obj: Any, popen: Any, **found: Any) -> None:
        self._reports.write(
            kind="start",
            where=place.where,
            owner=place.owner,
            owner_id=place.owner_id,
            name=process_obj.name,
            method=popen.method,
            child=popen.pid,
            **found,
        )

    def begins(self) -> None:
        """Write down that the target comes next."""
        self._reports.write(kind="begins", at_ns=time.monotonic_ns())
