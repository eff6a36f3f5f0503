"""Start a child by asking a clean process, the template, to fork (start method `forkserver`).

    message + descriptors -> channel -> template forks -> "P" pid, pidfd -> ... -> "S" exit code

The channel is an inherited socket pair: nothing in the filesystem, nobody else can connect. One template
serves one process; it is replaced when it died, when it got threads, or when the main module changed. The
standard fork server is not used, but for the names that it keeps (`preload`). The other side is `serve`.
"""

from __future__ import annotations

import marshal
import os
import signal
import socket
import sys
import threading
from array import array
from multiprocessing import util as _util

from bequest.errors import BequestError, TemplateEndedError
from bequest.launch import handoff, pidfd, preload, serve
from bequest.launch.child import ReceivedFd
from bequest.launch.follow import StartedPopen
from bequest.launch.spawn import command_line, interrupts_held_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from typing_extensions import Buffer

    from bequest.carry.start import Parcel

util: Any = _util  # private names of it are used: the same in all versions

_ATTEMPTS = 10
_STOP_GRACE_S = 5.0
_MODULES = "modules"


class Popen(StartedPopen):
    """A child forked by the template, which reaps it and tells how it ended."""

    method = "forkserver"
    DupFd = ReceivedFd

    def __init__(self, process_obj: Any, *, strict: bool = False, main: str = "replay") -> None:
        if main == "replay" and preload.is_main_chosen():
            main = "import"
        super().__init__(process_obj, strict=strict, main=main)

    def _name_of_gift(self) -> int:
        return len(self._gifts) - 1

    def _begin(self, parcel: Parcel, notes: dict[str, Any]) -> None:
        self._orphaned = False
        # From here on a plain descriptor, read message by message: a socket object would complain at exit.
        status, first, self._pidfd = templates.fork(parcel, notes, self._gifts)
        self._status = status.detach()
        os.set_blocking(self._status, False)
        if first[:1] == b"P":
            _, self.pid = serve.BEGUN.unpack(first)
        else:  # killed before its first word
            _, self.pid, self.returncode = serve.ENDED.unpack(first)
        # Once it has ended nobody holds the other end of `_status`, which is then readable as well.
        self.sentinel = self._status if self._pidfd is None else self._pidfd
        ours = {self._status, self.sentinel}
        self.finalizer = util.Finalize(self, util.close_fds, sorted(ours))

    def _look(self) -> None:
        while self.returncode is None and not self._orphaned:
            try:
                message = os.read(self._status, serve.MOST_BYTES)
            except BlockingIOError:
                return
            if message[:1] == b"A":
                self._keep = None
                templates.learn(marshal.loads(message[1:]))
            elif message[:1] == b"S":
                _, _, self.returncode = serve.ENDED.unpack(message)
            else:
                self._orphaned = True
        if self._orphaned and self.returncode is None:
            self._look_at_orphan()

    def _look_at_orphan(self) -> None:
        # The template was killed. The child runs on, or has been reaped by init: only its pidfd can tell.
        if self._pidfd is None:
            self.returncode = pidfd.UNKNOWN_EXIT
        elif pidfd.is_ready(self._pidfd):
            self.returncode = pidfd.exit_code(self._pidfd)

    def _news_fd(self) -> int:
        return self.sentinel if self._orphaned else self._status


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends that block, whatever `socket.setdefaulttimeout` the program has set."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(None)
    theirs.settimeout(None)
    return ours, theirs


class _Template:
    """One template process, as its parent sees it. Used under the lock of `_Templates`."""

    def __init__(self, description: dict[str, Any] | None) -> None:
        self.description = description
        self.asked: set[str] = set()  # modules that it has been asked to import
        self.proven = False  # has forked a child
        ours, theirs = _socket_pair()
        watch, held_open = handoff.watch_this_process()
        self.channel, self._held_open = ours, held_open
        self.pid = 0  # until it has been started
        try:
            with theirs:
                command = command_line(f"serve.main({theirs.fileno()}, {watch})")
                # It inherits the mask, and lifts it once it ignores SIGINT: ^C must not end it in between.
                with interrupts_held_back():
                    self.pid = util.spawnv_passfds(command[0], command, [theirs.fileno(), watch])
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
            self.send(description, {"request": "prepare"}, b"", [])
        except OSError:  # ended already; whoever asks it to fork will see that
            pass

    def send(self, header: dict[str, Any], notes: dict[str, Any], body: Buffer, fds: list[int]) -> None:
        """Send one request; the template gets duplicates of `fds`.

        Raises:
            OSError: The template has ended (BrokenPipeError, ConnectionResetError), or the system is at a
            limit.
        """
        inline = handoff.encode(header, notes | {"stored": False}, body)
        if sum(memoryview(part).nbytes for part in inline) <= serve.INLINE_BYTES:
            self._send_parts(inline, fds)
            return
        stored = handoff.store(inline)
        try:
            parts = handoff.encode({}, notes | {"stored": True}, b"")
            where = 0 if notes["request"] == "prepare" else notes["before_gifts"]
            self._send_parts(parts, [*fds[:where], stored, *fds[where:]])
        finally:
            os.close(stored)

    def _send_parts(self, parts: Sequence[Buffer], fds: list[int]) -> None:
        most = serve.MOST_DESCRIPTORS
        for begin in range(most, len(fds), most):  # what does not fit goes ahead
            more = handoff.encode({}, {"request": "more"}, b"")
            self.channel.sendmsg(more, _beside(fds[begin : begin + most]))
        self.channel.sendmsg(parts, _beside(fds[:most]))

    def retire(self) -> None:
        """Let it leave once its last child has; until then it goes on telling how they end."""
        try:
            self.send({}, {"request": "retire"}, b"", [])
        except OSError:  # it has left already
            pass

    def has_left(self) -> bool:
        """Tell whether the process has ended; if so it is reaped, and the channel closed."""
        try:
            pid, _ = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else reaped it
            pid = self.pid
        if pid == 0:
            return False
        self._close()
        return True

    def stop(self) -> int | None:
        """End the process and wait for it; return its wait status, None where somebody else reaped it."""
        self._close()
        try:
            fd = pidfd.open_pidfd(self.pid)
        except ProcessLookupError:
            return None
        if fd is not None:
            if not pidfd.is_ready(fd, _STOP_GRACE_S):  # stopped, or importing something endless
                pidfd.send_signal(fd, signal.SIGKILL)
            os.close(fd)
        try:
            return os.waitpid(self.pid, 0)[1]
        except ChildProcessError:
            return None

    def abandon(self) -> None:
        """Close this process's copy of the channel: we are a forked child of its owner."""
        self._close()

    def _close(self) -> None:
        self.channel.close()
        if self._held_open is not None:
            os.close(self._held_open)
            self._held_open = None


class _Templates:
    """The template of this process, those that it replaced, and what has been learned about modules.

    Thread-safe; a forked child of this process begins with none.
    """

    def __init__(self) -> None:
        self._learned: dict[str, None] = {}  # modules that children had to import, in order
        self._denied: set[str] = set()  # modules whose import starts threads
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._current: _Template | None = None
        self._replaced: list[_Template] = []
        self._unprepared = False

    def forget(self) -> None:
        """In a forked child: the templates are the parent's, and must not stay open through us."""
        inherited = [*self._replaced, *([] if self._current is None else [self._current])]
        self._reset()
        for template in inherited:
            template.abandon()

    def learn(self, names: list[str]) -> None:
        """Have `names` imported before the next fork, as far as this process has imported them itself.

        Takes no lock: a signal handler may ask how a child is while this process starts another one.
        """
        self._learned.update(dict.fromkeys(name for name in names if name in sys.modules))

    def fork(
        self, parcel: Parcel, notes: dict[str, Any], gifts: list[int]
    ) -> tuple[socket.socket, bytes, int | None]:
        """Have a child forked; wait until it is there.

        Returns:
            The socket on which its answer and its end will be told, the first message on it (`P`, or `S` for
            a child that was killed at once), and the child's pidfd; all owned by the caller.

        Raises:
            TemplateEndedError: The template could not be prepared.
            OSError: The system is at a limit.
        """
        attempts = 0
        while attempts < _ATTEMPTS:
            ours, theirs = _socket_pair()
            try:
                with theirs:
                    template = self._request(parcel, notes, theirs.fileno(), gifts)
                first, child_pidfd = _first_message(ours)
                if first[:1] in (b"P", b"S"):
                    template.proven = True
                    return ours, first, child_pidfd
            except BaseException:
                _call_off(ours)
                raise
            ours.close()
            self._replace(template, first)
            attempts += not first  # one that said that it has threads is replaced by one that imports less
        raise TemplateEndedError(f"the template process ended {_ATTEMPTS} times before it forked a child")

    def stop(self) -> None:
        """End all template processes of this process and wait until they have gone; done when it exits.

        Children that still run go on; how they end can then only be told where the kernel does.
        """
        with self._lock:
            templates = [*self._replaced, *([] if self._current is None else [self._current])]
            self._replaced, self._current = [], None
        for template in templates:
            template.stop()

    def _request(self, parcel: Parcel, notes: dict[str, Any], status: int, gifts: list[int]) -> _Template:
        standard = _open_standard()
        before = [status, handoff.tracker_fd(), *standard]
        with self._lock:
            template = self._fitting(parcel.template)
            names, on_error = preload.modules()
            wanted = [*parcel.template.get(_MODULES, ()), *self._learned]
            imports = [name for name in wanted if name not in template.asked and name not in self._denied]
            hints = [name for name in names if name not in template.asked and name not in self._denied]
            request = {
                "request": "fork",
                "standard": standard,
                "before_gifts": len(before),
                "imports": imports,
                "preload": hints,
                "on_error": on_error,
            }
            try:
                template.send(parcel.header, notes | request, parcel.body, before + gifts)
            except (BrokenPipeError, ConnectionResetError):
                return template  # it has gone; the status socket will say so, and another one is asked
            template.asked.update(imports, hints)
            return template

    def _fitting(self, wanted: dict[str, Any]) -> _Template:
        description = {key: value for key, value in wanted.items() if key != _MODULES}
        current = self._current
        if current is not None and (self._unprepared or current.description == description):
            return current
        if current is not None:
            current.retire()
            self._replaced.append(current)
        self._replaced = [template for template in self._replaced if not template.has_left()]
        self._current = _Template(None if self._unprepared else description)
        return self._current

    def _replace(self, template: _Template, said: bytes) -> None:
        """See to it that `template`, which did not fork but `said` why, is not asked again."""
        if said[:1] == b"E":
            raise OSError(*marshal.loads(said[1:]))
        with self._lock:
            if self._current is template:
                self._current = None
            elif template not in self._replaced:
                return  # another thread met the same and has dealt with it
            else:
                self._replaced.remove(template)
            if said[:1] == b"T":
                template.retire()
                self._replaced.append(template)
                self._deny(marshal.loads(said[1:]))
                return
        status = template.stop()
        if not template.proven and status is not None and os.WIFEXITED(status):
            error = TemplateEndedError("the template process ended while it was being prepared")
            error.add_note("Forkserver process may have crashed during module preloading. Check stderr.")
            raise error

    def _deny(self, module: str | None) -> None:
        if module is not None:
            self._denied.add(module)
        elif self._unprepared:
            raise BequestError(
                "a new interpreter has several threads before any of the program has run (sitecustomize?): "
                "nothing can be forked from it. Use the start method 'spawn'."
            )
        else:  # the main module's doing, or something that runs later: let children do everything
            self._unprepared = True


def _open_standard() -> list[int]:
    return [fd for fd in range(3) if _is_open(fd)]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _beside(fds: list[int]) -> list[tuple[int, int, array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []


def _first_message(ours: socket.socket) -> tuple[bytes, int | None]:
    try:
        message, ancillary, _, _ = ours.recvmsg(
            serve.MOST_BYTES, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:  # the template ended with the request unread
        return b"", None
    for _, _, data in ancillary:
        return message, array("i", data)[0]
    return message, None


def _call_off(ours: socket.socket) -> None:
    """Give up a start that was interrupted: the child that may come of it ends, as nobody listens to it."""
    with ours:
        ours.shutdown(
            socket.SHUT_RD
        )  # from here on a child that says that it is there gets EPIPE, and leaves
        ours.setblocking(False)
        try:
            _, child_pidfd = _first_message(ours)
        except BlockingIOError:
            return
        if child_pidfd is not None:
            pidfd.send_signal(child_pidfd, signal.SIGKILL)
            os.close(child_pidfd)


templates = _Templates()
os.register_at_fork(after_in_child=templates.forget)
