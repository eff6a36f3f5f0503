"""One pass over an object graph: what both picklers, the one in C and the one in Python, have in common.

    PackingPickler.pack(obj) -> the stream: a prologue, the object, and behind it what is known only then

The prologue names the containers which are one per process (`__main__`'s dict, `sys.path` ...); behind the
object stand the state of modules and the explanations of stand-ins. What nobody can carry becomes a stand-in
first; whether that is allowed is decided when the whole message is known (`pickler`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from bequest.carry import (
    arrival,
    bindings,
    classes,
    deferred,
    derived,
    functions,
    hashed,
    instances,
    modules,
    namespaces,
    registry,
    shapes,
    wellknown,
)
from bequest.carry.dependence import Dependence
from bequest.carry.leftbehind import Explanation, LeftBehind, LeftObject, explanation_of
from bequest.carry.path import Path, find_paths
from bequest.carry.reach import Reach
from bequest.carry.registry import NotCarriedError

Remake = Callable[[str], tuple[str, tuple[str, ...]] | None]
"""Gives the source that makes a global of the main module again and the globals it reads, or None."""

_CAN_BE_COPIED = (shapes.PLAIN, shapes.COPIED, shapes.COPIED_UNLESS_GLOBAL, shapes.OWN_WAY_BUT_USERS)
PROTOCOL = 5


class _Tail:
    """Stands behind the object in every message: reduced last, when all that it tells of is known."""


class PackingPickler:
    """What the C pickler and the Python one have in common; see the module's docstring."""

    dump: Callable[[Any], None]
    memo: Any
    dispatch_table: Any
    is_deep = False

    def __init__(
        self, file: Any, *, starting: bool, root: Any, remake: Remake | None, lightens: bool
    ) -> None:
        super().__init__(file, PROTOCOL, buffer_callback=file.callback)  # type: ignore[call-arg]
        self.starting, self.lightens = starting, lightens
        self.root = root
        self.kept: list[object] = []
        self.shared: list[Any] = []
        self.named: set[Any] = set()  # modules that the receiver will import
        self.dependence = Dependence()
        self.left: dict[int, LeftObject] = {}
        self.paths: dict[int, Path] = {}
        self.payload_left: set[int] = set()  # of `left`, those that are not only there with module state
        self.probed: dict[int, tuple[Any, Any]] = {}  # reductions made ahead of packing, by their object's id
        self.reach = Reach(self)
        bindings.versions.give_up()
        self._remake = remake
        self._references: dict[int, Any] = {}
        self._globals_index: dict[int, tuple[str, str]] | None = None
        prologue, self.memo = wellknown.head(starting)
        file.write(prologue)
        self.dispatch_table = shapes.registered_reducers()

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

    def unlisted_module(self, namespace: dict[str, Any]) -> Any:
        """Return an object whose pickle is the module, not in `sys.modules`, that has this namespace."""
        reference = self._references.get(id(namespace))
        if reference is None:
            reference = self._references[id(namespace)] = _Unlisted(namespace)
        return reference

    def unlisted_namespace(self, namespace: dict[str, Any]) -> Any:
        """Return an object whose pickle is such a module's namespace; None for a dict that is not one's."""
        if not ("__spec__" in namespace and "__loader__" in namespace):  # as `ModuleType` makes them
            return None
        return self.unlisted_module(namespace).its_namespace

    def bindings(self, module: ModuleType, names: Iterable[str]) -> Any:
        """Return the present bindings of a namespace that travels by value."""
        self.dependence.on_names(module.__dict__, names)
        packed = bindings.pack(module.__name__, module.__dict__, names)
        if packed is None or not self.lightens:
            return packed
        maker, key, values, numbers = packed
        return maker, key, self.lightened(values, key), numbers

    def lightened(self, values: dict[Any, Any], holder: Any, *steps: Any) -> dict[Any, Any]:
        """Return state of `holder` as the message brings it: to a running process not all; see `deferred`."""
        return deferred.in_place_of(values, holder, *steps) if self.lightens else values

    def bindings_of_class(self, kind: type) -> Any:
        """Return the binding of a class under its own name, where its namespace travels by value."""
        module = sys.modules.get(kind.__module__)
        name = kind.__qualname__.partition(".")[0]
        if module is None or modules.is_importable(module) or module.__dict__.get(name) is not kind:
            return None
        return self.namespace_reference(module), self.bindings(module, (name,))

    def lenient_bindings(self, module: ModuleType, names: Iterable[str]) -> Any:
        """Return bindings without those whose objects cannot be carried."""
        names = tuple(names)
        self.dependence.on_names(module.__dict__, names)
        values = self.carriable({name: module.__dict__[name] for name in names if name in module.__dict__})
        return self.bindings(module, values)

    def carriable(self, values: dict[Any, Any]) -> dict[Any, Any]:
        """Return the items of `values` that can be carried, at least on their own level."""
        return {key: value for key, value in values.items() if self._can_reduce(value)}

    def _can_reduce(self, value: Any) -> bool:
        kind = type(value)
        if kind in instances.ATOMS or kind in (dict, list, tuple, set, frozenset, FunctionType):
            return True
        if registry.find(kind) is None and shapes.shape_of(kind) in _CAN_BE_COPIED:
            return True  # what it holds in turn is another matter, and perhaps a cycle
        before = set(self.left)
        reduced = self.reducer_override(value)
        fresh = set(self.left) - before
        for key in fresh:
            del self.left[key]
        if not fresh:
            self.probed[id(value)] = (value, reduced)
        return not fresh

    # -- the pass --------------------------------------------------------------------------------------------

    def reducer_override(self, obj: Any) -> Any:
        """Reduce one object; asked by the pickler for all but exact builtin containers and atoms.

        An object is reduced once in a message: reducing may have an effect, such as a duplicated descriptor.
        """
        probed = self.probed.pop(id(obj), None)
        if probed is not None:
            return probed[1]
        kind = type(obj)
        reduce = _OWN.get(kind)
        if reduce is not None:
            if kind is FunctionType and functions.is_rebuilder(obj):
                self.named.add(obj.__module__)
                return NotImplemented
            return self._guarded(reduce, obj)
        # By type: an object may claim any `__class__`, and a lazy proxy would be evaluated to tell.
        if issubclass(kind, type):
            return self._guarded(classes.reduce_class, obj)
        if issubclass(kind, ModuleType):
            return self._guarded(functions.reduce_module, obj)
        self.reach.kinds[kind] = None
        if kind in self.dispatch_table and shapes.is_users_reducer(self.dispatch_table[kind]):
            return self._registered(obj)
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
            return self._found_or_made(obj, place)
        if kind in self.dispatch_table:
            return self._registered(obj)
        if classes.is_enum_member(obj):
            return classes.reduce_enum_member(obj, self)
        if issubclass(kind, BaseException):
            from bequest.carry import exceptions

            return exceptions.reduce_exception(obj, self)
        shape = shapes.shape_of(kind)
        if shape is shapes.PLAIN:
            return instances.reduce_by_state(obj) if hashed.leads_back(obj) else NotImplemented
        if shape is shapes.COPIED and not self.starting and shapes.makes_itself(kind):
            return self.own_way(obj)
        if shape is shapes.COPIED or (shape is shapes.OWN_WAY_BUT_USERS and self.starting):
            return instances.reduce_by_state(obj) if self._state_crosses(obj, shape) else self.own_way(obj)
        return self.own_way(obj)

    def _state_crosses(self, obj: Any, shape: int) -> bool:
        """Tell whether all that a user's object holds directly can be carried.

        Where not, and its class says how it is pickled, that is what its author has done about it.
        """
        if shape is shapes.COPIED:
            return True
        held = {**(instances.instance_dict(obj) or {}), **instances.read_slots(obj)}
        return all(self._is_light(value) or self._can_reduce(value) for value in held.values())

    @staticmethod
    def _is_light(value: Any) -> bool:
        return type(value) in instances.ATOMS or shapes.shape_of(type(value)) is shapes.PLAIN

    def own_way(self, obj: Any) -> Any:
        """Reduce an object by its own `__reduce_ex__`, so that what that raises can be told with its path."""
        singleton = shapes.library_global(obj)
        if singleton is not None:
            return singleton
        shape = shapes.shape_of(type(obj))
        if shape is shapes.COPIED_UNLESS_GLOBAL:
            return instances.reduce_by_state(obj)
        try:
            reduced = self._as_derived(obj) if shape is shapes.DERIVED else None
            if reduced is None:
                reduced = obj.__reduce_ex__(PROTOCOL)
        except RecursionError as error:
            if not self.is_deep:  # perhaps for the depth at which it was asked: the pass in Python will know
                raise
            return self._fall_back(obj, error)
        except Exception as error:  # noqa: BLE001 - whatever a user's method raises is told
            return self._fall_back(obj, error)
        if isinstance(reduced, str):
            return self._by_its_name(obj, reduced)
        return reduced

    def _as_derived(self, obj: Any) -> Any:
        """Reduce an instance of a user's class by the class of C above it; None where that is not the way."""
        if not self.starting and shapes.users_say_how(type(obj)):
            return None
        try:
            return derived.reduce_derived(obj)
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001 - the class above refuses: the object's own way is asked next, and told
            return None

    def _registered(self, obj: Any) -> Any:
        """Reduce an object by the reducer that was registered for its type."""
        try:
            return self.dispatch_table[type(obj)](obj)
        except RecursionError:
            raise
        except Exception as error:  # noqa: BLE001 - as for an object's own way
            return self._fall_back(obj, error)

    def _fall_back(self, obj: Any, error: BaseException) -> Any:
        """Serve an object whose own way fails.

        A process that starts gets what the object holds: fork asks nobody. To one that runs, what the class's
        own code raises goes on as it is, as from any pickler.
        """
        kind = type(obj)
        is_standard = kind.__module__.partition(".")[0] in {*sys.stdlib_module_names, "bequest"}
        text = str(error).rstrip(".") or type(error).__name__
        refusal = NotCarriedError(text, "Make it in the process that uses it")
        if not self.starting and not is_standard and shapes.is_from_python_code(error):
            return self._leave(obj, refusal, error, is_own=True)
        if instances.can_copy(kind) and not is_standard:
            return instances.reduce_by_state(obj)
        return self._leave(obj, refusal, error)

    def _by_its_name(self, obj: Any, name: str) -> Any:
        """Serve an object that says it is a global; where no import finds it, it goes by what it holds."""
        module = sys.modules.get(getattr(obj, "__module__", None) or "")
        if module is not None and modules.is_importable(module):
            return name
        if module is None or not modules.is_main(module):
            return name
        if instances.can_copy(type(obj)):
            return self._found_or_made(obj, ("__main__", name) if module.__dict__.get(name) is obj else None)
        refusal = NotCarriedError(
            f"it is known only as {name} of __main__", "Put it into a module of its own"
        )
        return self._leave(obj, refusal, None)

    def _found_or_made(self, obj: Any, place: tuple[str, str] | None) -> Any:
        """Reduce `obj` to what it holds, for a receiver where nothing is found in its place."""
        make, made, state, *rest = instances.reduce_by_state(obj)
        if place is None:
            return make, made, state, *rest
        return namespaces.find_global, (*place, *made), state, None, None, namespaces.set_global

    def _as_global(self, obj: Any, kind: type) -> tuple[str, str] | None:
        """Return (module, name) where `obj` is a global of a user module, to be found there by the receiver.

        In a message to a running process only a bare sentinel is: anything else is sent for what it holds
        now.
        """
        if kind is not object and not (
            self.starting and modules.is_users_class(kind) and instances.can_copy(kind)
        ):
            return None
        found = modules.user_modules()
        if not self.starting:
            found = [*found, ("__main__", modules.main_module())]
        if self._globals_index is None:
            self._globals_index = {
                id(value): (name, key)
                for name, module in found
                for key, value in list(module.__dict__.items())
                if not key.startswith("__")
            }
        return self._globals_index.get(id(obj))

    def _leave(
        self, obj: Any, refusal: NotCarriedError, cause: BaseException | None, *, is_own: bool = False
    ) -> Any:
        """Put a stand-in in the place of `obj`, or the statement that makes it again in the receiver."""
        remade = self._made_again(obj)
        if remade is not None:
            return remade
        if id(obj) not in self.left:
            explanation = Explanation("", shapes.describe_kind(obj), refusal.reason, refusal.remedy)
            self.left[id(obj)] = LeftObject(obj, explanation, cause, refusal.often_held, is_own=is_own)
        return LeftBehind, (self.left[id(obj)].explanation,)

    def _made_again(self, obj: Any) -> Any:
        if self._remake is None:
            return None
        for name, value in list(sys.modules["__main__"].__dict__.items()):
            if value is obj:
                remade = self._remake(name)
                if remade is not None:
                    statement, needs = remade
                    main = sys.modules["__main__"]
                    return arrival.make_again, (name, statement, self.bindings(main, needs))
        return None

    def tail(self) -> Iterator[Any]:
        """Yield what stands behind the object: module state, then explanations, until both are exhausted."""
        told: set[int] = set()
        self.payload_left = set(self.left)
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


class _Unlisted:
    """Rebuilt, it is a module that `sys.modules` does not list; `its_namespace` is the dict of that."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self.its_namespace = _NamespaceOfUnlisted(self)


class _NamespaceOfUnlisted:
    def __init__(self, module: _Unlisted) -> None:
        self.module = module


class _Explained:
    """An explanation whose path is known now."""

    def __init__(self, explanation: Explanation) -> None:
        self.explanation = explanation


def _reduce_message(message: _Message, packing: PackingPickler) -> Any:
    return arrival.first, (message.obj, _Tail())


def _reduce_tail(tail: _Tail, packing: PackingPickler) -> Any:
    return arrival.ModuleState, (), None, packing.tail()


def _reduce_namespace(reference: _NamespaceOf, packing: PackingPickler) -> Any:
    module = reference.module
    if modules.is_importable(module):
        return namespaces.module_namespace, (module.__name__,)
    return namespaces.made_namespace, (module.__name__,)


def _reduce_unlisted(unlisted: _Unlisted, packing: PackingPickler) -> Any:
    values = {name: value for name, value in unlisted.namespace.items() if name != "__builtins__"}
    # Importers may hold what cannot be carried, and the module does without.
    importers = {name: values.pop(name) for name in ("__spec__", "__loader__") if name in values}
    values |= packing.carriable(importers)
    name = str(values.get("__name__"))
    return namespaces.new_module, (name,), values, None, None, namespaces.fill_new_module


def _reduce_namespace_of_unlisted(reference: _NamespaceOfUnlisted, packing: PackingPickler) -> Any:
    return namespaces.namespace_of, (reference.module,)


def _reduce_explained(explained: _Explained, packing: PackingPickler) -> Any:
    return arrival.explain, (explained.explanation, explained.explanation.path)


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
    _Unlisted: _reduce_unlisted,
    _NamespaceOfUnlisted: _reduce_namespace_of_unlisted,
    _Explained: _reduce_explained,
}
