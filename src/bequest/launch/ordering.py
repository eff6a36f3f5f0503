"""One template process and the lines to its children, as their parent sees them.

    Template.order -> request on its channel -> Line -> "P", pid, pidfd of the child, or why there is none

It does not choose between templates, nor decide what they import: see `template`. The other side is `serve`.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from array import array

from bequest.launch import handoff, interpreter, lines, pidfd
from bequest.launch.spawn import interrupts_held_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_STOP_GRACE_S = 5.0
_ROOM = socket.CMSG_SPACE(array("i").itemsize)


class Line:
    """The parent's end of the line to a child that is, or is to be, forked. See `lines`.

    Attributes:
        ours: The socket.
        template: Who forks the child.
        first: The first word said on it: `P`; `S` for a child that was killed at once; `T` or `E` where there
            is none; b"" before, or where the template has ended.
        child_pidfd: The child's pidfd, once `P` has been read.
    """

    def __init__(self, ours: socket.socket, template: Template) -> None:
        self.ours, self.template = ours, template
        self.first = b""
        self.child_pidfd: int | None = None
        self._heard: list[Any] = []

    def hear(self, flags: int = 0) -> bytes:
        """Return the first word, waiting for it; with MSG_DONTWAIT, BlockingIOError where there is none."""
        if not self.first:
            try:
                self._hear_first(flags)
            except ConnectionResetError:  # once, where the start stayed unread; then what has been said comes
                self._hear_first(flags)
        return self.first

    def _hear_first(self, flags: int) -> None:
        if not flags & socket.MSG_DONTWAIT:
            pidfd.is_ready(self.ours.fileno(), None)
        if not self._heard:
            arguments = ((lines.WORD_BYTES,), (_ROOM,), (flags | socket.MSG_CMSG_CLOEXEC,))
            # In one call of C code: a ^C between the system's call and what follows would lose the word, and
            # with it the child.
            self._heard.extend(map(self.ours.recvmsg, *arguments))
        self._take_in()

    def _take_in(self) -> None:
        """Note what has been heard, which a ^C may have prevented."""
        for word, ancillary, _, _ in self._heard:
            for _, _, data in ancillary:
                self.child_pidfd = array("i", data)[0]
            self.first = word
        self._heard.clear()

    def may_serve(self) -> bool:
        """Tell whether a start may be sent: the child waits for it, or the template has yet to fork it."""
        try:
            word = self.hear(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        if word[:1] != b"P" or self.child_pidfd is None:
            return False
        poller = select.poll()
        poller.register(self.child_pidfd, select.POLLIN)
        poller.register(self.template.channel, 0)  # POLLHUP, where the template has ended
        return not poller.poll(0)

    def close(self) -> None:
        """Give the child up: it leaves if it has no start."""
        self._take_in()
        self.ours.close()
        if self.child_pidfd is not None:
            os.close(self.child_pidfd)
            self.child_pidfd = None

    def call_off(self) -> None:
        """Give up a start that was interrupted: the child that may come of it ends, as nobody listens."""
        # From here on a child that says that it is there gets EPIPE, and leaves.
        self.ours.shutdown(socket.SHUT_RD)
        try:
            self.hear(socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        finally:
            if self.child_pidfd is not None:
                pidfd.send_signal(self.child_pidfd, signal.SIGKILL)
            self.close()


class Template:
    """One template process, as its parent sees it. The caller sees to it that one thread at a time uses it.

    Attributes:
        pid: Its process id.
        description: The main module that it was prepared for, None for none.
        asked: Names of the modules that it has been asked to import.
        proven: Whether it has forked a child; set by the caller.
        is_unfit: Whether it has said that it has threads; set by the caller.
        can_spare: Whether its children can wait for their start.
        channel: Where it takes requests.
    """

    def __init__(self, description: dict[str, Any] | None) -> None:
        self.description = description
        self.asked: set[str] = set()  # modules that it has been asked to import
        self.proven = self.is_unfit = False
        ours, theirs = lines.socket_pair()
        watch, held_open = handoff.watch_this_process()
        self.channel, self._held_open = ours, held_open
        self.can_spare = held_open is None  # what waits is watched by its pidfd
        self.pid = 0  # until it has been started
        self._pidfd: int | None = None
        try:
            # It inherits the mask, and lifts it once it ignores SIGINT: ^C must not end it in between.
            with theirs, interrupts_held_back():
                call = f"serve.main({theirs.fileno()}, {watch})"
                self.pid = interpreter.start(call, [theirs.fileno(), watch])
                self._pidfd = pidfd.open_pidfd(
                    self.pid
                )  # its number may be another's when it has been reaped
            if description is not None:
                self._prepare(description)
        except BaseException:
            if self.pid:
                self.stop()
            else:
                self._close()
            raise
        finally:
            os.close(watch)

    def _prepare(self, description: dict[str, Any]) -> None:
        try:
            lines.send(self.channel, description, {"request": "prepare"}, b"", [])
        except OSError:  # ended already; whoever asks it to fork will see that
            pass

    def order(self, wishes: dict[str, Any], ahead: float | None, count: int = 1) -> list[Line]:
        """Have children forked, and return the lines to them, owned by the caller; does not wait for them.

        Args:
            wishes: What is to be imported before: "imports", "preload", "on_error".
            ahead: None for at once, or that each is to be forked at leisure, or when its start has come, and
                leaves when it has waited so many seconds for that.
            count: How many.

        Raises:
            OSError: The system is at a limit. Where the template has ended, the lines will say so.
        """
        request = {"request": "fork", "ahead": ahead, **wishes}
        pairs: list[tuple[socket.socket, socket.socket]] = []
        try:
            pairs += [lines.socket_pair() for _ in range(count)]
            lines.send(self.channel, {}, request, b"", [theirs.fileno() for _, theirs in pairs])
        except (BrokenPipeError, ConnectionResetError):
            pass
        except BaseException:
            for ours, _ in pairs:
                ours.close()
            raise
        finally:
            for _, theirs in pairs:
                theirs.close()
        self.asked.update(wishes["imports"], wishes["preload"])
        return [Line(ours, self) for ours, _ in pairs]

    def retire(self) -> None:
        """Let it leave once its last child has; until then it goes on telling how they end."""
        try:
            lines.send(self.channel, {}, {"request": "retire"}, b"", [])
        except OSError:  # it has left already
            pass

    def has_left(self) -> bool:
        """Tell whether the process has ended; if so it is reaped, and all that is held of it closed."""
        try:
            if not self._wait(os.WNOHANG):
                return False
        except ChildProcessError:  # somebody else reaped it
            pass
        self._close()
        return True

    def stop(self) -> bool | None:
        """End the process and wait for it.

        Returns:
            Whether it left by itself, not by a signal; None where somebody else reaped it.
        """
        self._hang_up()
        try:
            if self._pidfd is not None and not pidfd.is_ready(self._pidfd, _STOP_GRACE_S):
                pidfd.send_signal(self._pidfd, signal.SIGKILL)  # stopped, or importing something endless
            ended = self._wait(0)
            return ended is not None and ended.si_code == os.CLD_EXITED
        except ChildProcessError:
            return None
        finally:
            self._close()

    def _wait(self, flags: int) -> Any:
        """Reap the process, by its pidfd where there is one: what `os.waitid` returns."""
        if self._pidfd is None:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | flags)
        return os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | flags)

    def abandon(self) -> None:
        """Close this process's copy of the channel: we are a forked child of its owner."""
        self._close()

    def _close(self) -> None:
        self._hang_up()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _hang_up(self) -> None:
        self.channel.close()
        if self._held_open is not None:
            os.close(self._held_open)
            self._held_open = None
