"""Reads a pickle as what it is made of: which bytes of the stream stand for which object.

    bytes -> Reader(data).read() -> Span, the root of a tree of spans; Reader.memo: number -> Span

Nothing is built or imported. A span covers one object from its first opcode to its last, so the sizes of
spans add up to the length of the stream. What the objects mean is not known here (see `tree`).
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

MESSAGE, ATOM, GLOBAL, REFERENCE, BUFFER = "message", "atom", "global", "reference", "buffer"
TUPLE, LIST, DICT, SET, MADE = "tuple", "list", "dict", "set", "made"


class Span:
    """The bytes of one object.

    Attributes:
        start: Offset of its first byte.
        end: Offset behind its last byte.
        kind: One of the constants above; MADE is the result of a call.
        value: Of an atom itself; of a global "module name"; of a reference the number in the memo; of a
            buffer, which is not in the stream itself, its number.
        memo: Its own number in the memo, or None.
        parts: Members of a tuple, list or set; of what is MADE, the arguments.
        pairs: Items of a dict, or those set on what is MADE.
        call: What makes it.
        state: What fills it afterwards.
        setter: What does so, where that is a function of its own.
        items: What is appended to what is MADE.
        beside: What was written on the way and thrown away again.
    """

    # Most spans are atoms, which have none of these.
    memo: int | None = None
    parts: Sequence[Span] = ()
    pairs: Sequence[tuple[Span, Span]] = ()
    items: Sequence[Span] = ()
    beside: Sequence[Span] = ()
    call: Span | None = None
    state: Span | None = None
    setter: Span | None = None

    def __init__(self, kind: str, start: int, end: int, value: Any = None) -> None:
        self.kind, self.start, self.end, self.value = kind, start, end, value

    @property
    def size(self) -> int:
        """Its length in bytes, with all that it holds."""
        return self.end - self.start


_MARK: Any = object()
_SMALL_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_EMPTY = {"EMPTY_LIST": LIST, "EMPTY_DICT": DICT, "EMPTY_SET": SET}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class Reader:
    """One pass over a stream; see the module's docstring.

    Attributes:
        memo: The spans by their numbers in the memo.
        buffers: Where buffers are called for that are not in the stream, and their numbers.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.memo: list[Span] = []
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._waiting: list[Span] = []  # thrown away just now
        self._end = 0
        self.buffers: list[tuple[int, int]] = []

    def read(self) -> Span:
        """Return the span of the whole stream, with the object as its only part.

        Raises:
            ValueError: The stream has an opcode that no pickler of protocol 5 writes.
        """
        operations = pickletools.genops(self._data)
        code, argument, position = next(operations)
        for following in operations:
            self._operate(code.name, argument, position or 0, following[2] or 0)
            code, argument, position = following
        root = Span(MESSAGE, 0, len(self._data))
        root.parts = [self._stack.pop()]
        return root

    def _operate(self, name: str, argument: Any, start: int, end: int) -> None:
        self._end = end
        act: Callable[[Reader, str, Any, int], None] | None = _ACTS.get(name)
        if act is not None:
            act(self, name, argument, start)
        elif name in _CONSTANTS:
            self._push(Span(ATOM, start, end, _CONSTANTS[name]))
        elif name.startswith(("BIN", "SHORT_BIN", "LONG", "BYTEARRAY")):
            self._push(Span(ATOM, start, end, argument))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"unexpected opcode {name} at byte {start}")

    def _push(self, span: Span) -> None:
        if self._waiting:
            span.start = min(span.start, self._waiting[0].start)
            span.beside = [*span.beside, *self._waiting]
            self._waiting = []
        span.end = self._end
        self._stack.append(span)

    def _since_mark(self) -> list[Span]:
        place = self._marks.pop()
        found = self._stack[place + 1 :]
        del self._stack[place:]
        return found

    # -- opcodes ------------------------------------------------------------------------------------------

    def _mark(self, name: str, argument: Any, start: int) -> None:
        self._marks.append(len(self._stack))
        self._stack.append(_MARK)

    def _memoize(self, name: str, argument: Any, start: int) -> None:
        top = self._stack[-1]
        if top.memo is None:
            top.memo = len(self.memo)
        top.end = self._end
        self.memo.append(top)

    def _get(self, name: str, argument: Any, start: int) -> None:
        self._push(Span(REFERENCE, start, self._end, argument))

    def _empty(self, name: str, argument: Any, start: int) -> None:
        self._push(Span(_EMPTY[name], start, self._end))

    def _global(self, name: str, argument: Any, start: int) -> None:
        self._push(Span(GLOBAL, start, self._end, argument))

    def _stack_global(self, name: str, argument: Any, start: int) -> None:
        text = self._stack.pop()
        module = self._stack.pop()
        made = Span(GLOBAL, module.start, self._end, f"{self.text(module)} {self.text(text)}")
        made.parts = [module, text]
        self._push(made)

    def text(self, span: Span) -> str:
        """Return the text that a span is, or refers to."""
        return str(self.resolve(span).value)

    def resolve(self, span: Span) -> Span:
        """Return what a reference refers to; any other span itself."""
        return self.memo[span.value] if span.kind == REFERENCE else span

    def _tuple(self, name: str, argument: Any, start: int) -> None:
        parts = self._since_mark()
        self._make_tuple(parts, start)

    def _small_tuple(self, name: str, argument: Any, start: int) -> None:
        count = _SMALL_TUPLES[name]
        parts = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        self._make_tuple(parts, start)

    def _make_tuple(self, parts: list[Span], start: int) -> None:
        made = Span(TUPLE, parts[0].start if parts else start, self._end)
        made.parts = parts
        self._push(made)

    def _frozenset(self, name: str, argument: Any, start: int) -> None:
        parts = self._since_mark()
        made = Span(SET, parts[0].start - 1 if parts else start - 1, self._end)
        made.parts = parts
        self._push(made)

    def _add(self, name: str, argument: Any, start: int) -> None:
        added = [self._stack.pop()] if name == "APPEND" else self._since_mark()
        top = self._stack[-1]
        if top.kind == MADE:
            top.items = _longer(top.items, added)
        else:
            top.parts = _longer(top.parts, added)
        top.end = self._end

    def _set_items(self, name: str, argument: Any, start: int) -> None:
        if name == "SETITEM":
            value = self._stack.pop()
            flat = [self._stack.pop(), value]
        else:
            flat = self._since_mark()
        top = self._stack[-1]
        top.pairs = _longer(top.pairs, list(zip(flat[::2], flat[1::2], strict=True)))
        top.end = self._end

    def _call(self, name: str, argument: Any, start: int) -> None:
        named = self._stack.pop() if name == "NEWOBJ_EX" else None
        arguments = self._stack.pop()
        call = self._stack.pop()
        made = Span(MADE, call.start, self._end)
        made.call = call
        made.parts = [arguments, *([named] if named is not None else ())]
        self._push(made)

    def _build(self, name: str, argument: Any, start: int) -> None:
        state = self._stack.pop()
        self._stack[-1].state = state
        self._stack[-1].end = self._end

    def _pop(self, name: str, argument: Any, start: int) -> None:
        if self._stack[-1] is _MARK:
            self._stack.pop()
            self._marks.pop()
            return
        gone = self._stack.pop()
        gone.end = self._end
        top = self._stack[-1] if self._stack else None
        if top is not None and top is not _MARK and self._is_filling(gone, top):
            top.setter, top.state = gone.call, gone.parts[0].parts[1]
            top.end = self._end
        else:
            self._waiting.append(gone)

    def _is_filling(self, gone: Span, top: Span) -> bool:
        """Tell whether a call that is thrown away is one that fills the object below it."""
        if gone.kind != MADE or gone.parts[0].kind != TUPLE or len(gone.parts[0].parts) != 2:
            return False
        first = gone.parts[0].parts[0]
        return first.kind == REFERENCE and self.memo[first.value] is top

    def _buffer(self, name: str, argument: Any, start: int) -> None:
        self._push(Span(BUFFER, start, self._end, len(self.buffers)))
        self.buffers.append((start, len(self.buffers)))

    def _read_only(self, name: str, argument: Any, start: int) -> None:
        self._stack[-1].end = self._end

    def _pop_mark(self, name: str, argument: Any, start: int) -> None:
        self._waiting += self._since_mark()


def _longer(before: Sequence[Any], added: list[Any]) -> list[Any]:
    """Return a list with `added` at its end; the one that is there, if it is one."""
    if not isinstance(before, list):
        return added
    before += added
    return before


_ACTS: dict[str, Callable[[Reader, str, Any, int], None]] = {
    "MARK": Reader._mark,
    "MEMOIZE": Reader._memoize,
    "BINGET": Reader._get,
    "LONG_BINGET": Reader._get,
    "GLOBAL": Reader._global,
    "STACK_GLOBAL": Reader._stack_global,
    "TUPLE": Reader._tuple,
    "FROZENSET": Reader._frozenset,
    "APPEND": Reader._add,
    "APPENDS": Reader._add,
    "ADDITEMS": Reader._add,
    "SETITEM": Reader._set_items,
    "SETITEMS": Reader._set_items,
    "REDUCE": Reader._call,
    "NEWOBJ": Reader._call,
    "NEWOBJ_EX": Reader._call,
    "BUILD": Reader._build,
    "NEXT_BUFFER": Reader._buffer,
    "READONLY_BUFFER": Reader._read_only,
    "POP": Reader._pop,
    "POP_MARK": Reader._pop_mark,
    **dict.fromkeys(_EMPTY, Reader._empty),
    **dict.fromkeys(_SMALL_TUPLES, Reader._small_tuple),
}


def subspans(span: Span) -> Iterator[Span]:
    """Yield the spans that `span` directly consists of, in no order."""
    yield from span.parts
    yield from span.items
    yield from span.beside
    for key, value in span.pairs:
        yield key
        yield value
    for part in (span.call, span.setter, span.state):
        if part is not None:
            yield part
