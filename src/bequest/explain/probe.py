"""A process that stands for a child of plain Python: what would it find, and where would it fail?

    requests on a pipe -> multiprocessing.spawn.prepare, unpickling, in a fork for each -> answers on another

Run by `bequest check`, without bequest installed: everything here is the standard library's own doing, up to
the moment at which a child would call its target. It prepares once, as the standard fork server does, and
what it or a module that it imports prints is kept from the program's streams.
"""

from __future__ import annotations

import atexit
import io
import os
import pickle
import signal
import struct
import sys
import tempfile
import traceback
from typing import Any

_LENGTH = struct.Struct("<Q")


def write_message(fd: int, message: Any) -> None:
    """Write a message that consists of plain data.

    Raises:
        OSError: Nobody reads.
    """
    data = pickle.dumps(message)
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(fd, view) :]


def read_message(fd: int) -> Any:
    """Read a message.

    Raises:
        EOFError: There will be none.
    """
    (length,) = _LENGTH.unpack(_read(fd, _LENGTH.size))
    return pickle.loads(_read(fd, length))


def _read(fd: int, length: int) -> bytes:
    parts = io.BytesIO()
    while parts.tell() < length:
        part = os.read(fd, length - parts.tell())
        if not part:
            raise EOFError
        parts.write(part)
    return parts.getvalue()


class Placeholder:
    """Stands for a lock, queue, connection or the like, which plain Python hands over as bequest does."""

    def __init__(self, kind: str, size: int = 0) -> None:
        vars(self).update(kind=kind, size=size)

    def __reduce__(self) -> tuple[Any, ...]:
        """Be pickled by kind and size."""
        return Placeholder, (vars(self)["kind"], vars(self)["size"])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Be every method of what it stands for."""
        return self

    def create_memoryview(self) -> memoryview:
        """Be the memory under a shared ctypes object."""
        return memoryview(bytearray(vars(self)["size"]))


def main(requests: int, answers: int) -> None:
    """Serve until nobody asks any more.

    Args:
        requests: Descriptor to read from.
        answers: Descriptor to write to.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = _Output()
    while True:
        try:
            kind, *given = read_message(requests)
        except EOFError:
            return
        if kind == "prepare":
            answer = _attempt(_prepare, output, *given)
        else:
            answer = _in_fork(requests, answers, output, kind, given)
        write_message(answers, answer)


class _Output:
    """Keeps what is printed."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as this process lives
        for stream in (1, 2):
            os.dup2(self._file.fileno(), stream)

    def take(self) -> str:
        """Return what has been printed since the last call."""
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        self._file.seek(0)
        text = self._file.read().decode(errors="replace")
        self._file.seek(0)
        self._file.truncate()
        return text


def _attempt(act: Any, output: _Output, *given: Any) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = act(*given)
    except BaseException as error:  # noqa: BLE001 - whatever it is, that is what is asked for
        answer = {"error": _told(error)}
    answer["printed"] = output.take()
    return answer


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip().partition("\n")[0]


def _prepare(data: dict[str, Any]) -> dict[str, Any]:
    from multiprocessing import process, spawn

    current: Any = process.current_process()
    current._inheriting = True
    register, callbacks = atexit.register, []

    def noting(function: Any, *args: Any, **named: Any) -> Any:
        if getattr(function, "__module__", "").partition(".")[0] not in sys.stdlib_module_names:
            callbacks.append(f"{function.__module__}.{function.__qualname__}")
        return register(function, *args, **named)

    atexit.register = noting  # type: ignore[assignment]  # as far as it is asked
    try:
        spawn.prepare(data)
    finally:
        atexit.register = register
        del current._inheriting
    return {"at_exit": callbacks}


def _in_fork(requests: int, answers: int, output: _Output, kind: str, given: list[Any]) -> dict[str, Any]:
    """Answer from a forked process, so that the next request meets what this one met."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(requests)
        os.close(answers)
        os.close(read_end)
        try:
            write_message(write_end, _attempt(_LOOKS[kind], output, *given))
        finally:
            os._exit(0)
    os.close(write_end)
    try:
        answer: dict[str, Any] = read_message(read_end)
    except EOFError:
        answer = {"error": "the child ends while it rebuilds what it was given", "printed": ""}
    os.close(read_end)
    os.waitpid(pid, 0)
    return answer


def _look_at_start(data: bytes, name: str, wanted: dict[str, list[str]]) -> dict[str, Any]:
    from multiprocessing import process

    from bequest.explain import fingerprint

    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a child
    current: Any = process.current_process()
    current._inheriting, current.name = True, name
    process_obj = pickle.loads(data)
    del current._inheriting
    return {
        "given": given_fingerprints(process_obj),
        "globals": fingerprint.globals_of(wanted, os.getpid()),
        "ambient": fingerprint.ambient(os.getpid()),
    }


def given_fingerprints(process_obj: Any) -> dict[str, str]:
    """Return the fingerprints of what a process object was given, by its name in paths."""
    from bequest.explain.fingerprint import fingerprint

    state = vars(process_obj)
    found = {"target": state.get("_target")}
    found |= {f"args[{index}]": value for index, value in enumerate(state.get("_args") or ())}
    found |= {f"kwargs[{name!r}]": value for name, value in (state.get("_kwargs") or {}).items()}
    own = ("_target", "_args", "_kwargs", "_config", "_identity", "_name", "_popen", "_closed", "left_behind")
    found |= {
        f"process.{name}": value
        for name, value in state.items()
        if name not in own and name[:8] != "_parent_"
    }
    # What is handed over as a placeholder is the same on both sides: one owner for all.
    told = {name: fingerprint(value, owner=0) for name, value in found.items()}
    return {**told, "what the arguments share": fingerprint(list(found.values()), owner=0)}


def _look_at_message(data: bytes, wanted: dict[str, list[str]]) -> dict[str, Any]:
    from bequest.explain import fingerprint

    pickle.loads(data)
    return {"globals": fingerprint.globals_of(wanted, os.getpid())}


_LOOKS = {"start": _look_at_start, "message": _look_at_message}
