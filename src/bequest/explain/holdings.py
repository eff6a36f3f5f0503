"""What an object holds, as it stands in the stream, under the names that its user knows.

    View(spans, objects).holdings(span) -> [Holding(step, span), ...]

What reducers make on the way (tuples of arguments, dicts of attributes, cells) is seen through. A reducer
that is not known here is seen through as well: what it passes on is found in the object itself
(`carry.path`), or else called a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

from bequest.carry import arrival, classes, functions, instances, namespaces
from bequest.carry.path import children, describe_class, describe_function, shorten
from bequest.explain import stream
from bequest.explain.stream import Span

Step = tuple[str, str]


class Holding:
    """One thing that is held.

    Attributes:
        step: Kind and text, as in `carry.path.Path`.
        span: Where it is in the stream.
        is_named: Whether its user gave it a name of its own, so that it is shown however small.
    """

    __slots__ = ("is_named", "span", "step")

    def __init__(self, step: Step, span: Span, is_named: bool = False) -> None:
        self.step, self.span, self.is_named = step, span, is_named


class View:
    """A stream together with the objects that it was made of."""

    def __init__(self, spans: list[Span], objects: dict[int, Any]) -> None:
        self._spans, self._objects = spans, objects

    def resolve(self, span: Span) -> Span:
        """Return what a reference refers to; any other span itself."""
        return self._spans[span.value] if span.kind == stream.REFERENCE else span

    def object_of(self, span: Span) -> Any:
        """Return the object that a span stands for: an atom's value, or what the memo has."""
        found = self.resolve(span)
        if found.kind == stream.ATOM and found.memo not in self._objects:
            return found.value
        return self._objects.get(found.memo) if found.memo is not None else None

    def made_by(self, span: Span) -> Any:
        """Return the function or class that makes what a span stands for, or None."""
        return self.object_of(span.call) if span.call is not None else None

    def holdings(self, span: Span) -> list[Holding]:
        """Return what `span` holds, in the order of the stream."""
        handler: Callable[[View, Span], Iterator[Holding]] | None = _KINDS.get(span.kind)
        if span.kind == stream.MADE:
            handler = _MAKERS.get(_key(self.made_by(span)), View._of_any)
        if handler is None:
            return []
        found = list(handler(self, span))
        if span.kind == stream.MADE:
            found += self._rest(span, {id(holding.span) for holding in found})
        return sorted(found, key=lambda holding: holding.span.start)

    # -- containers ------------------------------------------------------------------------------------------

    def _members(self, span: Span) -> Iterator[Holding]:
        for index, part in enumerate(span.parts):
            yield Holding(("item", f"[{index}]"), part)

    def _of_set(self, span: Span) -> Iterator[Holding]:
        for part in span.parts:
            yield Holding(("part", f"member {shorten(self.object_of(part))}"), part)

    def _pairs(self, span: Span) -> Iterator[Holding]:
        for key, value in span.pairs:
            text = shorten(self.object_of(key))
            if key.kind not in (stream.ATOM, stream.REFERENCE):
                yield Holding(("part", f"key {text}"), key)
            yield Holding(("item", f"[{text}]"), value)

    def _attributes(
        self, span: Span | None, *, prefix: str = ".", kind: str = "attribute"
    ) -> Iterator[Holding]:
        """Yield the values of a dict of names, which is not the user's own."""
        if span is None:
            return
        for key, value in self.resolve(span).pairs if span.kind == stream.DICT else ():
            yield Holding((kind, f"{prefix}{self.object_of(key)}"), value, is_named=kind == "global")

    def _bound(self, packed: Span | None) -> Iterator[Holding]:
        """Yield what `carry.bindings.pack` has packed."""
        if packed is not None and packed.kind == stream.TUPLE and len(packed.parts) == 4:
            yield from self._attributes(packed.parts[2], prefix="global ", kind="global")

    # -- by what makes them ----------------------------------------------------------------------------------

    def _of_function(self, span: Span) -> Iterator[Holding]:
        function = self.object_of(span)
        names = function.__code__.co_freevars if isinstance(function, FunctionType) else ()
        cells = span.parts[0].parts[3]
        for name, cell in zip(names, cells.parts, strict=False):
            yield from self._in_cell(cell, ("closure", f"closure {name}"))
        if span.state is None or span.state.kind != stream.TUPLE:
            return
        attributes, bound = span.state.parts
        for key, value in attributes.pairs:
            name = self.object_of(key)
            if name in ("__defaults__", "__kwdefaults__"):
                inner = value.parts or [member for _, member in value.pairs]
                yield from (Holding(("default", "default"), part) for part in inner)
            elif name == "__dict__":
                yield from self._attributes(value)
        yield from self._bound(bound)

    def _in_cell(self, cell: Span, step: Step) -> Iterator[Holding]:
        """Yield the content of a cell; of one that is known already, a reference to it."""
        found = self.resolve(cell)
        if found is cell and cell.state is not None and cell.state.parts:
            yield Holding(step, cell.state.parts[0], is_named=True)
        elif found is not cell:
            yield Holding(step, cell, is_named=True)

    def content(self, span: Span) -> Span:
        """Return what a span stands for, seen through a cell."""
        found = self.resolve(span)
        while type(self.object_of(found)) is CellType and found.state is not None and found.state.parts:
            found = self.resolve(found.state.parts[0])
        return found

    def _of_class(self, span: Span) -> Iterator[Holding]:
        for base in span.parts[0].parts[2].parts:
            yield Holding(("part", self._class_text(base)), base)
        if span.state is None or span.state.kind != stream.TUPLE:
            return
        _, attributes, _, bound, *_ = span.state.parts
        yield from self._attributes(attributes)
        if bound is not None and bound.kind == stream.TUPLE and len(bound.parts) == 2:
            yield from self._bound(bound.parts[1])

    def _of_instance(self, span: Span) -> Iterator[Holding]:
        """An object that `instances.create`, or `namespaces.find_global`, makes and `fill` fills."""
        if span.state is None or span.state.kind != stream.TUPLE or len(span.state.parts) != 3:
            return
        attributes, slots, items = span.state.parts
        yield from self._attributes(attributes)
        yield from self._attributes(slots)
        if items.kind == stream.TUPLE:
            if isinstance(self.object_of(span), dict):
                for pair in items.parts:
                    text = shorten(self.object_of(pair.parts[0])) if pair.parts else ""
                    yield Holding(("item", f"[{text}]"), pair.parts[1] if pair.parts else pair)
            else:
                yield from self._members(items)

    def _of_module(self, span: Span) -> Iterator[Holding]:
        if span.state is not None and span.state.kind == stream.TUPLE:
            yield from self._bound(span.state.parts[1])

    def _of_method(self, span: Span) -> Iterator[Holding]:
        function, owner = span.parts[0].parts
        made = self.object_of(function)
        if function.kind == stream.MADE and isinstance(made, FunctionType):
            yield Holding(("function", describe_function(made)), function)
        yield Holding(("self", "self"), owner, is_named=True)

    def _of_any(self, span: Span) -> Iterator[Holding]:
        """An object of its own way: `copyreg.__newobj__`, a reducer of a type, a user's `__reduce__`."""
        state = span.state
        if state is not None and state.kind == stream.DICT:
            yield from self._attributes(state)
        elif state is not None and state.kind == stream.TUPLE and len(state.parts) == 2:
            for part in state.parts:
                yield from self._attributes(part)
        for index, item in enumerate(span.items):
            yield Holding(("item", f"[{index}]"), item)
        for key, value in span.pairs:
            yield Holding(("item", f"[{shorten(self.object_of(key))}]"), value)

    # -- the rest --------------------------------------------------------------------------------------------

    def _rest(self, span: Span, claimed: set[int]) -> Iterator[Holding]:
        """Yield the objects in what reducers made that no name above has claimed."""
        steps: dict[int, Step] | None = None
        waiting = list(stream.subspans(span))
        while waiting:
            part = waiting.pop()
            is_small = part.kind in (stream.ATOM, stream.GLOBAL, stream.REFERENCE) and not _is_large(part)
            if id(part) in claimed or is_small:
                continue
            obj = self.object_of(part)
            if part.kind == stream.MADE and type(obj) in (CodeType, CellType):
                waiting += [p for p in stream.subspans(part) if type(obj) is CellType]
                continue
            if part.kind not in (stream.MADE, stream.ATOM):
                if steps is None:
                    steps = self._steps_of(self.object_of(span))
                if id(obj) not in steps:
                    waiting += stream.subspans(part)
                    continue
            if steps is None:
                steps = self._steps_of(self.object_of(span))
            step = steps.get(id(obj)) or ("part", self._part_text(part, obj))
            yield Holding(step, part)

    @staticmethod
    def _steps_of(obj: Any) -> dict[int, Step]:
        """Return how the object itself calls what it holds, by id."""
        if obj is None:
            return {}
        return {id(child): steps[-1] for child, *steps in children(obj) if steps}

    def _part_text(self, part: Span, obj: Any) -> str:
        if isinstance(obj, type):
            return describe_class(obj)
        if part.kind == stream.ATOM:
            return "its content"
        return f"its {type(obj).__qualname__}" if obj is not None else "a part of it"

    def _class_text(self, span: Span) -> str:
        kind = self.object_of(span)
        return describe_class(kind) if isinstance(kind, type) else "base class"


LARGE_ATOM_BYTES = 256
"""From this size on a text or bytes object is worth a node of its own."""


def _is_large(part: Span) -> bool:
    return part.kind == stream.ATOM and part.size >= LARGE_ATOM_BYTES


def _key(made_by: Any) -> Any:
    try:
        hash(made_by)
    except TypeError:  # an instance that can be called and compared
        return None
    return made_by


_KINDS: dict[str, Callable[[View, Span], Iterator[Holding]]] = {
    stream.TUPLE: View._members,
    stream.LIST: View._members,
    stream.SET: View._of_set,
    stream.DICT: View._pairs,
}
_MAKERS: dict[Any, Callable[[View, Span], Iterator[Holding]]] = {
    functions.make_function: View._of_function,
    classes.make_class: View._of_class,
    classes.find_enum_member: View._of_instance,
    MethodType: View._of_method,
    instances.create: View._of_instance,
    namespaces.find_global: View._of_instance,
    namespaces.made_module: View._of_module,
}


def module_items(view: View, state: Span) -> Iterator[Holding]:
    """Yield what is laid over modules: globals, attributes of classes, contents of closures.

    Args:
        view: Of the whole message.
        state: The span that `arrival.ModuleState` makes.
    """
    for item in state.items:
        if item.kind != stream.TUPLE or len(item.parts) < 2:
            continue
        what = view.object_of(item.parts[0])
        if what == "global":
            yield from _named(view, item.parts[2], f"{view.object_of(item.parts[1])}.")
        elif what == "new":
            yield from _pairs_named(view, item.parts[2], f"{view.object_of(item.parts[1])}.")
        elif what == "class":
            yield from _pairs_named(view, item.parts[3], f"{_qualified(view.object_of(item.parts[2]))}.")
        elif what == "function":
            yield from _function_state(view, item)


def _function_state(view: View, item: Span) -> Iterator[Holding]:
    root = _qualified(view.object_of(item.parts[2]))
    for key, value in item.parts[5].pairs:
        name = view.object_of(key)
        text = f"closure of {root}" if isinstance(name, int) else f"{root}.{name}"
        yield Holding(("global", text), value, is_named=True)


def _named(view: View, packed: Span, prefix: str) -> Iterator[Holding]:
    if packed.kind == stream.TUPLE and len(packed.parts) == 4:
        yield from _pairs_named(view, packed.parts[2], prefix)


def _pairs_named(view: View, values: Span, prefix: str) -> Iterator[Holding]:
    for key, value in values.pairs:
        yield Holding(("global", f"{prefix}{view.object_of(key)}"), value, is_named=True)


def _qualified(obj: Any) -> str:
    return f"{getattr(obj, '__module__', '')}.{getattr(obj, '__qualname__', obj)}"


def is_carried_module_state(view: View, span: Span) -> bool:
    """Tell whether a span is what stands behind the object of every message."""
    return view.made_by(span) is arrival.ModuleState


def main_names(view: View, span: Span) -> Iterator[Holding]:
    """Yield the names of `__main__` that a start brings because its target asks for names by itself."""
    if span.kind == stream.TUPLE and len(span.parts) == 2:
        yield from _named(view, span.parts[1], "__main__.")
