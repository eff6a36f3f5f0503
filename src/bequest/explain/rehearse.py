"""Packs what would be started or sent, watched, and starts and sends nothing.

explain(what, args, kwargs) -> Inheritance
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from multiprocessing import process
from time import perf_counter_ns
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from bequest.carry import pickler
from bequest.errors import CarryError
from bequest.explain.build import Builder
from bequest.explain.nodes import Inheritance, Node
from bequest.explain.observe import Observer
from bequest.launch import handoff

_TARGETS = (FunctionType, MethodType, BuiltinFunctionType, type)


def explain(
    what: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, context: Any, as_message: bool
) -> Inheritance:
    """Return the tree of what would be carried; see `bequest.explain`."""
    pickler.dumps(_TARGETS)  # what is loaded with the first message is not the doing of this one
    if isinstance(what, process.BaseProcess) and not as_message:
        return explain_process(what, context)
    if not as_message and (args or kwargs or _is_target(what)):
        context = _carrying(context or _default_context())
        return explain_process(unstarted(context, what, args, kwargs), context)
    return explain_message(what)


def _is_target(what: Any) -> bool:
    import functools

    return isinstance(what, (*_TARGETS, functools.partial))


def explain_message(obj: Any) -> Inheritance:
    """Explain `obj` as an item of a queue."""
    observer, error = Observer(), None
    first_gift = pickler.count_gifts()
    began = perf_counter_ns()
    try:
        packed = pickler.pack(obj, beside=True, observer=observer)
        pickler.give_up_descriptors(packed.shared, first_gift)
    except CarryError as refusal:
        error = refusal
    took_us = (perf_counter_ns() - began) / 1000
    builder = Builder(observer)
    root = builder.message(obj)
    observer.forget()
    mark_refused(root, error)
    return Inheritance(root, "message", root.total_bytes, took_us, error, builder.descriptors)


def explain_process(process_obj: Any, context: Any = None) -> Inheritance:
    """Explain the start of a process.

    Raises:
        ValueError: It has been started already.
    """
    if process_obj._popen is not None:
        raise ValueError(f"{process_obj!r} has been started already: explain a process before its start")
    context = _carrying(context or _context_of(process_obj))
    observer, error = Observer(), None
    began = perf_counter_ns()
    parcel, notes = None, {}
    try:
        parcel, notes = _popen_class(context).rehearse(
            process_obj, strict=context.strict, main=context.main, observer=observer
        )
    except CarryError as refusal:
        error = refusal
    took_us = (perf_counter_ns() - began) / 1000
    told = explain_parcel(parcel, notes, observer, method=context.get_start_method(), took_us=took_us)
    told.error = error
    mark_refused(told.root, error)
    return told


def explain_parcel(
    parcel: Any, notes: dict[str, Any], observer: Observer, *, method: str, took_us: float = 0.0
) -> Inheritance:
    """Explain a start that has been packed.

    Args:
        parcel: `carry.start.Parcel`; None of a start that was refused, which has no header.
        notes: What goes beside the header.
        observer: What watched the pass.
        method: The start method.
        took_us: Microseconds that all of it took; where not known, those of the pass.
    """
    builder = Builder(observer)
    header: dict[str, Any] = {"plain": {}}
    head = b""
    if parcel is not None:
        header, head = parcel.header, b"".join(handoff.encode(parcel.header, notes, b""))
    pass_us = observer.total_ns / 1000
    took_us = took_us or pass_us
    root = builder.start(header, notes, len(head), took_us - pass_us)
    observer.forget()
    return Inheritance(root, method, root.total_bytes, took_us, None, builder.descriptors)


def mark_refused(root: Node, error: CarryError | None) -> None:
    """Mark the node that `error` tells of."""
    if error is None:
        return
    for node in root.walk():
        if node.crosses == "left behind" and (node.path, node.type) == (error.path, error.kind):
            node.is_refused = True


def unstarted(context: Any, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return a process of `context` that leaves no trace: it takes no number, and nobody lists it."""
    from bequest.mirror import rebind

    plain = vars(process)
    upcoming = int(
        repr(plain["_process_counter"]).strip("count()")
    )  # it cannot be looked at without taking it
    aside = {**plain, "_process_counter": itertools.count(upcoming), "_dangling": set()}
    initialize: Any = rebind(process.BaseProcess.__init__, aside)  # type: ignore[arg-type]
    made = context.Process.__new__(context.Process)
    initialize(made, target=target, args=tuple(args), kwargs=dict(kwargs))
    return made


def _default_context() -> Any:
    from bequest.contexts import default_context

    method = default_context.get_start_method(allow_none=True)  # what is not chosen yet stays so
    return default_context.get_context(method or default_context._default_context.get_start_method())


def _context_of(process_obj: Any) -> Any:
    from bequest.contexts import default_context

    kind = type(process_obj)
    if kind._start_method is None:
        return _default_context()
    strict, main = getattr(kind, "_strict", False), getattr(kind, "_main", "replay")
    return default_context.get_context(kind._start_method, strict=strict, main=main)


def _carrying(context: Any) -> Any:
    """Return `context`, or `spawn` with the same options where the start method carries nothing."""
    if context.get_start_method() != "fork":
        return context
    return context.get_context("spawn", strict=context.strict, main=context.main)


def _popen_class(context: Any) -> Any:
    if context.get_start_method() == "forkserver":
        from bequest.launch.template import Popen

        return Popen
    from bequest.launch.spawn import Popen as SpawnedPopen

    return SpawnedPopen
