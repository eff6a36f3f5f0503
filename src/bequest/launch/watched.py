"""Where `bequest explain` and `bequest check` look in on starts and messages: one watcher, mostly none.

install(), with BEQUEST_WATCH in the environment -> watching.watcher -> asked by starts, children and messages

Every process of a watched program has one, since the environment passes on. A process that is not watched
pays for one attribute that is None.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VARIABLE = "BEQUEST_WATCH"
"""Environment variable: what watches, and the folder that its reports go to, with a colon between."""


class Watcher:
    """What is told of starts and messages. It must not raise, and must not change what it is shown."""

    def starting(self, process_obj: Any, popen: Any) -> Any:
        """A process is about to be packed; return what observes that (see `carry.pickler.pack`), or None."""

    def packed(self, process_obj: Any, popen: Any, parcel: Any) -> None:
        """A process has been packed and is not begun yet: what takes time is to be done here.

        Args:
            process_obj: The process object.
            popen: What will follow it.
            parcel: What it will be given; see `carry.start.Parcel`.
        """

    def started(self, process_obj: Any, popen: Any, parcel: Any, head_bytes: int) -> None:
        """A process has been started.

        Args:
            process_obj: The process object.
            popen: What follows it, with its `pid`.
            parcel: What it was given; see `carry.start.Parcel`.
            head_bytes: Length of all that went before `parcel.body`.
        """

    def forked(self, process_obj: Any, popen: Any) -> None:
        """A process has been forked from this one: it has a copy of everything, and nothing was packed."""

    def begins(self) -> None:
        """This process is a child which holds all that it was given; its target comes next."""

    def sends(self, obj: Any) -> None:
        """An object is about to be put, sent, submitted or returned."""


class _Watching:
    """Which watcher this process has.

    Attributes:
        watcher: None, but in a watched program.
    """

    watcher: Watcher | None = None


watching = _Watching()
