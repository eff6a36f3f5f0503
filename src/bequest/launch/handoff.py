"""What a child is given: one message, some descriptors, and a way to answer "I hold everything".

    Parcel + notes -> encode -> memfd (spawn), or inline in a request (template) -> decode in the child

The answer lets the parent give up what the message only refers to (semaphores, proxies): see `exiting`.
This module does not start, follow or end processes.
"""

from __future__ import annotations

import errno
import marshal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from typing_extensions import Buffer

_LENGTH_BYTES = 8  # of what stands in front: how long the head is


class _Chosen:
    """Which start method bequest's default context has: here, as a child is told before it has a context.

    Attributes:
        method: None until one has been chosen or inherited.
    """

    method: str | None = None


chosen = _Chosen()


def encode(header: dict[str, Any], notes: dict[str, Any], body: Buffer) -> list[Buffer]:
    """Return the parts of a message, to be written one after the other; `body` is not copied."""
    head = marshal.dumps((header, notes))
    return [len(head).to_bytes(_LENGTH_BYTES, "little"), head, body]


def decode(message: Buffer) -> tuple[dict[str, Any], dict[str, Any], memoryview]:
    """Return header, notes and body; the body is a view into `message`."""
    view = memoryview(message)
    end = _LENGTH_BYTES + int.from_bytes(view[:_LENGTH_BYTES], "little")
    header, notes = marshal.loads(view[_LENGTH_BYTES:end])
    return header, notes, view[end:]


def store(parts: Sequence[Buffer]) -> int:
    """Write `parts` into an anonymous file; return its descriptor, at its start, owned by the caller.

    A file and not a pipe: the parent never waits for the child, nor meets EPIPE when the child is killed.

    Raises:
        OSError: There is no room. Nothing is left open.
    """
    fd = anonymous_file()
    try:
        for part in parts:
            left = memoryview(part).cast("B")
            while left:
                left = left[os.write(fd, left) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def load(fd: int) -> bytes:
    """Return the whole of the message that `store` left in `fd`, and close it."""
    with open(fd, "rb", buffering=0) as file:
        content: bytes = file.read()
    return content


def anonymous_file() -> int:
    """Return the descriptor of a new file without a name, owned by the caller.

    Raises:
        OSError: There is no room for one.
    """
    create = getattr(os, "memfd_create", None)
    if create is not None:
        try:
            return int(create("bequest", os.MFD_CLOEXEC))
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
    import tempfile

    fd, path = tempfile.mkstemp(prefix="bequest-")
    os.unlink(path)
    return fd


def watch_this_process() -> tuple[int, int | None]:
    """Return a descriptor that is readable once this process has ended, and one that must be kept open here.

    The second is None where the first is a pidfd, which depends on nothing: a pipe's end may also be held by
    a forked sibling. Both are owned by the caller; the first is for a child, the second for the life of that
    child.
    """
    from bequest.launch.pidfd import open_pidfd

    fd = open_pidfd(os.getpid())
    if fd is not None:
        return fd, None
    return os.pipe()


def tracker_fd() -> int:
    """Return the descriptor of a running resource tracker, which the tracker keeps owning.

    Asks the kernel whether the tracker still reads, where `resource_tracker.getfd` would send it a message,
    which wakes a process up at every start.
    """
    import select
    from multiprocessing import resource_tracker

    fd: int | None = vars(resource_tracker._resource_tracker)["_fd"]
    if fd is not None:
        poller = select.poll()
        poller.register(fd, 0)  # POLLERR (the reader is gone) and POLLNVAL are told without being asked for
        if not poller.poll(0):
            return fd
    resource_tracker.ensure_running()
    return int(vars(resource_tracker._resource_tracker)["_fd"])
