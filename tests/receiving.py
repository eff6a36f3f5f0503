"""Another process that reads messages with `pickle.loads` and answers questions about what it got.

    Receiver().ask("it(3)", data) -> data is read there as `it` -> the value of the expression

The receiver is a fresh interpreter: it has nothing but what the messages bring and what it can import.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from multiprocessing.connection import Pipe
from typing import Any

from bequest.carry import identity

LIMIT_S = 30.0  # reached only by a failing test

_LISTEN = """
import pickle, sys
from multiprocessing.connection import Connection
pipe = Connection(int(sys.argv[1]))
known = {"main": sys.modules["__main__"]}
def read(name, data, starting):
    if starting:
        from bequest.carry import bindings
        bindings.phase.starting = True
    try:
        known[name] = pickle.loads(data)
    finally:
        if starting:
            bindings.end_start(starting, ())
while True:
    try:
        question, name, data, starting = pickle.loads(pipe.recv_bytes())
    except EOFError:
        break
    try:
        if data is not None:
            read(name, data, starting)
        answer = True, eval(question, known)
    except BaseException as error:
        answer = False, f"{type(error).__name__}: {error}"
    try:
        data = pickle.dumps(answer)
    except Exception as error:
        data = pickle.dumps((False, f"the answer cannot be told: {error}"))
    pipe.send_bytes(data)
"""


class RefusedError(Exception):
    """The receiver could not read the message, or not answer the question."""


class Receiver:
    """A receiving process; `close` ends it."""

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LISTEN, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
            )

    def ask(self, question: str, data: bytes | None = None, name: str = "it", starting: bool = False) -> Any:
        """Return the value of an expression there.

        Args:
            question: The expression; it sees what was received, by name, and its `__main__` as `main`.
            data: A message that is read first, if any.
            name: What that message is called in this question and later ones.
            starting: Whether the message is read as the one that starts a process.

        Raises:
            RefusedError: Reading or answering raised there; its text begins with the name of the error.
        """
        self._pipe.send_bytes(pickle.dumps((question, name, data, identity.maker() if starting else "")))
        assert self._pipe.poll(LIMIT_S), f"the receiver was silent for {LIMIT_S} s"
        fine, answer = pickle.loads(self._pipe.recv_bytes())
        if not fine:
            raise RefusedError(answer)
        return answer

    def close(self) -> None:
        """End the process, and wait for it."""
        self._pipe.close()
        self._process.kill()
        self._process.wait(LIMIT_S)
