"""A pool's view of one worker: its process, its end of the channel, and which tasks it has.

    start() -> WorkerHandle; give(tasks) -> records out; receive() -> records in; leftovers() at its end

Nothing here waits: what the channel does not take at once is kept and sent when the poller says so. Sending
belongs to who holds the engine's lock, receiving to the engine's thread.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from bequest import passing
from bequest.carry.buffers import Message, inline_message
from bequest.carry.segments import OwnedFd
from bequest.pool import forking, wire
from bequest.pool.wire import ENTRY, HEAD, HEAD_BYTES, MAGIC, MOST_KIND, WAY_BITS, GarbledError
from bequest.pool.worker import Settings, WorkerEnd, work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bequest.pool.calls import FunctionRef
    from bequest.pool.task import Task

_JOINED_BYTES = 1 << 20  # up to this size one copy is cheaper than several calls of the system
_SOCKET_BYTES = 1 << 20
_KEPT_LINES = 20


class WorkerHandle:
    """One worker. Made by `start`; belongs to the engine that made it.

    Attributes:
        process: Its process object.
        in_flight: The tasks that it has, by number, oldest first.
        flagged: Numbers of tasks that were taken back, and that it has not come past yet.
        known: Numbers of the functions that it has.
        ahead: How many frames of tasks it may have beside the one that it is at.
        done: How many tasks it was given in its life.
        is_ready: Whether its initializer has returned.
        is_leaving: Whether it gets no more tasks.
        is_listed: Whether it is among those that may be given tasks.
        is_told_to_quit: Whether it leaves because it was told to.
        is_expendable: Whether its end is the engine's doing.
        deadline: When something is to be done about it, by the monotonic clock, or None.
        timed: The task that `deadline` is about, if it is about one.
        idle_since: Since when it has had nothing to do.
        harvested: How much of its journal has been read, and of which generation.
        lines: The last that it wrote to its standard error.
        trouble: Why it is being killed, in words, where the engine does that.
        beside: The channel for descriptors of large data, or None.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        page = life = self._lifeline = -1
        try:
            page = wire.page_file()
            life, self._lifeline = os.pipe()
            self.page = wire.Page(page)
        except BaseException:
            for part in (ours, theirs):
                part.close()
            for fd in (page, life, self._lifeline):
                if fd >= 0:
                    os.close(fd)
            raise
        for part in (ours, theirs):
            part.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        ours.setblocking(False)
        self.channel, self.fd = ours, ours.fileno()
        beside = passing.side_channel()
        self.beside = OwnedFd(beside[0]) if beside else None
        self.end = WorkerEnd(theirs.detach(), page, life, beside[1] if beside else None)
        self.process: Any = None
        self.in_flight: dict[int, Task] = {}
        self.flagged: set[int] = set()
        self.known: set[int] = set()
        self._frames: deque[int] = deque()  # the number of the last task of each
        self.ahead = self.done = 0
        self.is_ready = self.is_leaving = self.is_listed = self.is_told_to_quit = False
        self.is_expendable = False
        self.deadline: float | None = None
        self.timed: Task | None = None
        self.idle_since = 0.0
        self.harvested = (-1, 0)
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.trouble = ""
        self._number = 0
        self._fence = threading.Lock()
        self._waiting: deque[memoryview] = deque()
        self._inbox = b""
        self._long: tuple[int, int, memoryview, int] | None = None
        forking.handles.add(self)

    # -- out -------------------------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Whether it may be given another frame: `ahead` of them, beside the one that it is at."""
        frames = self._frames
        if frames:
            first = next(iter(self.in_flight), None)
            if self.flagged:
                first = min(self.flagged) if first is None else min(first, *self.flagged)
            while frames and (first is None or frames[0] < first):
                frames.popleft()
        return len(frames) <= self.ahead

    @property
    def is_blocked(self) -> bool:
        """Whether something waits for the channel to take it."""
        return bool(self._waiting)

    def give(self, tasks: list[Task], gone: deque[int]) -> None:
        """Send tasks, with the functions that the worker lacks; they are in flight even if it is dying.

        Args:
            tasks: Fewer, with those that it has, than `wire.SLOTS`.
            gone: Numbers of functions that nobody needs any more. Those that it had are forgotten.
        """
        parts: list[bytes] = []
        for number in gone:
            if number in self.known:
                self.known.discard(number)
                parts.append(wire.head(wire.FORGET, number, 0))
        table, payloads, size = [], [], 0
        in_flight, known, number = self.in_flight, self.known, self._number
        for task in tasks:
            function, data = task.function, task.data
            if function.number not in known:
                known.add(function.number)
                parts += self._definition(function)
            number += 1
            task.number, task.worker = number, self
            in_flight[number] = task
            way = task.way
            if type(data) is Message:
                is_beside, data = self._send_beside(data)
                way |= wire.BESIDE * is_beside
            table.append(ENTRY.pack(function.number << WAY_BITS | way, len(data)))
            payloads.append(data)
            size += len(data)
        self._number = number
        self._frames.append(number)
        self.done += len(tasks)
        parts.append(wire.head(wire.TASKS, len(tasks), size + len(tasks) * ENTRY.size))
        self._send([*parts, *table, *payloads])

    def _definition(self, function: FunctionRef) -> tuple[bytes, bytes]:
        """Return the record that tells the worker of a function: head and content."""
        is_beside, data = self._send_beside(function.data)
        kind = wire.LARGE_FUNCTION if is_beside else wire.FUNCTION
        return wire.head(kind, function.number, len(data)), data

    def _send_beside(self, data: bytes) -> tuple[bool, bytes]:
        """Send what goes beside a payload, if anything does; return whether it does, and the payload.

        Where there is no room beside it, all is in the payload.
        """
        if type(data) is not Message:
            return False, data
        if passing.send_beside(self.beside, data.held):
            return True, data
        return False, b"".join(inline_message(data))

    def quit(self) -> None:
        """Tell it to leave when it has done what it has."""
        self.is_leaving = self.is_told_to_quit = True
        self._send([wire.head(wire.QUIT, 0, 0)])

    def _send(self, parts: list[bytes]) -> None:
        if sum(map(len, parts)) <= _JOINED_BYTES:
            self._waiting.append(memoryview(b"".join(parts)))
        else:
            self._waiting += map(memoryview, parts)
        self.push()

    def push(self) -> None:
        """Send what waits, as far as the channel takes it."""
        waiting = self._waiting
        while waiting:
            part = waiting[0]
            try:
                count = self.channel.send(part)
            except BlockingIOError:
                return
            except OSError:  # it has ended: its sentinel will tell
                waiting.clear()
                return
            if count < len(part):
                waiting[0] = part[count:]
            else:
                waiting.popleft()

    # -- in --------------------------------------------------------------------------------------------------

    def receive(self, buffer: memoryview) -> Iterator[tuple[int, int, memoryview]]:
        """Receive once, and yield the records that are complete.

        Args:
            buffer: To receive into; a record is valid until the next is asked for.

        Raises:
            GarbledError: There is something else than records on the channel.
            EOFError: It has ended.
            BlockingIOError: There is nothing.
        """
        if self._long is not None:
            yield from self._receive_long()
            return
        kept = len(self._inbox)
        buffer[:kept] = self._inbox
        count = self._receive_into(buffer[kept:])
        end, at, unpack = kept + count, 0, HEAD.unpack_from
        while end - at >= HEAD_BYTES:
            tag, number, length = unpack(buffer, at)
            kind = tag ^ MAGIC  # `wire.kind_of`, for each result of the pool
            if kind > MOST_KIND:
                raise GarbledError(f"a record that begins with {tag:#x}")
            start = at + HEAD_BYTES
            if start + length > end:
                if length > wire.JOURNAL_BYTES - HEAD_BYTES:
                    self._begin_long(kind, number, length, buffer[start:end])
                    at = end
                break
            yield kind, number, buffer[start : start + length]
            at = start + length
        self._inbox = bytes(buffer[at:end])

    def _begin_long(self, kind: int, number: int, length: int, beginning: memoryview) -> None:
        """Prepare for a record that was announced in the page: a few wild bytes must not order gigabytes."""
        if number not in self.in_flight and number not in self.flagged:
            raise GarbledError(f"a record of {length} bytes about task {number}, which it has not got")
        if kind not in wire.OUTCOMES or self.page.lengths[number % wire.SLOTS] != length:
            raise GarbledError(f"a record of {length} bytes that was not announced")
        content = memoryview(bytearray(length))
        content[: len(beginning)] = beginning
        self._long = (kind, number, content, len(beginning))

    def _receive_long(self) -> Iterator[tuple[int, int, memoryview]]:
        assert self._long is not None
        kind, number, content, at = self._long
        at += self._receive_into(content[at:])
        self._long = (kind, number, content, at)
        if at == len(content):
            self._long = None
            yield kind, number, content

    def _receive_into(self, room: memoryview) -> int:
        try:
            count = self.channel.recv_into(room)
        except ConnectionResetError:
            count = 0
        if count == 0:
            raise EOFError
        return count

    def leftovers(self) -> Iterator[tuple[int, int, memoryview]]:
        """Yield the outcomes in the journal that were not read from it before.

        Raises:
            GarbledError: It holds something else.
        """
        generation = self.page.words[wire.GENERATION]
        journal = self.page.unsent()
        at = self.harvested[1] if self.harvested[0] == generation else 0
        view = memoryview(journal)
        while len(journal) - at >= HEAD_BYTES:
            tag, number, length = HEAD.unpack_from(journal, at)
            start = at + HEAD_BYTES
            if start + length > len(journal):
                raise GarbledError(f"a record of {length} bytes in the journal")
            yield wire.kind_of(tag), number, view[start : start + length]
            at = start + length
            self.harvested = (generation, at)

    # -- tasks -----------------------------------------------------------------------------------------------

    def has_begun(self, number: int) -> bool:
        """Tell whether it has begun a task."""
        try:
            return bool(self.page.words[wire.BEGUN] >= number)
        except ValueError:  # closed
            return False

    def take_back(self, numbers: list[int]) -> list[Task]:
        """Take back those of its tasks that it has not begun; the engine's lock is held."""
        words, flags = self.page.words, self.page.flags
        for number in numbers:
            flags[number % wire.SLOTS] = 1
        # A lock was taken and will be released in between: see `worker._run_tasks` for the other side.
        with self._fence:
            pass
        begun = words[wire.BEGUN]
        taken = []
        for number in numbers:
            task = self.in_flight.get(number)
            # One that it is about to begin may be skipped or run: it will say which.
            if task is not None and number > begun:
                del self.in_flight[number]
                self.flagged.add(number)
                task.worker = None
                taken.append(task)
        return taken

    def has_passed(self, number: int) -> None:
        """Note that the worker has skipped a task that was taken back."""
        self.flagged.discard(number)
        self.page.flags[number % wire.SLOTS] = 0

    def close(self) -> None:
        """Give everything back; the process has ended, or is nobody's any more."""
        forking.handles.discard(self)
        if self._lifeline >= 0:
            self.channel.close()
            self.beside = None
            os.close(self._lifeline)
            self._lifeline = -1
            self.page.close()

    def forget_in_fork(self) -> None:
        """Close what a forked child must not hold: the worker's life depends on it."""
        self.channel.close()
        self.beside = None
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


def start(
    make_process: Callable[..., Any], initializer: Any, initargs: Any, settings: Settings
) -> WorkerHandle:
    """Start a worker.

    Args:
        make_process: Returns a process object for `target=` and `args=`.
        initializer: What it calls first, with `initargs`; or None.
        initargs: Arguments.
        settings: See there.

    Raises:
        CarryError: The initializer or its arguments cannot be carried; nothing is left behind.
        OSError: There is no room for another process.
    """
    handle = WorkerHandle()
    try:
        process = make_process(target=work, args=(handle.end, initializer, initargs, settings))
        handle.process = process
        process.start()
    except BaseException:
        handle.close()
        raise
    finally:
        handle.end.close()
    return handle
