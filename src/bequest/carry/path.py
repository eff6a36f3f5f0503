"""Where in a graph an object stands, in the user's own words.

find_paths(root, objects) -> {id: Path}, by one breadth-first walk, made only when something is to be told

target work (job.py:12) -> closure packer          args[0]['feed']['source']
target Upload.finish (up.py:8) -> self.checks[0]['digest']
"""

from __future__ import annotations

import functools
import gc
import sys
from collections import deque
from collections.abc import Iterator
from types import BuiltinMethodType, CellType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any

from bequest.carry import instances, modules
from bequest.carry.reads import reads

_ATOMS = instances.ATOMS | {range}
_HEAPTYPE = 1 << 9
_MADE_OF_LOCKS = ("multiprocessing.queues", "multiprocessing.synchronize", "multiprocessing.sharedctypes")
_TOLD_DEPTH = 60  # steps of a path that are told; a longer one is cut in the middle


class Path:
    """A way from the root of a message to one object.

    Attributes:
        steps: Pairs of kind and text; the kinds are root, function, self, closure, global, name (a global
            that only code which may ask for any name can touch), default, item, attribute, own (an attribute
            without which its owner is of no use), part.
    """

    __slots__ = ("steps",)

    def __init__(self, steps: tuple[tuple[str, str], ...]) -> None:
        self.steps = steps

    def __str__(self) -> str:
        text = ""
        steps = self.steps
        if len(steps) > _TOLD_DEPTH:
            half = _TOLD_DEPTH // 2
            steps = (*steps[:half], ("part", f"... {len(steps) - 2 * half} steps ..."), *steps[-half:])
        for kind, step in steps:
            glued = kind in ("item", "attribute", "own") or not text
            text += step if glued else f" {step}" if kind == "function" else f" -> {step}"
        return text

    @property
    def is_bound_to_be_used(self) -> bool:
        """Whether a child that runs the target is bound to touch the object.

        So it is with the target itself, the object whose method it is, an argument itself, and what the
        target's own code closes over or reads; and with the locks that such a queue or event is made of.
        """
        kinds = [kind for kind, _ in self.steps if kind != "own"]
        if kinds and kinds[0] == "root":
            kinds = [kind for kind in kinds[1:] if kind != "function"]
        return kinds in ([], ["item"], ["self"], ["closure"], ["global"])

    @property
    def goes_through_global(self) -> bool:
        """Whether the object is only there because carried code reads a global that leads to it."""
        return any(kind in ("global", "name") for kind, _ in self.steps)


def find_paths(root: Any, wanted: list[Any]) -> dict[int, Path]:
    """Return a shortest path from `root` to each of the objects `wanted`; unreached ones get a vague path.

    Args:
        root: What was packed. A process object is walked as its target and arguments, then its attributes.
        wanted: The objects to find, by identity.
    """
    missing = {id(obj) for obj in wanted}
    found: dict[int, Path] = {}
    seen: set[int] = set()
    keep: list[Any] = []  # walked objects may be temporary: their ids must not be used again meanwhile
    queue: deque[tuple[Any, tuple[tuple[str, str], ...]]] = deque(_roots(root))
    while queue and missing:
        obj, steps = queue.popleft()
        if id(obj) in seen:
            continue
        seen.add(id(obj))
        keep.append(obj)
        if id(obj) in missing:
            missing.discard(id(obj))
            found[id(obj)] = Path(steps)
        if type(obj) not in _ATOMS:
            queue.extend((child, (*steps, *more)) for child, *more in children(obj))
    for obj in wanted:
        found.setdefault(id(obj), Path((("part", "something that the message holds"),)))
    return found


def _roots(root: Any) -> Iterator[tuple[Any, Any]]:
    process = sys.modules.get("multiprocessing.process")
    if process is None or not isinstance(root, process.BaseProcess):
        name = (("function", describe_function(root)),) if isinstance(root, FunctionType | MethodType) else ()
        yield root, (("root", "object"), *name)
        return
    state = instances.instance_dict(root) or {}
    target = state.get("_target")
    if target is not None:
        yield target, (("root", "target"), *_naming(target))
    for index, value in enumerate(state.get("_args") or ()):
        yield value, (("root", "args"), ("item", f"[{index}]"))
    for name, value in (state.get("_kwargs") or {}).items():
        yield value, (("root", "kwargs"), ("item", f"[{name!r}]"))
    run = type(root).run
    if isinstance(run, FunctionType) and run is not process.BaseProcess.run:
        yield run, (("root", "process"), ("function", describe_function(run)))
    hidden = ("_target", "_args", "_kwargs")
    for attribute, value in state.items():
        if attribute not in hidden:
            yield value, (("root", "process"), ("attribute", f".{attribute}"))
    for child, *more in children(type(root)):
        yield child, (("root", "process"), ("part", describe_class(type(root))), *more)


def _naming(target: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(target, FunctionType | MethodType):
        return (("function", describe_function(target)),)
    return ()


def describe_function(function: Any) -> str:
    """Return the qualified name of a function or method, with file and line."""
    inner = getattr(function, "__func__", function)
    code = getattr(inner, "__code__", None)
    name = str(getattr(inner, "__qualname__", repr(function))).replace("<locals>.", "")
    return name if code is None else f"{name} ({code.co_filename.rpartition('/')[2]}:{code.co_firstlineno})"


def describe_class(kind: type) -> str:
    """Return the qualified name of a class."""
    return f"class {kind.__qualname__}"


def children(obj: Any) -> Iterator[tuple[Any, ...]]:
    """Yield (child, step, ...) for what `obj` holds; several steps where two are told at once."""
    kind = type(obj)
    walk = _WALKS.get(kind)
    if walk is not None:
        yield from walk(obj)
    elif isinstance(obj, type):
        yield from _class_children(obj)
    else:
        yield from _instance_children(obj)


def _dict_children(obj: dict[Any, Any]) -> Iterator[tuple[Any, ...]]:
    for key, value in list(obj.items()):
        yield value, ("item", f"[{shorten(key)}]")
        if type(key) not in _ATOMS:
            yield key, ("part", f"key {shorten(key)}")


def _sequence_children(obj: Any) -> Iterator[tuple[Any, ...]]:
    for index, value in enumerate(obj):
        yield value, ("item", f"[{index}]")


def _set_children(obj: Any) -> Iterator[tuple[Any, ...]]:
    for value in list(obj):
        yield value, ("part", f"member {shorten(value)}")


def _function_children(function: FunctionType) -> Iterator[tuple[Any, ...]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        for content in _cell_children(cell):
            yield content[0], ("closure", f"closure {name}")
    by_name = modules.goes_by_name(function)
    if not by_name:
        found = reads(function.__code__)
        namespace = function.__globals__
        for name in found.names:
            if name in namespace:
                yield namespace[name], ("global", f"global {name}")
        for name in list(namespace) if found.whole else ():
            yield namespace[name], ("name", f"name {name}")
    for value in function.__defaults__ or ():
        yield value, ("default", "default")
    for name, value in {**(function.__kwdefaults__ or {}), **function.__dict__}.items():
        yield value, ("attribute", f".{name}")


def _method_children(method: MethodType) -> Iterator[tuple[Any, ...]]:
    yield method.__self__, ("self", "self")
    for child, *more in (
        _function_children(method.__func__) if isinstance(method.__func__, FunctionType) else ()
    ):
        yield child, *more


def _builtin_method_children(method: Any) -> Iterator[tuple[Any, ...]]:
    if not isinstance(method.__self__, ModuleType):
        yield method.__self__, ("self", "self")


def _cell_children(cell: CellType) -> Iterator[tuple[Any, ...]]:
    try:
        yield (cell.cell_contents,)
    except ValueError:  # an empty cell holds nothing
        return


def _partial_children(obj: Any) -> Iterator[tuple[Any, ...]]:
    yield obj.func, ("attribute", ".func"), *_naming(obj.func)
    for index, value in enumerate(obj.args):
        yield value, ("attribute", f".args[{index}]")
    for name, value in obj.keywords.items():
        yield value, ("attribute", f".keywords[{name!r}]")
    for name, value in obj.__dict__.items():
        yield value, ("attribute", f".{name}")


def _wrapper_children(obj: Any) -> Iterator[tuple[Any, ...]]:
    yield obj.__func__, ("function", describe_function(obj.__func__))


def _property_children(obj: property) -> Iterator[tuple[Any, ...]]:
    for function in (obj.fget, obj.fset, obj.fdel):
        if function is not None:
            yield function, ("function", describe_function(function))


def _module_children(module: ModuleType) -> Iterator[tuple[Any, ...]]:
    if modules.is_main(module) or modules.is_user_module(module):
        for name, value in list(module.__dict__.items()):
            if not name.startswith("__"):
                yield value, ("global", f"global {module.__name__}.{name}")


def _class_children(kind: type) -> Iterator[tuple[Any, ...]]:
    module = sys.modules.get(kind.__module__)
    if not kind.__flags__ & _HEAPTYPE or (
        module is not None and modules.is_importable(module) and not modules.is_user_module(module)
    ):
        return
    for name, value in list(kind.__dict__.items()):
        if not name.startswith("__") or isinstance(value, FunctionType):
            yield value, ("part", f"{describe_class(kind)}.{name}")
    for base in kind.__bases__:
        yield base, ("part", describe_class(base))


def _instance_children(obj: Any) -> Iterator[tuple[Any, ...]]:
    held = {**(instances.instance_dict(obj) or {}), **instances.read_slots(obj)}
    kind = "own" if _is_made_of_locks(obj) else "attribute"
    for name, value in held.items():
        yield value, (kind, f".{name}")
    base = instances.solid_base(type(obj))
    if base in _WALKS and base in (dict, list, tuple, set, frozenset):
        yield from _WALKS[base](base(obj))
    elif base is not object or isinstance(obj, BaseException):
        if isinstance(obj, BaseException):
            yield obj.args, ("attribute", ".args")
        for value in gc.get_referents(obj):
            if not isinstance(value, type) and type(value) not in _ATOMS:
                yield value, ("part", f"what this {type(obj).__qualname__} holds")
    if type(obj).__flags__ & _HEAPTYPE:
        yield type(obj), ("part", describe_class(type(obj)))


def _is_made_of_locks(obj: Any) -> bool:
    return any(base.__module__ in _MADE_OF_LOCKS for base in type(obj).__mro__)


def shorten(key: Any) -> str:
    """Return a short text for a key or a plain value; of other objects, their type."""
    text = repr(key) if type(key) in _ATOMS or type(key) is tuple else f"<{type(key).__qualname__}>"
    return text if len(text) <= 40 else text[:37] + "..."


_WALKS: dict[type, Any] = {
    dict: _dict_children,
    list: _sequence_children,
    tuple: _sequence_children,
    deque: _sequence_children,
    set: _set_children,
    frozenset: _set_children,
    FunctionType: _function_children,
    MethodType: _method_children,
    BuiltinMethodType: _builtin_method_children,
    MethodWrapperType: _builtin_method_children,
    CellType: _cell_children,
    functools.partial: _partial_children,
    staticmethod: _wrapper_children,
    classmethod: _wrapper_children,
    property: _property_children,
    ModuleType: _module_children,
}
