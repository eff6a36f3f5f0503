"""How an object crosses, told from what makes it in the receiver.

(span, object) -> crossing_of -> "by name", "by value", "rebuilt", "descriptor" ...
"""

from __future__ import annotations

from types import FunctionType, MethodType
from typing import Any

from bequest.carry import arrival, classes, functions, instances, namespaces
from bequest.carry.deferred import Deferred
from bequest.carry.leftbehind import LeftBehind
from bequest.carry.objects import callables
from bequest.explain import stream
from bequest.explain.holdings import View
from bequest.explain.nodes import Crossing
from bequest.explain.stream import Span

_CROSSINGS: dict[Any, Crossing] = {
    LeftBehind: "left behind",
    arrival.make_again: "made again",
    Deferred: "on demand",
    namespaces.find_global: "module global",
    **dict.fromkeys(
        (
            namespaces.main_namespace,
            namespaces.main_module,
            namespaces.import_module,
            namespaces.module_namespace,
            namespaces.find_attribute,
            callables.find_function,
            getattr,
        ),
        "by name",
    ),
    **dict.fromkeys(
        (
            functions.make_function,
            functions.load_code,
            functions.replace_constants,
            classes.make_class,
            classes.find_enum_member,
            instances.create,
            namespaces.made_module,
            namespaces.made_namespace,
            MethodType,
            property,
            staticmethod,
            classmethod,
            set,
            frozenset,
            complex,
            bytearray,
            range,
            slice,
        ),
        "by value",
    ),
}
# Their instances are told by the module of what rebuilds them, which need not be loaded here.
_MAPPED = ("bequest.carry.buffers", "multiprocessing.shared_memory", "multiprocessing.heap", "bequest.heap")
# What open files are made of, layer by layer.
_INNER = ("_io", "bequest.carry.objects.descriptors", "multiprocessing.connection", "bequest.connection")
_DESCRIPTORS = ("InheritedFd", "ReceivedFd", "DupFd", "DupSocket")


def crossing_of(view: View, span: Span) -> Crossing:
    """Return how the object of a span crosses; of a reference, "reference"."""
    if span.kind == stream.REFERENCE:
        return "reference"
    if span.kind == stream.GLOBAL:
        return "by name"
    if span.kind == stream.BUFFER:
        return "shared memory"
    if span.kind != stream.MADE:
        return "by value"
    maker = view.made_by(span)
    known = _known(maker)
    if known is not None:
        return known
    if getattr(maker, "__module__", None) in _MAPPED:
        return "shared memory"
    if _is_beside(span):
        return "shared memory"
    if has_descriptor(view, span):
        return "descriptor"
    return "by value" if _is_plain(view, span, maker) else "rebuilt"


def _is_beside(span: Span) -> bool:
    """Tell whether an object is directly made from a buffer that the receiver maps."""
    waiting = [part for part in (*span.parts, span.state) if part is not None]
    while waiting:
        part = waiting.pop()
        if part.kind == stream.BUFFER:
            return True
        if part.kind == stream.TUPLE:
            waiting += part.parts
    return False


def _known(maker: Any) -> Crossing | None:
    try:
        return _CROSSINGS.get(maker)
    except TypeError:  # what makes it cannot be hashed
        return None


def _is_plain(view: View, span: Span, maker: Any) -> bool:
    """Tell whether an object is of a class that is made empty and filled with attributes."""
    arguments = span.parts[0]
    no_arguments = arguments.kind == stream.TUPLE and not arguments.parts
    return maker is type(view.object_of(span)) and not isinstance(maker, FunctionType) and no_arguments


def has_descriptor(view: View, span: Span) -> bool:
    """Tell whether an object is made from a descriptor beside the message, directly or layer by layer."""
    waiting = [part for part in (*span.parts, span.state) if part is not None]
    while waiting:
        part = waiting.pop()
        if part.kind == stream.MADE and getattr(view.made_by(part), "__name__", "") in _DESCRIPTORS:
            return True
        if part.kind == stream.TUPLE or (
            part.kind == stream.MADE and type(view.object_of(part)).__module__ in _INNER
        ):
            waiting += [*part.parts, *([] if part.state is None else [part.state])]
    return False
