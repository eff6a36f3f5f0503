"""How functions, and what they are made of, are reduced and rebuilt.

    function -> make_function(code, namespace, ..., cells, token), then set_function(attributes, bindings)

By value go those that no import finds: everything of `__main__`, lambdas, local functions, replaced ones.
Cells are objects of their own, so functions that share one still do. What cloudpickle does for these is not
used: it gives each function cells and globals of its own, and a receiver would have to import it (20 ms in a
new process).
"""

from __future__ import annotations

import gc
import marshal
from types import CellType, CodeType, FunctionType, MethodType, ModuleType

from bequest.carry import bindings, identity, modules, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.graph import PackingPickler

_EMPTY: Any = object()


_rebuilders: dict[int, FunctionType] = {}


def is_rebuilder(function: FunctionType) -> bool:
    """Tell whether a function is one of bequest's own, which a message names more often than any other."""
    if id(function) in _rebuilders:
        return True
    if not str(function.__module__).startswith("bequest.") or not modules.goes_by_name(function):
        return False
    _rebuilders[id(function)] = function
    return True


def reduce_function(function: FunctionType, packing: PackingPickler) -> Any:
    """Reduce a function by name where a child finds it so, else by value."""
    if modules.goes_by_name(function):
        packing.named.add(function.__module__)
        packing.reach.by_name(function)
        return NotImplemented
    packing.dependence.on_function(function)
    packing.reach.code(function.__code__, function.__globals__)
    packing.reach.annotated(function)
    name = _global_name(function)
    namespace, bound = _namespace_of(function, name, packing)
    known_as = (identity.token_of(function, name), name)
    made = (function.__code__, namespace, function.__name__, function.__closure__, known_as)
    return make_function, made, (_attributes(function), bound), None, None, set_function


def _global_name(function: FunctionType) -> str | None:
    """Return the global of its own namespace that is this function: mostly its name, or a decorated one's."""
    namespace = function.__globals__
    for name in (function.__name__, function.__qualname__.partition(".")[0]):
        if namespace.get(name) is function:
            return name
    if function.__closure__ is None:
        return None
    return next((name for name, value in list(namespace.items()) if value is function), None)


def _attributes(function: FunctionType) -> dict[str, Any]:
    state = {
        "__qualname__": function.__qualname__,
        "__module__": function.__module__,
        "__doc__": function.__doc__,
        "__defaults__": function.__defaults__,
        "__kwdefaults__": function.__kwdefaults__,
        "__dict__": function.__dict__ or None,
        "__type_params__": getattr(function, "__type_params__", None) or None,  # since 3.12
    }
    annotate = getattr(function, "__annotate__", None)  # since 3.14: evaluated only when asked for
    if annotate is not None and not _has_changed_annotations(function, annotate):
        state["__annotate__"] = annotate
    else:
        state["__annotations__"] = function.__annotations__ or None
    always = ("__defaults__", "__kwdefaults__")  # one that the sender has removed is removed here as well
    return {name: value for name, value in state.items() if value is not None or name in always}


def _has_changed_annotations(function: FunctionType, annotate: Any) -> bool:
    """Tell whether a function's annotations, once evaluated, have been changed.

    Only the collector is shown whether they have been evaluated: asking for them would do it.
    """
    builtins = getattr(function, "__builtins__", None)
    others = (function.__globals__, builtins, function.__dict__, function.__kwdefaults__)
    for found in gc.get_referents(function):
        if type(found) is dict and all(found is not other for other in others):
            try:
                return bool(annotate(1) != found)  # 1: format VALUE of annotationlib
            except Exception:  # noqa: BLE001 - a name has gone: what was evaluated is all there is
                return True
    return False


def _namespace_of(function: FunctionType, name: str | None, packing: PackingPickler) -> tuple[Any, Any]:
    """Return what gives the receiver the function's globals, and the bindings to lay over them."""
    namespace = function.__globals__
    module = modules.namespace_module(namespace)
    if module is None:  # of exec: a dict like any other, carried whole; or of a module that nobody lists
        return packing.unlisted_namespace(namespace) or namespace, None
    if modules.is_importable(module):
        return packing.namespace_reference(module), None
    return packing.namespace_reference(module), packing.bindings(module, _names_read(function, name))


def _names_read(function: FunctionType, own_name: str | None) -> set[str]:
    from bequest.carry.reads import reads

    found = reads(function.__code__)
    namespace = function.__globals__
    names = set(namespaces.own_names(namespace)) if found.whole else set(found.names)
    for imported in found.imports:
        names.add(imported.partition(".")[0])
    if own_name is not None:
        names.add(own_name)
    return names


def make_function(
    code: CodeType,
    namespace: dict[str, Any],
    name: str,
    cells: tuple[CellType, ...] | None,
    known_as: tuple[identity.Token, str | None],
) -> Any:
    """Make the function that its token stands for, or find the one that is here already.

    One that was first sent from here is itself again. One that is a global of its namespace, there and here,
    stays that object, with what it has closed over and counted here; any other is made anew, so that each
    message is a snapshot.

    Args:
        code: Its code.
        namespace: Its globals.
        name: Its name.
        cells: What it closes over, or None.
        known_as: Its token, and the global that it is in the sender, or None.
    """
    token, global_name = known_as
    known = identity.find(token, FunctionType)
    if known is not None and identity.is_at_home(known):
        return known
    bound: Any = namespace.get(global_name) if global_name is not None else None
    if known is not None and bound is known:
        if cells is None:
            bound.__code__ = code
        return bound
    function = FunctionType(code, namespace, name, None, cells)
    identity.remember(function, token)
    return function


def set_function(function: Any, state: tuple[dict[str, Any], Any]) -> None:
    """Set attributes and globals of a function that `make_function` returned."""
    attributes, bound = state
    if not identity.is_at_home(function):
        own = attributes.pop("__dict__", None)
        for name, value in attributes.items():
            setattr(function, name, value)
        for name, value in (own or {}).items():
            function.__dict__.setdefault(name, value)
    if bound is not None:
        bindings.bind(function.__globals__, bound)


def reduce_code(code: CodeType, packing: PackingPickler) -> Any:
    """Reduce a code object; sender and receiver run the same interpreter, so marshal's format will do."""
    try:
        return load_code, (marshal.dumps(code),)
    except ValueError:  # a constant that only `code.replace` can have put there
        constants = code.co_consts
        plain = code.replace(co_consts=tuple(None for _ in constants))
        return replace_constants, (marshal.dumps(plain), constants)


def load_code(data: bytes) -> CodeType:
    """Rebuild a code object."""
    code: CodeType = marshal.loads(data)
    return code


def replace_constants(data: bytes, constants: tuple[Any, ...]) -> CodeType:
    """Rebuild a code object that has constants which marshal does not know."""
    return load_code(data).replace(co_consts=constants)


def reduce_cell(cell: CellType, packing: PackingPickler) -> Any:
    """Reduce a closure's cell; its content is state, so that a function may reach itself through it."""
    try:
        content = cell.cell_contents
    except ValueError:
        return CellType, ()
    return CellType, (), (content,), None, None, set_cell


def set_cell(cell: CellType, content: tuple[Any]) -> None:
    """Fill a cell."""
    cell.cell_contents = content[0]


def reduce_method(method: MethodType, packing: PackingPickler) -> Any:
    """Reduce a bound method by its function, not by the name that its object has for it (`super().work`)."""
    return MethodType, (method.__func__, method.__self__)


def reduce_wrapper(wrapper: Any, packing: PackingPickler) -> Any:
    """Reduce a `staticmethod` or `classmethod` object."""
    return type(wrapper), (wrapper.__func__,), (wrapper.__dict__ or None), None, None, set_wrapper


def set_wrapper(wrapper: Any, attributes: dict[str, Any]) -> None:
    """Set attributes of a `staticmethod` or `classmethod` object."""
    wrapper.__dict__.update(attributes)


def reduce_property(found: property, packing: PackingPickler) -> Any:
    """Reduce a property by its functions."""
    return property, (found.fget, found.fset, found.fdel, found.__doc__)


def reduce_module(module: ModuleType, packing: PackingPickler) -> Any:
    """Reduce a module: `__main__`, by name, or, where no import finds it, by value."""
    packing.reach.held_module(module)
    if modules.is_main(module):
        return namespaces.main_module, ()
    if modules.is_importable(module):
        name = modules.listed_name(module)
        packing.named.add(name)
        return namespaces.import_module, (name,)
    import sys

    kind = None if type(module) is ModuleType else type(module)
    if sys.modules.get(module.__name__) is not module:
        return namespaces.module_of, (packing.unlisted_module(module.__dict__), kind)
    packed = packing.bindings(module, namespaces.own_names(module.__dict__))
    state = (kind, packed)
    return namespaces.made_module, (module.__name__,), state, None, None, namespaces.fill_module
