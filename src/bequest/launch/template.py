"""Start a child by asking a clean process, the template, to fork (start method `forkserver`).

    message + descriptors -> line -> child    the template forks it -> "P" pid, pidfd -> ... -> "S" exit code

One template serves one process; it is replaced when it died, when it got threads, or when the main module
changed. A child, or several, is kept forked ahead and waits on its line for its start (`spares`). The
standard fork server is not used, but for the names that it keeps (`preload`). The other side is `serve` and
`forked`; the words are those of `lines`.
"""

from __future__ import annotations

import marshal
import os
import sys
import threading
from multiprocessing import util as _util

from bequest.errors import BequestError, TemplateEndedError
from bequest.launch import handoff, lines, pidfd, preload
from bequest.launch.child import ReceivedFd
from bequest.launch.follow import StartedPopen
from bequest.launch.ordering import Line, Template
from bequest.launch.spares import Spares

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from bequest.carry.start import Parcel

util: Any = _util  # private names of it are used: the same in all versions

_ATTEMPTS = 10
_MODULES = "modules"
_REAPING_S = 1.0  # the template takes 50 microseconds; this long only where it is stopped


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
        line = templates.fork(parcel, notes, self._gifts)
        first, self._pidfd = line.first, line.child_pidfd
        # From here on a plain descriptor, read message by message: a socket object would complain at exit.
        self._line = line.ours.detach()
        os.set_blocking(self._line, False)
        if first[:1] == b"P":
            _, self.pid = lines.BEGUN.unpack(first)
        else:  # killed before its first word
            _, self.pid, self.returncode = lines.ENDED.unpack(first)
        # Once it has ended nobody holds the other end of `_line`, which is then readable as well.
        self.sentinel = self._line if self._pidfd is None else self._pidfd
        ours = {self._line, self.sentinel}
        self.finalizer = util.Finalize(self, util.close_fds, sorted(ours))

    def _look(self) -> None:
        while self.returncode is None and not self._orphaned:
            try:
                message = os.read(self._line, lines.WORD_BYTES)
            except BlockingIOError:
                if not self._is_being_reaped():
                    return
                continue
            except ConnectionResetError:
                continue  # once, where it ended with its start unread; then comes what has been said
            if message[:1] == b"A":
                self._keep = None
                templates.learn(marshal.loads(message[1:]))
            elif message[:1] == b"S":
                _, _, self.returncode = lines.ENDED.unpack(message)
            else:
                self._orphaned = True
        if self._orphaned and self.returncode is None:
            self._look_at_orphan()

    def _is_being_reaped(self) -> bool:
        """Tell whether the child has ended; if so, wait until its end is told.

        Its pidfd, the sentinel, may be ready before the template has reaped it, and who saw that may ask for
        the exit code at once.
        """
        has_ended = self._pidfd is not None and pidfd.is_ready(self._pidfd)
        return has_ended and pidfd.is_ready(self._line, _REAPING_S)

    def _look_at_orphan(self) -> None:
        # The template was killed. The child runs on, or has been reaped by init: only its pidfd can tell.
        if self._pidfd is None:
            self.returncode = pidfd.UNKNOWN_EXIT
        elif pidfd.is_ready(self._pidfd):
            self.returncode = pidfd.exit_code(self._pidfd)

    def _news_fd(self) -> int:
        return self.sentinel if self._orphaned else self._line


class _Templates:
    """The template of this process, those that it replaced, and what has been learned about modules.

    Thread-safe; a forked child of this process begins with none.
    """

    def __init__(self) -> None:
        self._learned: dict[str, None] = {}  # modules that children had to import, in order
        self._denied: set[str] = set()  # modules whose import starts threads
        self.spares = Spares()
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._current: Template | None = None
        self._replaced: list[Template] = []
        self._unprepared = False

    def forget(self) -> None:
        """In a forked child: the templates are the parent's, and must not stay open through us."""
        inherited = [*self._replaced, *([] if self._current is None else [self._current])]
        self.spares.drop()
        self._reset()
        for template in inherited:
            template.abandon()

    def learn(self, names: list[str]) -> None:
        """Have `names` imported before the next fork, as far as this process has imported them itself.

        Does not wait for the lock: a signal handler may ask how a child is while a start holds it. The
        spares, which lack the names, are then replaced at the next start.
        """
        self._learned.update(dict.fromkeys(name for name in names if name in sys.modules))
        if self._lock.acquire(blocking=False):
            try:
                template = self.spares.template
                if template is not None and self._missing(template, ()):
                    self._order_spares(template, ())
            finally:
                self._lock.release()

    def keep_spare(self, idle_s: float) -> None:
        """See `set_forkserver_spare`."""
        if not idle_s >= 0:
            raise ValueError(f"a spare cannot wait {idle_s!r} seconds")
        with self._lock:
            self.spares.idle_s = idle_s
            template = self.spares.template
            self.spares.drop()
            if template is not None:
                self._order_spares(template, ())

    def rest(self) -> None:
        """Note that the program waits for what it has started: the time to make up for what that has used.

        Does not wait for the lock, as `learn` does not.
        """
        self.spares.pace.end_round()
        if self.spares.are_few and self._lock.acquire(blocking=False):
            try:
                template = self.spares.template
                if template is not None:
                    self._order_spares(template, (), between=True)
            finally:
                self._lock.release()

    def fork(self, parcel: Parcel, notes: dict[str, Any], gifts: list[int]) -> Line:
        """Have a child forked and given its start; wait until it is there.

        Returns:
            The line on which its answer and its end will be told, whose first word is `P`, or `S` for a child
            that was killed at once; with the child's pidfd it is the caller's.

        Raises:
            TemplateEndedError: The template could not be prepared.
            OSError: The system is at a limit.
        """
        standard = lines.open_standard()
        fds = [handoff.tracker_fd(), *standard, *gifts]
        notes = notes | {"standard": standard}
        attempts = 0
        while attempts < _ATTEMPTS:
            line, is_spare = self._line_for(parcel.template)
            try:
                sent = _send_start(line, parcel, notes, fds)
                if sent or not is_spare:
                    with self._lock:
                        self._order_spares(line.template, parcel.template.get(_MODULES, ()))
                    line.hear()
            except BaseException:
                line.call_off()
                raise
            if line.first[:1] in (b"P", b"S") and (sent or not is_spare):
                line.template.proven = True
                return line
            line.close()
            if sent or not is_spare:
                self._replace(line.template, line.first)
            # One that said that it has threads is replaced by one that imports less.
            attempts += not line.first
        raise TemplateEndedError(f"the template process ended {_ATTEMPTS} times before it forked a child")

    def stop(self) -> None:
        """End all template processes of this process and wait until they have gone; done when it exits.

        Children that still run go on; how they end can then only be told where the kernel does.
        """
        with self._lock:
            templates = [*self._replaced, *([] if self._current is None else [self._current])]
            self._replaced, self._current = [], None
            self.spares.drop()
        for template in templates:
            template.stop()

    def _line_for(self, wanted: dict[str, Any]) -> tuple[Line, bool]:
        """Return the line to a child that fits, and whether that is a spare."""
        with self._lock:
            template = self._fitting(wanted)
            missing = self._missing(template, wanted.get(_MODULES, ()))
            if missing or self.spares.template is not template:
                self.spares.drop()
            spare = self.spares.take()
            if spare is not None:
                return spare, True
            return template.order(self._wishes(missing), None)[0], False

    def _missing(self, template: Template, modules: Iterable[str]) -> dict[str, list[str]]:
        """Return what `template` has yet to import, by kind; {} for nothing."""
        names, _ = preload.modules()
        wanted = {"imports": [*modules, *self._learned], "preload": names}
        known = template.asked | self._denied
        missing = {kind: [name for name in names if name not in known] for kind, names in wanted.items()}
        return missing if any(missing.values()) else {}

    @staticmethod
    def _wishes(missing: dict[str, list[str]]) -> dict[str, Any]:
        nothing: dict[str, Any] = {"imports": [], "preload": []}
        return {**nothing, **missing, "on_error": preload.modules()[1]}

    def _order_spares(self, template: Template, modules: Iterable[str], *, between: bool = False) -> None:
        """Have the next children forked ahead, those that there are replaced if they lack a module."""
        if template is self._current:
            self.spares.order(template, self._wishes(self._missing(template, modules)), between=between)

    def _fitting(self, wanted: dict[str, Any]) -> Template:
        description = {key: value for key, value in wanted.items() if key != _MODULES}
        current = self._current
        if current is not None and (self._unprepared or current.description == description):
            return current
        if current is not None:
            self.spares.drop()
            current.retire()
            self._replaced.append(current)
        self._replaced = [template for template in self._replaced if not template.has_left()]
        self._current = Template(None if self._unprepared else description)
        return self._current

    def _replace(self, template: Template, said: bytes) -> None:
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
            if self.spares.template is template:
                self.spares.drop()
            if said[:1] == b"T":
                self._replaced.append(template)
                if not template.is_unfit:  # else it has said so to another thread as well
                    template.is_unfit = True
                    template.retire()
                    self._deny(marshal.loads(said[1:]))
                return
        left_by_itself = template.stop()
        if not template.proven and left_by_itself:
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


def _send_start(line: Line, parcel: Parcel, notes: dict[str, Any], fds: list[int]) -> bool:
    """Send a start on `line`; return whether there is anybody to read it."""
    try:
        lines.send(line.ours, parcel.header, notes, parcel.body, fds)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def set_forkserver_spare(idle_s: float) -> None:
    """Set how long a child that is forked ahead of its start, a spare, waits for one.

    With start method `forkserver` one child is kept ready, so that a start need not wait for a fork; where a
    program starts several at a time, again and again, as many, up to 16. Each takes the memory that it has
    written to, a few megabytes, and runs nothing of the program. When it has waited so long it leaves, and
    the next start forks one as it is needed. It concerns this process alone.

    Args:
        idle_s: Seconds; 30 unless set. 0: no child is forked ahead. Infinity: they stay.

    Raises:
        ValueError: It is negative, or not a number.
    """
    templates.keep_spare(idle_s)


templates = _Templates()
os.register_at_fork(after_in_child=templates.forget)
