"""The children that are kept forked ahead of their start, the spares: which there are, how many are wanted.

    starts -> Pace -> how many at once            Spares.order -> lines to children that wait -> Spares.take

One is wanted, unless a program starts several at a time again and again: it has as many forked ahead as the
last two rounds of its starts had in common. Who asks for them, and for which template, is `template`'s doing.
"""

from __future__ import annotations

import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.launch.ordering import Line, Template

SPARE_IDLE_S = 30.0
"""How long a child forked ahead waits for its start, unless `set_forkserver_spare` says otherwise."""

_MOST = 16
_PAUSE_S = 0.2  # between two starts, after which they do not belong to one round; a busy machine makes 0.05


class Pace:
    """How many processes the program starts in one go: a round, which a pause or a wait for a process ends.

    Attributes:
        wanted: How many of them it pays to fork ahead.
    """

    def __init__(self) -> None:
        self.wanted = 1
        self._last_s = 0.0
        self._count = self._before = 0

    def started(self, now_s: float) -> None:
        """Note a start at `now_s`, of any clock that never goes back."""
        if now_s - self._last_s > _PAUSE_S:
            self.end_round()
        self._last_s = now_s
        self._count += 1

    def end_round(self) -> None:
        """Note that the program waits for what it has started: further starts are another round."""
        if self._count:
            # What has happened once may never again: a pool that is there for the rest of the program.
            self.wanted = max(1, min(self._count, self._before, _MOST))
            self._before, self._count = self._count, 0

    def forget(self) -> None:
        """Forget the rounds before this one."""
        self.wanted, self._before = 1, 0


class Spares:
    """The spares of one process, as it sees them; all of one template. The caller holds a lock.

    Attributes:
        idle_s: How long each waits for its start; 0 for none at all.
        pace: How many are wanted.
    """

    def __init__(self) -> None:
        self.idle_s = SPARE_IDLE_S
        self.pace = Pace()
        self._lines: deque[Line] = deque()  # the oldest first: it has been forked, if any has

    @property
    def lines(self) -> list[Line]:
        """The lines to them, the oldest first; they stay this object's."""
        return list(self._lines)

    @property
    def template(self) -> Template | None:
        """The template that they are forked by; None where there are none."""
        return self._lines[0].template if self._lines else None

    def take(self) -> Line | None:
        """Return the line to one that a start may be sent to, now the caller's; None where there is none."""
        self.pace.started(time.monotonic())
        if not self._lines:
            return None
        while self._lines:
            line = self._lines.popleft()
            if line.may_serve():
                return line
            line.close()
        self.pace.forget()  # they have waited in vain
        return None

    @property
    def are_few(self) -> bool:
        """Whether there are some, but not as many as are wanted."""
        return 0 < len(self._lines) < self.pace.wanted

    def order(self, template: Template, wishes: dict[str, Any], *, between: bool = False) -> None:
        """See to it that there are as many as are wanted; no error where that cannot be.

        Args:
            template: The one of those that are there, if there are any.
            wishes: As for `Template.order`; where anything is to be imported, those that are there lack it.
            between: Whether it is between two rounds. Within one they are asked for by the half, since each
                request wakes the template up.
        """
        if wishes["imports"] or wishes["preload"]:
            self.drop()
        wanted = self.pace.wanted
        while len(self._lines) > wanted:
            self._lines.pop().close()
        if not self.idle_s or not template.can_spare or len(self._lines) * (1 if between else 2) > wanted:
            return
        try:
            self._lines += template.order(wishes, self.idle_s, wanted - len(self._lines))
        except OSError:  # at a limit: the next start will say so, if it still holds by then
            pass

    def drop(self) -> None:
        """Give all of them up: they leave."""
        while self._lines:
            self._lines.pop().close()
