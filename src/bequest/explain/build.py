"""Builds the tree of what is carried from a stream, the objects in it, and the time that each took.

Observer (after a pass) -> Builder(observer).message() or .start(...) -> Node, the root
"""

from __future__ import annotations

import marshal
from types import FunctionType, MethodType
from typing import Any

from bequest.carry.path import Path, describe_class, describe_function, shorten
from bequest.explain import holdings, stream
from bequest.explain.crossing import crossing_of
from bequest.explain.holdings import Holding, Step, View
from bequest.explain.nodes import Crossing, Node, Read
from bequest.explain.observe import Observer
from bequest.explain.stream import Span
from bequest.explain.variables import variables_read

Steps = tuple[Step, ...]

_DEEPEST = 60  # levels of nodes; what is below is in the bytes of the lowest
_MOST_CHILDREN = 1000  # of one node; the smallest of more are in its own bytes
_SMALL_CONTAINER_BYTES = 64
_CONTAINERS = (stream.TUPLE, stream.LIST, stream.SET, stream.DICT)
_AS_GLOBAL: tuple[Crossing, ...] = ("by name", "by value", "rebuilt", "reference")


class Builder:
    """Makes the nodes of one message; see the module's docstring."""

    def __init__(self, observer: Observer) -> None:
        reader = stream.Reader(observer.data)
        self._message = reader.read()
        self._left = observer.left
        self._buffers = observer.buffers
        self._view = View(reader.memo, observer.objects)
        self._clock = observer.clock({i: span.start for i, span in enumerate(reader.memo)})
        self._shown: dict[int, Node] = {}  # by the number in the memo
        self._count = 0
        self._buffer_starts = reader.buffers
        self.descriptors = sum(1 for span in reader.memo if self._is_descriptor(span))

    def _is_descriptor(self, span: Span) -> bool:
        made_by = self._view.made_by(span)
        return getattr(made_by, "__name__", "") in ("InheritedFd", "ReceivedFd", "DupFd")

    # -- whole messages --------------------------------------------------------------------------------------

    def message(self, obj: Any) -> Node:
        """Return the tree of a message that holds `obj` and is not the start of a process."""
        root = self._part(self._message, "message")
        payload, tail = self._message.parts[0].parts[0].parts
        naming: Steps = (("root", "object"),)
        if isinstance(obj, FunctionType | MethodType):
            naming = (*naming, ("function", describe_function(obj)))
        self._add(root, [Holding(naming[-1], payload, is_named=True)], naming[:-1], 1)
        self._add_module_state(root, tail)
        self._settle(root)
        return root

    def start(
        self, header: dict[str, Any], notes: dict[str, Any], frame_bytes: int, around_us: float
    ) -> Node:
        """Return the tree of the message that starts a process.

        Args:
            header: `carry.start.Parcel.header`.
            notes: What goes beside it.
            frame_bytes: Length of header and notes as they are sent.
            around_us: Microseconds that it took to collect what is in the header and around the pass.
        """
        root = self._new(("part", "message"), (), "", "message")
        payload, tail = self._message.parts[0].parts[0].parts
        ambient, main_state, process = payload.parts
        root.children.append(self._header(header, notes, frame_bytes, around_us))
        body = self._part(self._message, "body")
        root.children.append(body)
        self._add_process(body, process)
        self._add_module_state(body, tail)
        self._add_ambient(body, ambient)
        self._add(body, list(holdings.main_names(self._view, main_state)), (), 1)
        self._settle(body)
        for child in root.children:
            root.total_bytes += child.total_bytes
            root.total_us += child.total_us
            root.beside_bytes += child.beside_bytes
        return root

    def _header(self, header: dict[str, Any], notes: dict[str, Any], size: int, took_us: float) -> Node:
        node = self._new(("part", "header"), (), "dict", "message")
        node.detail = "read by the child before anything is rebuilt"
        node.total_bytes, node.total_us = size, took_us
        pieces = [(f"{family}: {name}", "ambient", value) for family, names in header["plain"].items()
                  for name, value in names.items()]  # fmt: skip
        pieces += [(key, "message", value) for key, value in {**header, **notes}.items() if key != "plain"]
        before = len(marshal.dumps([]))
        for count, (label, crossing, _) in enumerate(pieces, 1):
            # Each by how much it adds: marshal writes a text that it has met already as a reference.
            after = len(marshal.dumps([value for _, _, value in pieces[:count]]))
            child = self._new(("part", label), (("part", "header"),), "", crossing)  # type: ignore[arg-type]
            child.own_bytes = child.total_bytes = after - before
            before = after
            node.children.append(child)
        node.own_bytes = size - sum(child.total_bytes for child in node.children)
        node.own_us = took_us
        return node

    def _add_process(self, body: Node, span: Span) -> None:
        obj = self._view.object_of(span)
        node = self._part(span, f"process {getattr(obj, 'name', '')}".rstrip(), type_name=_type_of(obj))
        node.crosses = crossing_of(self._view, span)
        body.children.append(node)
        if span.memo is not None:
            self._shown[span.memo] = node
        hidden: list[Holding] = []
        state = self._state_of(span)
        for key, value in state.pairs if state is not None else ():
            name = self._view.object_of(key)
            if name == "_target":
                target = self._view.object_of(value)
                is_function = isinstance(target, FunctionType | MethodType)
                naming = (("function", describe_function(target)),) if is_function else ()
                self._add(node, [Holding(("root", "target"), value, is_named=True)], (), 1, naming)
            elif name == "_args":
                inside = [Holding(("root", f"args[{i}]"), part, True) for i, part in enumerate(value.parts)]
                self._add(node, inside, (), 1)
            elif name == "_kwargs":
                texts = [f"kwargs[{shorten(self._view.object_of(key))}]" for key, _ in value.pairs]
                inside = [Holding(("root", t), v, True) for t, (_, v) in zip(texts, value.pairs, strict=True)]
                self._add(node, inside, (), 1)
            else:
                hidden.append(Holding(("attribute", f".{name}"), value))
        self._add(node, hidden, (("root", "process"),), 1)
        if span.call is not None and span.call.kind == stream.MADE:
            kind = self._view.object_of(span.call)
            self._add(node, [Holding(("part", describe_class(kind)), span.call)], (("root", "process"),), 1)
        self._settle(node)

    def _state_of(self, span: Span) -> Span | None:
        state = span.state
        while state is not None and state.kind == stream.TUPLE and state.parts:
            state = state.parts[0]
        return state if state is not None and state.kind == stream.DICT else None

    def _add_module_state(self, parent: Node, tail: Span) -> None:
        state = tail if holdings.is_carried_module_state(self._view, tail) else None
        if state is None:
            return
        node = self._part(state, "state of modules, and what is said of stand-ins")
        parent.children.append(node)
        self._add(node, list(holdings.module_items(self._view, state)), (), 1)
        for child in node.children:
            if child.crosses in _AS_GLOBAL:
                child.crosses = "module global"
        self._settle(node)

    def _add_ambient(self, body: Node, ambient: Span) -> None:
        node = self._part(ambient, "ambient state")
        body.children.append(node)
        for family, names in ambient.pairs:
            for name, value in names.pairs:
                text = f"{self._view.object_of(family)}: {self._view.object_of(name)}"
                self._add(node, [Holding(("part", text), value, is_named=True)], (("root", "ambient"),), 1)
        for child in node.children:
            if child.crosses in _AS_GLOBAL:
                child.crosses = "ambient"
        self._settle(node)

    # -- nodes -----------------------------------------------------------------------------------------------

    def _new(self, step: Step, above: Steps, kind: str, crosses: Crossing) -> Node:
        number, self._count = self._count, self._count + 1
        return Node(number, step[1], str(Path((*above, step))), kind, crosses)

    def _part(self, span: Span, label: str, type_name: str = "") -> Node:
        node = self._new(("part", label), (), type_name, "message")
        self._measure(node, span)
        return node

    def _measure(self, node: Node, span: Span) -> None:
        node.total_bytes = span.size
        node.beside_bytes = sum(
            self._buffers[number] for start, number in self._buffer_starts if span.start <= start < span.end
        )
        node.total_us = self._clock.between(span.start, span.end)

    def _add(self, parent: Node, held: list[Holding], above: Steps, depth: int, naming: Steps = ()) -> None:
        """Give `parent` nodes for what is held and worth one; what overlaps or is too small is folded."""
        wanted = [holding for holding in held if self._is_shown(holding)]
        parent.folded += len(held) - len(wanted)
        if len(wanted) > _MOST_CHILDREN:
            parent.folded += len(wanted) - _MOST_CHILDREN
            kept = {id(h) for h in sorted(wanted, key=lambda h: -h.span.size)[:_MOST_CHILDREN]}
            wanted = [holding for holding in wanted if id(holding) in kept]
        end = -1
        for holding in wanted:
            if holding.span.start >= end:  # else it is within what stands before it
                end = holding.span.end
                parent.children.append(self._node(holding, above, depth, naming))

    def _is_shown(self, holding: Holding) -> bool:
        span = holding.span
        if holding.is_named:
            return True
        if span.kind == stream.ATOM:
            return span.size >= holdings.LARGE_ATOM_BYTES
        if span.kind == stream.GLOBAL or (
            span.kind == stream.MADE and crossing_of(self._view, span) == "by name"
        ):
            return False
        if span.kind == stream.REFERENCE:
            return self._view.content(span).memo in self._shown
        is_flat = span.kind in _CONTAINERS and all(s.kind == stream.ATOM for s in stream.subspans(span))
        return not is_flat or span.size >= _SMALL_CONTAINER_BYTES

    def _node(self, holding: Holding, above: Steps, depth: int, naming: Steps = ()) -> Node:
        span = holding.span
        obj = self._view.object_of(span)
        if span.kind == stream.REFERENCE:
            obj = self._view.object_of(self._view.content(span))
        node = self._new(holding.step, above, _type_of(obj), crossing_of(self._view, span))
        steps = (*above, holding.step, *naming)
        if naming:
            node.label, node.path = f"{node.label} {naming[0][1]}", str(Path(steps))
        self._measure(node, span)
        if span.kind == stream.REFERENCE:
            self._refer(node, span, obj)
        else:
            self._describe(node, span, obj)
            if depth < _DEEPEST and node.crosses != "left behind":
                held = self._view.holdings(span)
                if node.crosses in (
                    "descriptor",
                    "shared memory",
                ):  # how it is made of them tells a user nothing
                    held = [holding for holding in held if holding.step[0] != "part"]
                self._add(node, held, steps, depth + 1)
                _mark_reads(node)
        self._settle(node)
        return node

    def _refer(self, node: Node, span: Span, obj: Any) -> None:
        found = self._view.content(span)
        shown = self._shown.get(found.memo) if found.memo is not None else None
        if shown is not None:
            node.same_as, node.detail = shown.number, f"as {shown.path}"
        else:
            node.crosses = crossing_of(self._view, found)
            node.detail = _detail(obj)

    def _describe(self, node: Node, span: Span, obj: Any) -> None:
        if span.memo is not None:
            self._shown[span.memo] = node
        node.detail = _detail(obj)
        if isinstance(obj, FunctionType) and node.crosses == "by value":
            node.reads = variables_read(obj.__code__)
        left = self._left.get(id(obj))
        if node.crosses == "left behind" and left is not None:
            about = left.explanation
            node.path, node.reason, node.remedy = about.path or node.path, about.reason, about.remedy
            node.type, node.detail = about.kind, ""

    @staticmethod
    def _settle(node: Node) -> None:
        """Set what is the node's own, now that its children are known."""
        node.own_bytes = node.total_bytes - sum(child.total_bytes for child in node.children)
        node.own_us = max(node.total_us - sum(child.total_us for child in node.children), 0.0)


def _mark_reads(node: Node) -> None:
    """Note at what a function reads where it does; of methods, too, whose function is within."""
    at = {f"{read.scope} {read.name}": _place(read) for read in node.reads}
    for child in node.children:
        child.read_at = at.get(child.label, "")


def _place(read: Read) -> str:
    return f"{read.file.rpartition('/')[2]}:{read.line}"


def _type_of(obj: Any) -> str:
    kind = type(obj)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _detail(obj: Any) -> str:
    if isinstance(obj, FunctionType | MethodType):
        return describe_function(obj)
    if isinstance(obj, type):
        return f"{obj.__module__}.{obj.__qualname__}"
    if type(obj) in (int, float, bool, str, bytes, type(None), complex):
        return shorten(obj)
    if type(obj) in (list, dict, set, tuple, frozenset):
        return f"{len(obj):,} items"
    return ""
