"""One pass over an object graph: what a message holds, in the order in which a receiver rebuilds it.

    dumps(obj) -> bytes that `pickle.loads` reads wherever bequest can be imported
    pack(obj, starting=True, ...) -> Packed: the same for a process about to start, and what was left behind

The stream is a plain pickle of protocol 5: a prologue that names the dicts which are one per process (`__main__`'s,
`builtins`', `sys.modules`), the object, and behind it the state of modules and the explanations of stand-ins.
The C pickler does the work; where the graph is too deep for its recursion, the pass is made again by the Python
one, whose depth is memory alone. What nobody can carry becomes a stand-in first; whether that is allowed is
decided when the whole message is known.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from bequest.carry import classes, functions, instances, modules, namespaces, registry
from bequest.carry.leftbehind import Explanation, LeftBehind, explanation_of
from bequest.carry.path import Path, find_paths
from bequest.carry.reach import ModuleState, Reach
from bequest.carry.registry import NotCarriedError
from bequest.errors import CarryError

_ATOMS = frozenset((int, float, str, bytes, bool, type(None), complex))
_PROTOCOL = 5


class LeftObject:
    """An object that was left behind, in the process that packed the message.

    Attributes:
        obj: The object itself.
        explanation: What the receiver's stand-in says; its path is filled in when the message is complete.
        cause: What its own way to be pickled raised, or None.
        often_held: As in `NotCarriedError`.
    """

    __slots__ = ("cause", "explanation", "obj", "often_held")

    def __init__(
        self, obj: Any, explanation: Explanation, cause: BaseException | None, often_held: bool
    ) -> None:
        self.obj, self.explanation, self.cause, self.often_held = obj, explanation, cause, often_held


class Packed:
    """A packed message.

    Attributes:
        data: The pickle.
        keep: Objects that must stay alive here until the receiver has rebuilt the message.
        left: What was left behind.
    """

    __slots__ = ("data", "keep", "left")

    def __init__(self, data: bytes, keep: list[object], left: list[LeftObject]) -> None:
        self.data, self.keep, self.left = data, keep, left


class _Tail:
    """Stands behind the object in every message: reduced last, when all that it tells of is known."""


def _first(obj: Any, tail: Any) -> Any:
    return obj


class PackingPickler:
    """What the C pickler and the Python one have in common; see the module's docstring."""

    dump: Callable[[Any], None]

    def __init__(
        self, file: Any, *, starting: bool, root: Any, remake: Callable[[str], str | None] | None
    ) -> None:
        super().__init__(file, _PROTOCOL)  # type: ignore[call-arg]
        self.starting = starting
        self.root = root
        self.kept: list[object] = []
        self.left: dict[int, LeftObject] = {}
        self.paths: dict[int, Path] = {}
        self.reach = Reach(self)
        self._remake = remake
        self._references: dict[int, Any] = {}
        self._globals_index: dict[int, tuple[str, str]] | None = None
        self._seed(file)

    def _seed(self, file: Any) -> None:
        """Write a prologue that puts this process's well-known dicts into both memos.

        A dict of exact type is pickled by content without asking anybody; known to the memo, it is a reference.
        """
        seeds = (
            (sys.modules["__main__"].__dict__, b"main_namespace"),
            (namespaces.builtins_namespace(), b"builtins_namespace"),
            (sys.modules, b"all_modules"),
        )
        file.write(b"\x80\x05")
        for _, name in seeds:
            file.write(b"cbequest.carry.namespaces\n" + name + b"\n)R\x940")
        self.memo = {id(known): (index, known) for index, (known, _) in enumerate(seeds)}
        self.dispatch_table = _registered_reducers()

    def pack(self, obj: Any) -> None:
        """Write the message."""
        self.dump(_Message(obj))

    # -- what reducers ask for -------------------------------------------------------------------------------

    def share_fd(self, fd: int) -> Any:
        """Return what gives the receiver its own duplicate of `fd`; see `registry.Packing`."""
        from multiprocessing import reduction

        return reduction.DupFd(fd)

    def keep(self, obj: object) -> None:
        """Keep `obj` alive until the receiver has the message."""
        self.kept.append(obj)

    def namespace_reference(self, module: ModuleType) -> Any:
        """Return an object whose pickle is the namespace of `module` in the receiver."""
        if modules.is_main(module):
            return module.__dict__
        reference = self._references.get(id(module))
        if reference is None:
            reference = self._references[id(module)] = _NamespaceOf(module)
            self.reach.module(module)
        return reference

    def bindings(self, module: ModuleType, names: Iterable[str]) -> Any:
        """Return the present bindings of a namespace that travels by value."""
        return namespaces.pack_bindings(module.__name__, module.__dict__, names)

    def bindings_of_class(self, kind: type) -> Any:
        """Return the binding of a class under its own name, where its namespace travels by value."""
        module = sys.modules.get(kind.__module__)
        name = kind.__qualname__.partition(".")[0]
        if module is None or modules.is_importable(module) or module.__dict__.get(name) is not kind:
            return None
        return self.namespace_reference(module), self.bindings(module, (name,))

    def lenient_bindings(self, module: ModuleType, names: Iterable[str]) -> Any:
        """Return bindings without those whose objects cannot be carried."""
        values = self.carriable({name: module.__dict__[name] for name in names})
        return namespaces.pack_bindings(module.__name__, module.__dict__, values)

    def carriable(self, values: dict[Any, Any]) -> dict[Any, Any]:
        """Return the items of `values` that can be carried, at least on their own level."""
        return {key: value for key, value in values.items() if self._can_reduce(value)}

    def _can_reduce(self, value: Any) -> bool:
        if type(value) in _ATOMS or type(value) in (dict, list, tuple, set, frozenset, FunctionType):
            return True
        before = set(self.left)
        self.reducer_override(value)
        fresh = set(self.left) - before
        for key in fresh:
            del self.left[key]
        return not fresh

    # -- the pass --------------------------------------------------------------------------------------------

    def reducer_override(self, obj: Any) -> Any:
        """Reduce one object; asked by the pickler for all but exact builtin containers and atoms."""
        kind = type(obj)
        reduce = _OWN.get(kind)
        if reduce is not None:
            return self._guarded(reduce, obj)
        if isinstance(obj, type):
            return self._guarded(classes.reduce_class, obj)
        found = registry.find(kind)
        if found is not None:
            return self._guarded(found, obj)
        return self._instance(obj, kind)

    def _guarded(self, reduce: Callable[[Any, Any], Any], obj: Any) -> Any:
        try:
            return reduce(obj, self)
        except NotCarriedError as refusal:
            return self._leave(obj, refusal, refusal.__cause__)

    def _instance(self, obj: Any, kind: type) -> Any:
        """Reduce an instance: as its own module's object, as a copy of what it holds, or by its own way."""
        place = self._as_global(obj, kind)
        if place is not None:
            _, (_, base, value), state, *_ = instances.reduce_by_state(obj)
            return (
                namespaces.find_global,
                (*place, kind, base, value),
                state,
                None,
                None,
                namespaces.set_global,
            )
        if kind in self.dispatch_table:
            return NotImplemented
        if classes.is_enum_member(obj):
            return classes.reduce_enum_member(obj, self)
        if isinstance(obj, BaseException):
            from bequest.carry import exceptions

            return exceptions.reduce_exception(obj, self)
        shape = _shape_of(kind)
        if shape is _PLAIN:
            return NotImplemented
        if shape is _COPIED or (shape is _OWN_WAY_BUT_USERS and self.starting):
            return instances.reduce_by_state(obj) if self._state_crosses(obj, shape) else self.own_way(obj)
        return self.own_way(obj)

    def _state_crosses(self, obj: Any, shape: int) -> bool:
        """Tell whether all that a user's object holds directly can be carried.

        Where not, and its class says how it is pickled, that is what its author has done about it.
        """
        if shape is _COPIED:
            return True
        held = {**(instances.instance_dict(obj) or {}), **instances.read_slots(obj)}
        return all(self._is_light(value) or self._can_reduce(value) for value in held.values())

    @staticmethod
    def _is_light(value: Any) -> bool:
        return type(value) in _ATOMS or _shape_of(type(value)) is _PLAIN

    def own_way(self, obj: Any) -> Any:
        """Reduce an object by its own `__reduce_ex__`, so that what that raises can be told with its path."""
        singleton = _library_global(obj)
        if singleton is not None:
            return singleton
        try:
            reduced = obj.__reduce_ex__(_PROTOCOL)
        except Exception as error:  # noqa: BLE001 - whatever a user's method raises is the reason that is told
            return self._fall_back(obj, error)
        if isinstance(reduced, str):
            return self._by_its_name(obj, reduced)
        return reduced

    def _fall_back(self, obj: Any, error: BaseException) -> Any:
        kind = type(obj)
        if instances.can_copy(kind) and kind.__module__.partition(".")[0] not in sys.stdlib_module_names:
            return instances.reduce_by_state(obj)
        text = str(error).rstrip(".") or type(error).__name__
        return self._leave(obj, NotCarriedError(text, "Make it in the process that uses it"), error)

    def _by_its_name(self, obj: Any, name: str) -> Any:
        """Serve an object that says it is a global; where no import finds it, it goes by what it holds."""
        module = sys.modules.get(getattr(obj, "__module__", None) or "")
        if module is not None and modules.is_importable(module):
            return name
        if module is None or not modules.is_main(module):
            return name
        if instances.can_copy(type(obj)):
            return instances.reduce_by_state(obj)
        refusal = NotCarriedError(
            f"it is known only as {name} of __main__", "Put it into a module of its own"
        )
        return self._leave(obj, refusal, None)

    def _as_global(self, obj: Any, kind: type) -> tuple[str, str] | None:
        """Return (module, name) where `obj` is a global of a user module, to be found there by the receiver.

        In a message to a running process only a bare sentinel is: anything else is sent for what it holds now.
        """
        if kind is not object and not (self.starting and _is_users_class(kind) and instances.can_copy(kind)):
            return None
        found = modules.user_modules()
        if not found:
            return None
        if self._globals_index is None:
            self._globals_index = {
                id(value): (name, key)
                for name, module in found
                for key, value in list(module.__dict__.items())
                if not key.startswith("__")
            }
        return self._globals_index.get(id(obj))

    def _leave(self, obj: Any, refusal: NotCarriedError, cause: BaseException | None) -> Any:
        """Put a stand-in in the place of `obj`, or the statement that makes it again in the receiver."""
        remade = self._made_again(obj)
        if remade is not None:
            return remade
        if id(obj) not in self.left:
            explanation = Explanation("", describe_kind(obj), refusal.reason, refusal.remedy)
            self.left[id(obj)] = LeftObject(obj, explanation, cause, refusal.often_held)
        return LeftBehind, (self.left[id(obj)].explanation,)

    def _made_again(self, obj: Any) -> Any:
        if self._remake is None:
            return None
        for name, value in list(sys.modules["__main__"].__dict__.items()):
            if value is obj:
                statement = self._remake(name)
                if statement is not None:
                    return make_again, (name, statement)
        return None

    def tail(self) -> Iterator[Any]:
        """Yield what stands behind the object: module state, then explanations, until both are exhausted."""
        told: set[int] = set()
        while True:
            yield from self.reach.items()
            fresh = [left for key, left in list(self.left.items()) if key not in told]
            if not fresh:
                return
            told |= {id(left.obj) for left in fresh}
            self.paths |= find_paths(self.root, [left.obj for left in fresh])
            for left in fresh:
                left.explanation.path = str(self.paths[id(left.obj)])
                yield _Explained(left.explanation)
            yield from (None, None, None)


class _Message:
    """The root of the pickle: rebuilt, it is the object that was packed."""

    def __init__(self, obj: Any) -> None:
        self.obj = obj


class _NamespaceOf:
    """Rebuilt, it is the namespace of a module."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module


class _Explained:
    """An explanation whose path is known now."""

    def __init__(self, explanation: Explanation) -> None:
        self.explanation = explanation


def explain(explanation: Explanation, path: str) -> None:
    """Complete a stand-in's explanation in the receiver."""
    explanation.path = path


def make_again(name: str, statement: str) -> Any:
    """Run the top-level statement of the main module that makes global `name`, and return what it made."""
    namespace = namespaces.main_namespace()
    exec(compile(statement, namespace.get("__file__") or "<main>", "exec"), namespace)  # noqa: S102
    return namespace[name]


def _reduce_message(message: _Message, packing: PackingPickler) -> Any:
    return _first, (message.obj, _Tail())


def _reduce_tail(tail: _Tail, packing: PackingPickler) -> Any:
    return ModuleState, (), None, packing.tail()


def _reduce_namespace(reference: _NamespaceOf, packing: PackingPickler) -> Any:
    module = reference.module
    if modules.is_importable(module):
        return namespaces.module_namespace, (module.__name__,)
    return namespaces.made_namespace, (module.__name__,)


def _reduce_explained(explained: _Explained, packing: PackingPickler) -> Any:
    return explain, (explained.explanation, explained.explanation.path)


def _reduce_stand_in(stand_in: LeftBehind, packing: PackingPickler) -> Any:
    return LeftBehind, (explanation_of(stand_in),)


_OWN: dict[type, Callable[[Any, Any], Any]] = {
    FunctionType: functions.reduce_function,
    MethodType: functions.reduce_method,
    CellType: functions.reduce_cell,
    CodeType: functions.reduce_code,
    ModuleType: functions.reduce_module,
    staticmethod: functions.reduce_wrapper,
    classmethod: functions.reduce_wrapper,
    property: functions.reduce_property,
    type: classes.reduce_class,
    LeftBehind: _reduce_stand_in,
    _Message: _reduce_message,
    _Tail: _reduce_tail,
    _NamespaceOf: _reduce_namespace,
    _Explained: _reduce_explained,
}

# How instances of a class are reduced.
_PLAIN, _COPIED, _OWN_WAY_BUT_USERS, _OWN_WAY = range(4)
_shapes: dict[type, int] = {}


def _shape_of(kind: type) -> int:
    try:
        return _shapes[kind]
    except KeyError:
        shape = _shapes[kind] = _find_shape(kind)
        return shape


def _find_shape(kind: type) -> int:
    """Say how to reduce instances of a class.

    Pickle's default rebuilds what it took, unless the class takes part in making, reading or setting its
    instances: then the copy that runs nothing of the class is the one that is right.
    """
    if issubclass(kind, ModuleType):
        return _OWN_WAY
    has_own_way = (
        kind.__reduce_ex__ is not object.__reduce_ex__
        or kind.__reduce__ is not object.__reduce__
        or kind.__getstate__ is not object.__getstate__  # type: ignore[attr-defined]
        or hasattr(kind, "__setstate__")
        or hasattr(kind, "__getnewargs__")
        or hasattr(kind, "__getnewargs_ex__")
    )
    is_users = _is_users_class(kind)
    if not instances.can_copy(kind):
        return _OWN_WAY
    if has_own_way and _only_builtin_way(kind):
        has_own_way = False
    if has_own_way:
        return _OWN_WAY_BUT_USERS if is_users else _OWN_WAY
    if not is_users and kind.__module__ != "__main__":
        return _OWN_WAY
    takes_part = (
        kind.__new__ is not object.__new__
        or hasattr(kind, "__getattr__")
        or kind.__getattribute__ is not object.__getattribute__
        or kind.__setattr__ is not object.__setattr__
        or instances.solid_base(kind) is not object
    )
    return _COPIED if takes_part else _PLAIN


def _only_builtin_way(kind: type) -> bool:
    """Tell whether the only pickling methods of a class are those of its builtin base (`int.__getnewargs__`)."""
    base = instances.solid_base(kind)
    return base is not object and all(
        getattr(kind, name, None) is getattr(base, name, None)
        for name in (
            "__reduce_ex__",
            "__reduce__",
            "__getstate__",
            "__setstate__",
            "__getnewargs__",
            "__getnewargs_ex__",
        )
    )


def _is_users_class(kind: type) -> bool:
    """Tell whether a class is user code: of `__main__`, of a user module, or of a module that nobody finds."""
    module = sys.modules.get(kind.__module__)
    return module is None or modules.is_main(module) or modules.is_user_module(module)


_merged: dict[str, Any] = {"sizes": (-1, -1), "table": {}}


def _registered_reducers() -> dict[type, Any]:
    """Return the reducers that the user registered, with `copyreg` or with `ForkingPickler.register`."""
    reduction = sys.modules.get("multiprocessing.reduction")
    extra: dict[type, Any] = {} if reduction is None else reduction.ForkingPickler._extra_reducers
    sizes = (len(extra), len(copyreg.dispatch_table))
    if _merged["sizes"] != sizes:
        _merged.update(sizes=sizes, table={**copyreg.dispatch_table, **extra})
    table: dict[type, Any] = _merged["table"]
    return table


def _library_global(obj: Any) -> Any:
    """Return the reduction of an object that is a global of the library module which defines its class.

    A sentinel such as `dataclasses.MISSING` is compared by identity: the receiver's own is meant.
    """
    kind = type(obj)
    module = sys.modules.get(kind.__module__)
    if module is None or modules.is_main(module) or kind.__reduce_ex__ is not object.__reduce_ex__:
        return None
    if kind.__module__ == "builtins" or modules.is_user_module(module):
        return None
    for name, value in list(module.__dict__.items()):
        if value is obj:
            return namespaces.find_attribute, (module.__name__, name)
    return None


def describe_kind(obj: Any) -> str:
    """Return the qualified type name of an object, and its own name where it has one (a generator, a thread)."""
    kind = type(obj)
    text = (
        kind.__qualname__
        if kind.__module__ in ("builtins", "__main__")
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    name = getattr(obj, "__qualname__", None) if kind.__module__ == "builtins" else None
    return f"{text} {name}" if isinstance(name, str) else text


class _CPickler(PackingPickler, pickle.Pickler):
    """The pass in C."""


class _DeepPickler(PackingPickler, pickle._Pickler):  # type: ignore[name-defined,misc]
    """The pass in Python, for graphs deeper than the C pickler's recursion.

    Calls from Python to Python take no C stack, except (in 3.11) those with starred arguments, so that `save`
    must not pass a reduction on as `save_reduce(*reduced)`, which is what it does in the base class.
    """

    def reducer_override(self, obj: Any) -> Any:
        """Reduce as the C pickler would: that one does not ask about exact builtin types."""
        return NotImplemented if type(obj) in _BUILTIN_KINDS else super().reducer_override(obj)

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        """Save one object and what it holds."""
        if type(obj) in _BUILTIN_KINDS or id(obj) in self.memo:
            _save_builtin(self, obj, save_persistent_id)
            return
        self.framer.commit_frame()
        reduced = self.reducer_override(obj)
        if reduced is NotImplemented:
            reduced = self._default(obj)
        if reduced is None:
            self.save_global(obj)
        elif isinstance(reduced, str):
            self.save_global(obj, reduced)
        else:
            function, args, state, items, pairs, setter = (*reduced, None, None, None, None)[:6]
            self.save_reduce(function, args, state, items, pairs, setter, obj=obj)

    def _default(self, obj: Any) -> Any:
        """Return pickle's own reduction, or None for what goes by its name."""
        registered = self.dispatch_table.get(type(obj))
        if registered is not None:
            return registered(obj)
        return None if isinstance(obj, type | FunctionType) else obj.__reduce_ex__(_PROTOCOL)


_save_builtin = pickle._Pickler.save  # type: ignore[attr-defined]
_BUILTIN_KINDS = frozenset(pickle._Pickler.dispatch) - {type, FunctionType}  # type: ignore[attr-defined]


def dumps(obj: Any) -> bytes:
    """Pack `obj` as a message: what a queue item, a pipe message, a task or a result is.

    Args:
        obj: Anything. It is not changed, and what it is at this moment is what the receiver gets.

    Returns:
        A pickle for `pickle.loads` in any process of the same Python that can import bequest.

    Raises:
        CarryError: Some part of `obj` cannot exist in another process; says which, where it stands and why.
            Nothing has been sent.
    """
    if type(obj) in _ATOMS:
        return pickle.dumps(obj, _PROTOCOL)
    return pack(obj).data


def pack(
    obj: Any,
    *,
    root: Any = None,
    starting: bool = False,
    strict: bool = False,
    remake: Callable[[str], str | None] | None = None,
) -> Packed:
    """Pack `obj`, with all that stands for this message.

    Args:
        obj: What is packed.
        root: What paths are told from, where that is not `obj`: the process object that is about to start.
        starting: Whether the receiver is a process about to start; then fork's promise holds.
        strict: Whether anything left behind is refused.
        remake: Gives the statement that makes a global of the main module again, or None for no such.

    Raises:
        CarryError: As in `dumps`; when `starting`, only for what the child is bound to use.
    """
    options: dict[str, Any] = {"starting": starting, "root": obj if root is None else root, "remake": remake}
    file = io.BytesIO()
    try:
        pickler: Any = _CPickler(file, **options)
        pickler.pack(obj)
    except RecursionError:
        file = io.BytesIO()
        pickler = _pack_deep(obj, file, options)
    left = list(pickler.left.values())
    for entry in left:
        if strict or _is_refused(pickler.paths[id(entry.obj)], starting or entry.often_held):
            about = entry.explanation
            raise CarryError(about.path, about.kind, about.reason, about.remedy) from entry.cause
    return Packed(file.getvalue(), pickler.kept, left)


def _is_refused(path: Path, lenient: bool) -> bool:
    """Tell whether leaving an object behind is refused where the message is packed.

    A start has fork's promise to keep, so only what the child is bound to use is refused; of any other message
    all is, but for what only hangs on a global that carried code reads.
    """
    return path.is_bound_to_be_used if lenient else not path.goes_through_global


_deep_lock = threading.Lock()


def _pack_deep(obj: Any, file: Any, options: dict[str, Any]) -> Any:
    """Make the pass in Python under a recursion limit that only memory bounds."""
    with _deep_lock:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, 10_000_000))
        try:
            pickler = _DeepPickler(file, **options)
            pickler.pack(obj)
            return pickler
        finally:
            sys.setrecursionlimit(limit)
