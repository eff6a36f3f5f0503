"""The watcher of `bequest check`: at each start and message, what would plain Python have done?

starting: pickled as plain Python would      started: rebuilt by a probe, and compared      sends: the same

It writes down what would fail, and what a child would find otherwise than here; `verdicts` reads it.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import process
from multiprocessing import util as _util
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

from bequest.carry import instances, modules, pickler
from bequest.explain import fingerprint, plain, probe
from bequest.explain.observe import Observer
from bequest.explain.relevance import ambient_matters
from bequest.explain.semaphores import Semaphores
from bequest.explain.wanted import modules_touched, names_wanted
from bequest.explain.watch import Place, Reports
from bequest.launch.watched import Watcher

_PATIENCE_S = 20.0  # a main module that takes longer to import again is taken to have no end
_HOME = str(Path(__file__).resolve().parents[2])


class CheckWatcher(Watcher):
    """Writes down what would become of every start and message; see the module's docstring."""

    def __init__(self, folder: Path) -> None:
        self._reports = Reports(folder)
        self._probe = _Probe()
        self._began: dict[int, _Began] = {}
        self._told: set[tuple[str, str]] = set()
        self._looked_at: set[frozenset[str]] = set()  # what messages name
        self._busy = threading.local()
        # Of pools, by pid: name, what follows it, and its pool. The pool itself drops one that has ended.
        self._workers: dict[int, tuple[str, Any, int]] = {}
        self._semaphores = Semaphores(self._reports)
        self._is_child = process.parent_process() is not None

    def starting(self, process_obj: Any, popen: Any) -> Any:
        """Pickle the process as plain Python would, and note what it is given."""
        place = Place()
        self._look_for_dead_workers(place)
        pickled = plain.dumps(process_obj, starting=True)
        began = self._began[id(process_obj)] = _Began(place, pickled.data)
        if pickled.failure is None:
            began.given = probe.given_fingerprints(process_obj)
        else:
            self._write(place, process_obj.name, [_failure(pickled.failure)])
        observer = began.observer = _CheckObserver()
        return observer

    def packed(self, process_obj: Any, popen: Any, parcel: Any) -> None:
        """Have the probe rebuild the process, and compare what it finds with what is here.

        Before the child begins, so that it has no longer than usual until it holds what it was given.
        """
        began = self._began[id(process_obj)]
        if began.data is None:
            return
        wanted = names_wanted(began.observer)
        answer = self._probe.ask("start", began.data, process_obj.name, wanted)
        began.findings += compare(answer, began.given, wanted, modules_touched(began.observer))
        began.findings += _lost_identity(began.observer, wanted)
        semaphores = [self._semaphores.watch(each) for each in began.observer.semaphores]
        began.semaphores = [name for name in semaphores if name is not None]
        began.observer.forget()

    def started(self, process_obj: Any, popen: Any, parcel: Any, head_bytes: int) -> None:
        """Write down what was found."""
        began = self._began.pop(id(process_obj))
        if began.place.owner == "Pool":
            self._workers[popen.pid] = process_obj.name, popen, began.place.owner_id
        if began.data is None:  # that was written at once: bequest may have refused the start as well
            return
        self._write(
            began.place, process_obj.name, began.findings, child=popen.pid, semaphores=began.semaphores
        )

    def begins(self) -> None:
        """Write down that this child has all that it was given."""
        self._reports.write(kind="begins", at_ns=time.monotonic_ns())

    def sends(self, obj: Any) -> None:
        """Pickle a message as plain Python would, and see what a child makes of the code that it names."""
        if getattr(self._busy, "sending", False):  # what a user's `__reduce__` sends in turn
            return
        self._busy.sending = True
        try:
            findings = self._findings_of(obj)
            place = Place()
            for finding in findings or [{}]:
                key = (place.where, finding.get("path", "") + finding.get("error", ""))
                if key not in self._told:
                    self._told.add(key)
                    self._write(place, "", [finding] if finding else [])
        finally:
            self._busy.sending = False

    def _findings_of(self, obj: Any) -> list[dict[str, str]]:
        pickled = plain.dumps(obj, starting=False)
        if pickled.data is not None and (not pickled.named or frozenset(pickled.named) in self._looked_at):
            return []
        observer, first_gift = Observer(), pickler.count_gifts()
        try:
            packed = pickler.pack(obj, observer=observer)
        except Exception:  # noqa: BLE001 - it is refused here as well: plain Python does no worse
            return []
        pickler.give_up_descriptors(packed.shared, first_gift)
        if pickled.failure is not None:
            return [_failure(pickled.failure)]
        self._looked_at.add(frozenset(pickled.named))
        # What a child sends goes to its parent, mostly, which has everything.
        wanted = {} if self._is_child else names_wanted(observer)
        if b"__main__" not in (pickled.data or b"") and not wanted:
            return []
        answer = self._probe.ask("message", pickled.data, wanted)
        return list(compare(answer, {}, wanted, None))

    def _look_for_dead_workers(self, place: Place) -> None:
        """See whether a worker of a pool was killed, now that the same pool starts another in its place."""
        for pid, (name, popen, owner_id) in list(self._workers.items()):
            if place.owner != "Pool" or owner_id != place.owner_id:
                continue
            code = popen.poll()
            if code is not None:
                del self._workers[pid]
            if code:
                error = f"a worker ended with {code}: multiprocessing.Pool never answers the task that it had"
                self._write(place, name, [_finding("fails", "a pool", error)])

    def _write(self, place: Place, name: str, findings: list[dict[str, str]], **more: Any) -> None:
        self._reports.write(
            kind="start" if name else "message",
            where=place.where,
            call=place.call,
            owner=place.owner,
            name=name,
            findings=findings,
            **more,
        )


class _CheckObserver(Observer):
    """Does not keep semaphores alive, as plain Python does not; they are watched instead.

    Attributes:
        semaphores: Those that it let go.
    """

    def __init__(self) -> None:
        super().__init__()
        self.semaphores: list[Any] = []

    def lets_go(self, obj: Any) -> bool:
        """Let semaphores go."""
        if not any(base.__qualname__ == "SemLock" for base in type(obj).__mro__):
            return False
        self.semaphores.append(obj)
        return True

    def forget(self) -> None:
        """Let go of the objects."""
        super().forget()
        self.semaphores = []


def _lost_identity(observer: Observer, wanted: dict[str, list[str]]) -> Iterator[dict[str, str]]:
    """Yield the objects that are handed over by value and are globals which the code reads as well."""
    given = {id(obj): obj for obj in observer.objects.values() if modules.is_users_class(type(obj))}
    given |= {id(obj): obj for obj in observer.objects.values() if type(obj) is object}
    for home, names in wanted.items():
        space = vars(sys.modules[home]) if home in sys.modules else {}
        for name in names:
            value = space.get(name)
            if id(value) in given and not isinstance(value, type | FunctionType | ModuleType):
                observed = any(node is value for node in _held(observer.root))
                if observed:
                    yield _finding(
                        "differs", f"{home}.{name}", "", "is what an argument is", "is another object"
                    )


def _held(root: Any) -> Iterator[Any]:
    """Yield what a process object is given, and what lists, tuples and dicts among that hold."""
    state = vars(root) if hasattr(root, "__dict__") else {}
    waiting = [state.get("_target"), *(state.get("_args") or ()), *(state.get("_kwargs") or {}).values()]
    seen: set[int] = set()
    while waiting:
        obj = waiting.pop()
        if id(obj) in seen:
            continue
        seen.add(id(obj))
        yield obj
        if isinstance(obj, list | tuple | set | frozenset):
            waiting += obj
        elif isinstance(obj, dict):
            waiting += obj.values()
        elif isinstance(obj, MethodType):
            waiting.append(obj.__self__)
        elif modules.is_users_class(type(obj)) and not isinstance(obj, type):
            waiting += (instances.instance_dict(obj) or {}).values()


class _Began:
    """What is known of a start before it is made.

    Attributes:
        place: Where it is made.
        data: The plain pickle, or None.
        given: Fingerprints of what the process object holds.
        observer: What watches its packing, until that has been looked at.
        findings: What would go otherwise.
        semaphores: Names of those that it hands over.
    """

    def __init__(self, place: Place, data: bytes | None) -> None:
        self.place, self.data = place, data
        self.given: dict[str, str] = {}
        self.observer: Any = None
        self.findings: list[dict[str, str]] = []
        self.semaphores: list[str] = []


def _failure(failure: plain.Failure) -> dict[str, str]:
    return _finding("fails", failure.path, failure.error)


def _finding(what: str, path: str, error: str, here: str = "", there: str = "") -> dict[str, str]:
    return {"what": what, "path": path, "error": error, "here": here, "there": there}


def compare(
    answer: dict[str, Any], given: dict[str, str], wanted: dict[str, list[str]], touched: set[str] | None
) -> Iterator[dict[str, str]]:
    """Yield what a child of plain Python would fail at, or find otherwise.

    Args:
        answer: The probe's.
        given: Fingerprints of what the process object holds, here.
        wanted: Names whose values matter; see `wanted`.
        touched: Modules that the code touches; None where ambient state is not compared.
    """
    if "error" in answer:
        yield _finding("fails in the child", answer.get("at", ""), answer["error"])
        return
    if answer["printed"].strip():
        text = answer["printed"].strip().partition("\n")[0]
        yield _finding(
            "differs", "what modules print when they are imported", "", "nothing", f"{text!r} again"
        )
    for callback in answer.get("at_exit", ()):
        yield _finding("differs", "what runs at exit", "", "once, here", f"{callback} in each child as well")
    for name, here in given.items():
        there = answer["given"].get(name, fingerprint.MISSING)
        if not fingerprint.is_same(here, there):
            yield _differs(name, here, there)
    yield from _compare_globals(answer["globals"], fingerprint.globals_of(wanted, os.getpid()))
    if touched is not None:
        yield from _compare_ambient(answer["ambient"], fingerprint.ambient(os.getpid()), touched)


def _compare_globals(
    there_all: dict[str, dict[str, str]], here_all: dict[str, dict[str, str]]
) -> Iterator[dict[str, str]]:
    for home, names in there_all.items():
        for name, there in names.items():
            here = here_all.get(home, {}).get(name, fingerprint.MISSING)
            if fingerprint.is_same(here, there):
                continue
            path = f"{home.replace(':', '.')}.{name}"
            if there == fingerprint.MISSING:
                error = f"no attribute {name!r}" if ":" in home else f"name {name!r} is not defined"
                yield _finding("fails in the child", path, error)
            else:
                yield _differs(path, here, there)


def _compare_ambient(
    there_all: dict[str, str], here_all: dict[str, str], touched: set[str]
) -> Iterator[dict[str, str]]:
    for name in sorted({*here_all, *there_all}):
        here, there = here_all.get(name, "default"), there_all.get(name, "default")
        if not fingerprint.is_same(here, there) and ambient_matters(name, touched):
            yield _differs(name, here, there)


def _differs(name: str, here: str, there: str) -> dict[str, str]:
    here, there = fingerprint.shown(here), fingerprint.shown(there)
    if ": " in name:  # a piece of ambient state, in a form that only bequest reads
        here = "as the program has set it" if here != "default" else "its default"
        there = "as an import sets it" if here != "as the program has set it" else "its default"
    return _finding("differs", name, "", here, there)


class _Probe:
    """The process that stands for children of plain Python; started when it is first asked. Thread-safe."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._process: Any = None
        self._failed: dict[str, Any] | None = None

    def ask(self, kind: str, *given: Any) -> dict[str, Any]:
        """Return the probe's answer; with `error` where a child would have failed."""
        with self._lock:
            if self._process is None:
                self._start()
                from multiprocessing import spawn

                try:
                    data = spawn.get_preparation_data("probe")
                except RuntimeError as error:
                    return {"error": plain.describe(error)}
                data["authkey"] = bytes(process.current_process().authkey)
                answer = self._exchange("prepare", data)
                if "error" in answer:
                    self._failed = {"error": answer["error"], "at": "the main module, imported again"}
                self._printed, self._at_exit = answer.get("printed", ""), answer.get("at_exit", [])
            if self._failed is not None:
                return self._failed
            answer = self._exchange(kind, *given)
            if "printed" in answer:
                answer["printed"] = self._printed + answer["printed"]
                answer["at_exit"] = self._at_exit
            return answer

    def _start(self) -> None:
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        call = f"main({requests}, {answers})"
        program = f"import sys; sys.path.append({_HOME!r}); from bequest.explain.probe import main; {call}"
        flags = _util._args_from_interpreter_flags()  # type: ignore[attr-defined]  # private, in all versions
        # The last argument tells bequest's sitecustomize that this is none of the program's interpreters.
        command = [sys.executable, *flags, "-c", program, "bequest.launch"]
        self._process = subprocess.Popen(command, pass_fds=(requests, answers), stdin=subprocess.DEVNULL)
        os.close(requests)
        os.close(answers)

    def _exchange(self, *request: Any) -> dict[str, Any]:
        try:
            probe.write_message(self._requests, request)
            ready, _, _ = select.select([self._answers], [], [], _PATIENCE_S)
            if not ready:
                self._process.kill()
                return {"error": f"no end of it within {_PATIENCE_S:.0f} s", "at": "a child's start"}
            answer: dict[str, Any] = probe.read_message(self._answers)
        except (OSError, EOFError):
            return {"error": "the interpreter ends while it imports the main module again"}
        return answer
