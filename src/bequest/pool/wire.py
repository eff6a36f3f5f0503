"""What a pool and one of its workers say to each other, and the memory that both see.

    pool -> worker: TASKS (a table, then their payloads), FUNCTION, LARGE_FUNCTION, FORGET, QUIT
    worker -> pool: VALUE, LARGE, ERROR, UNSENDABLE, SKIPPED for a task; READY, FAILED, FULL; TEXT, RECORD

A record is a head (tag, number, length) and as many bytes. Both sides number the tasks of a worker alike,
from 1 on. The shared page makes three things certain that a stream cannot: which task a worker had begun when
it was killed, which results it had not sent yet, and that a task taken back has not begun.

The descriptors of large data (`carry.buffers`) go through a side channel, ahead of the record that needs
them: that of a BESIDE payload, LARGE_FUNCTION, LARGE.

Light on purpose: a worker imports this. Nothing here starts or follows a process.
"""

from __future__ import annotations

import mmap
import os
from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# In every record: what is not a record is most unlikely to have it.
MAGIC = 0x6271_7000
MOST_KIND = 0xFF

# To a worker. The number of TASKS is how many, that of FUNCTION and FORGET the function's.
TASKS, FUNCTION, FORGET, QUIT, LARGE_FUNCTION = range(1, 6)

# From a worker, UNREBUILT where a task could not be. The number is the task's; that of TEXT is the
# stream's: 1 or 2.
VALUE, ERROR, UNSENDABLE, SKIPPED, READY, FAILED, FULL, TEXT, RECORD, UNREBUILT, LARGE = range(16, 27)
OUTCOMES = frozenset((VALUE, LARGE, ERROR, UNSENDABLE, UNREBUILT, SKIPPED))

HEAD = Struct("<IIQ")
HEAD_BYTES = HEAD.size

ENTRY = Struct("<IQ")  # of the table of TASKS: function and way of calling, size of the payload
WAY_BITS = 4
CALL, ITEM, ARGUMENTS, CHUNK, STARRED = range(5)
"""How a payload is given to its function: (args, kwargs), one item, args, a chunk of items, one of args."""
BESIDE = 8
"""Added to the way of a payload whose large data goes beside it."""

# The shared page: words, one byte for each task that is taken back, the lengths of long results, the journal.
BEGUN, COMMITTED, GENERATION, TASK_NS, FINISHED = range(5)
SLOTS = 2048
"""More tasks than a worker is ever given at a time: a slot for each, used in turn."""
_FLAGS_AT, _LENGTHS_AT, _JOURNAL_AT = 1024, 4096, 4096 + 8 * SLOTS
JOURNAL_BYTES = 65536
LAST_WORDS_AT = _JOURNAL_AT + JOURNAL_BYTES
"""Behind the journal, where `faulthandler` of the worker writes."""
_LAST_WORDS_BYTES = 16384
PAGE_BYTES = LAST_WORDS_AT + _LAST_WORDS_BYTES


class GarbledError(Exception):
    """What came over a channel is not what the other side sends."""


class Page:
    """Memory shared between a pool and one worker.

    Attributes:
        words: BEGUN, the last task begun; COMMITTED, the end of the journal; GENERATION, how often the
            journal was emptied; TASK_NS, what the last tasks took each; FINISHED, the last task finished.
        flags: For each slot, whether its task is taken back; written by the pool.
        lengths: For each slot, how long its result is where the journal has no room for it: what a stream
            says about itself is not to be trusted with an allocation.
        journal: Records of tasks done, which the worker has perhaps not sent yet.
    """

    __slots__ = ("_memory", "_view", "flags", "journal", "lengths", "words")

    def __init__(self, fd: int) -> None:
        """Map the file `fd`, which stays the caller's and may be closed."""
        self._memory = mmap.mmap(fd, PAGE_BYTES)
        self._view: Any = memoryview(self._memory)
        self.words: Any = self._view[:64].cast("Q")
        self.flags: Any = self._view[_FLAGS_AT : _FLAGS_AT + SLOTS]
        self.lengths: Any = self._view[_LENGTHS_AT:_JOURNAL_AT].cast("Q")
        self.journal: Any = self._view[_JOURNAL_AT:LAST_WORDS_AT]

    def unsent(self) -> bytes:
        """Return the journal as far as it is written; of a worker that runs, empty where it is being emptied.

        Within one generation the journal only grows, so a copy that saw no change of it is whole.
        """
        generation = self.words[GENERATION]
        copy = bytes(self.journal[: self.words[COMMITTED]])
        return copy if self.words[GENERATION] == generation else b""

    def last_words(self) -> str:
        """Return what `faulthandler` wrote when the worker crashed; mostly nothing."""
        text, _, _ = bytes(self._view[LAST_WORDS_AT:PAGE_BYTES]).partition(b"\0")
        return text.decode("utf-8", "replace")

    def close(self) -> None:
        """Unmap the memory."""
        for view in (self.words, self.flags, self.lengths, self.journal, self._view):
            view.release()
        self._memory.close()


def head(kind: int, number: int, length: int) -> bytes:
    """Return the head of a record."""
    return HEAD.pack(MAGIC | kind, number, length)


def kind_of(tag: int) -> int:
    """Return the kind that a head's tag tells.

    Raises:
        GarbledError: It is no tag.
    """
    kind = tag ^ MAGIC
    if kind > MOST_KIND:
        raise GarbledError(f"a record that begins with {tag:#x}")
    return kind


def page_file() -> int:
    """Return a new file for a `Page`, owned by the caller."""
    from bequest.launch.handoff import anonymous_file

    fd = anonymous_file()
    os.ftruncate(fd, PAGE_BYTES)
    return fd
