"""Watches a pass over an object graph: what it wrote, which objects stand where, how long each took.

    pickler.pack(obj, observer=Observer()) -> Observer.data, .buffers, .objects, .left, .clock()

The pass is the one that packs, and knows nothing of this module: with an observer a class derived from its
pickler makes it, without one the pickler itself.
"""

from __future__ import annotations

import bisect
from time import perf_counter_ns
from typing import Any

from bequest.carry.buffers import Stream
from bequest.carry.leftbehind import LeftObject


class Observer:
    """What was seen of the last pass; a pass that had to be made again counts as made once.

    Attributes:
        data: The stream.
        buffers: Sizes in bytes of the buffers that were kept out of it.
        objects: The objects, by their numbers in the stream's memo. They live as long as this list.
        left: What was left behind, by id.
        total_ns: How long the pass took, in nanoseconds.
        reach: What the code that was met can see of modules.
        root: What was packed: a process object, or what is sent.
        named: Modules that the receiver imports.
    """

    def __init__(self) -> None:
        self.data = b""
        self.buffers: list[int] = []
        self.objects: dict[int, Any] = {}
        self.left: dict[int, LeftObject] = {}
        self.total_ns = 0
        self.reach: Any = None
        self.root: Any = None
        self.named: set[str] = set()
        self._began = 0
        self._depth = 0
        self._events: list[tuple[int, int, int]] = []  # begin, end, id of the object that was reduced

    def watching(self, kind: Any) -> Any:
        """Return the class that makes the pass in place of the pickler class `kind`."""
        self._events, self._depth, self._began = [], 0, perf_counter_ns()
        observer = self

        class Watched(kind):  # type: ignore[misc]  # known only when it is made
            def keep(self, obj: Any) -> None:
                if not observer.lets_go(obj):
                    super().keep(obj)

            def reducer_override(self, obj: Any) -> Any:
                began = perf_counter_ns()
                observer._depth += 1
                try:
                    return super().reducer_override(obj)
                finally:
                    observer._depth -= 1
                    if not observer._depth:  # within another's it is only a question whether it can be done
                        observer._events.append((began, perf_counter_ns(), id(obj)))

        return Watched

    def lets_go(self, obj: Any) -> bool:
        """Tell whether an object that the message refers to is not to be kept alive until it has arrived."""
        return False

    def done(self, pickler: Any, stream: Stream) -> None:
        """Take over what the pickler knows, before it forgets it."""
        self.total_ns = perf_counter_ns() - self._began
        self.data, self.buffers = stream.joined(), [view.nbytes for view in stream.buffers]
        self.objects = {number: obj for number, obj in pickler.memo.copy().values()}
        self.left = dict(pickler.left)
        self.reach, self.named, self.root = pickler.reach, set(pickler.named), pickler.root

    def forget(self) -> None:
        """Let go of the objects; the class that watched them is in a cycle with this, and stays a while."""
        self.objects, self.left, self.root, self.reach = {}, {}, None, None

    def clock(self, starts: dict[int, int]) -> Clock:
        """Return what tells how much time a range of the stream took.

        Args:
            starts: Where in the stream each object begins, by the number in the memo.
        """
        position_of = {
            id(self.objects[number]): start for number, start in starts.items() if number in self.objects
        }
        places, reduced, written = [0], [0], [0]
        reduced_ns, last_end = 0, self._began
        for began, ended, key in self._events:
            position = position_of.get(key)
            if position is None or position < places[-1]:
                continue
            places.append(position)
            written.append(written[-1] + max(began - last_end, 0))
            reduced_ns += ended - began
            reduced.append(reduced_ns)
            last_end = ended
        places.append(len(self.data))
        written.append(written[-1] + max(self._began + self.total_ns - last_end, 0))
        reduced.append(reduced_ns)
        return Clock(places, reduced, written)


class Clock:
    """Microseconds by ranges of the stream.

    An object is reduced right before its first byte is written, so that time falls on that byte. What the
    pickler did between two reductions falls evenly on the bytes between them.
    """

    def __init__(self, places: list[int], reduced_ns: list[int], written_ns: list[int]) -> None:
        self._places, self._reduced, self._written = places, reduced_ns, written_ns

    def between(self, start: int, end: int) -> float:
        """Return the microseconds that the bytes from `start` to `end` took."""
        return (self._until(end) - self._until(start)) / 1000

    def _until(self, position: int) -> float:
        # The reductions at `position` itself belong to what begins there, which is not before it.
        place = max(bisect.bisect_left(self._places, position) - 1, 0)
        here, after = self._places[place], self._places[min(place + 1, len(self._places) - 1)]
        share = (position - here) / (after - here) if after > here else 0.0
        step = self._written[min(place + 1, len(self._written) - 1)] - self._written[place]
        return self._reduced[place] + self._written[place] + share * step if position else 0.0
