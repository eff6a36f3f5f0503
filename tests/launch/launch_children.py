"""What the children of the tests of `launch` run; importable, so that it goes by name."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import bequest


def end_with(how: str) -> None:
    """End the process in the way that `how` names."""
    if how == "exit 3":
        sys.exit(3)
    if how == "text":
        sys.exit("a text")
    if how == "error":
        raise ValueError("on purpose")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "_exit 7":
        os._exit(7)


def tell(pipe: Any) -> None:
    """Tell the pid, then stay until the other end says something or closes."""
    pipe.send(os.getpid())
    try:
        pipe.recv()
    except EOFError:
        pass


def tell_of_parent(pipe: Any) -> None:
    """Tell what this process knows of its parent and of its start method."""
    parent: Any = bequest.parent_process()
    pipe.send((parent.pid, parent.is_alive(), bequest.get_start_method(), bequest.current_process().name))


def tell_of_module(pipe: Any, name: str) -> None:
    """Tell whether module `name` is there before it is asked for, and in which process it was imported."""
    there = name in sys.modules
    __import__(name)
    pipe.send((there, sys.modules[name].IMPORTED_IN, os.getpid()))


def tell_of_descriptors(queue: Any, released: Any) -> None:
    """Tell how many descriptors this process has, and stay until it is released."""
    queue.put(len(os.listdir("/proc/self/fd")))
    released.wait()


def tell_of_threads(pipe: Any) -> None:
    """Tell how many threads this process has."""
    pipe.send(threading.active_count())


def write_word(word: str) -> None:
    """Write to the descriptors of standard output and standard error, as a C library would."""
    os.write(1, f"out {word}\n".encode())
    os.write(2, f"err {word}\n".encode())


def tell_of_ends(pipe: Any, ends: list[Any]) -> None:
    """Send one's index through each of many connections."""
    for index, end in enumerate(ends):
        end.send(index)
    pipe.send(len(ends))


def tell_of_probed(first: Any, second: Any, probe: object, third: Any) -> None:
    """Say which is which through three connections."""
    for end, word in ((first, "first"), (second, "second"), (third, "third")):
        end.send(word)


shared_end: Any = None
LARGE_BYTES = 1 << 22


def tell_shared_end() -> Any:
    """Read a global of this module that is a connection."""
    return shared_end


def send_large(end: Any, pipe: Any) -> None:
    """Send large data through a connection that came at the start, and through one that comes by `pipe`."""
    for connection in (end, pipe.recv()):
        connection.send(bytes(LARGE_BYTES))
        pipe.send(type(connection._beside).__name__)


def greet_and_close(holder: Any, pipe: Any) -> None:
    """Say hello through the connection that an object holds, close it, and stay until `pipe` is told."""
    holder.end.send("hello")
    holder.end.close()
    pipe.recv()


def hold_ends(pipe: Any) -> None:
    """Take functions that hold a connection until None comes, and say how many came."""
    taken = list(iter(pipe.recv, None))
    pipe.send(len(taken))


def tell_of_handle(pipe: Any, handle: Any) -> None:
    """Follow and end a process that is not this process's child."""
    before = (handle.pid, handle.is_alive(), handle.exitcode, handle.mark, type(handle).__name__)
    handle.terminate()
    handle.join(30)
    pipe.send((before, handle.is_alive(), handle.exitcode is not None))
    pipe.send(handle)


def set_event(event: Any, lock: Any) -> None:
    """Use primitives that nobody else refers to."""
    with lock:
        event.set()


def measure(payload: bytes) -> None:
    """End with an exit code that says whether the payload is whole."""
    sys.exit(5 if payload == bytes(len(payload)) else 6)


def tell_of_surroundings(pipe: Any, name: str) -> None:
    """Tell the pid, the working directory, and a variable of the environment."""
    pipe.send((os.getpid(), os.getcwd(), os.environ.get(name)))


def use_methods(pipe: Any, lock: Any, rlock: Any, methods: tuple[Any, Any]) -> None:
    """Say what methods of two locks do to these."""
    acquire, release = methods
    taken = [acquire(False), lock.acquire(False), rlock.acquire()]
    release()
    pipe.send((taken, rlock._semlock._is_mine()))
