"""What ctypes makes: instances, pointers, callbacks, libraries and their functions, and classes of its kinds.

    instance  -> its bytes, or field by field where it holds pointers
    pointer   -> the ctypes object that it points to, which the sender keeps alive with it
    callback  -> its prototype and the Python function under it
    library   -> opened again by its name, with the functions that have been set up

An address means nothing in another process, so what is reached only by address is refused.
"""

from __future__ import annotations

import ctypes
import gc
import sys

from bequest.carry import bindings, identity, namespaces
from bequest.carry.registry import NotCarriedError, carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from bequest.carry.registry import Packing, Reduced

_USE_ERRNO, _USE_LAST_ERROR, _PYTHON_API = 8, 16, 4  # flags of `_ctypes`

_COMPOSED = (ctypes.Array, ctypes.Structure, ctypes.Union)

_REMEDY = "Pass what it points to, or make it in the process that uses it"


# -- instances


@carries("_ctypes.Structure", "_ctypes.Union", "_ctypes.Array", "_ctypes._SimpleCData", subclasses=True)
def reduce_instance(obj: Any, packing: Packing) -> Reduced:
    """Reduce a structure, union, array or simple value."""
    if hasattr(obj, "_wrapper"):  # in multiprocessing's shared memory
        from multiprocessing import sharedctypes

        reduced: Reduced = sharedctypes.reduce_ctype(obj)  # type: ignore[attr-defined]  # not in typeshed
        return reduced
    under = _memory_under(obj)
    if under is not None:
        return view_of, (type(obj), *under)
    try:
        return obj.__reduce__()  # type: ignore[no-any-return]
    except ValueError:  # "ctypes objects containing pointers cannot be pickled"
        return make_empty, (type(obj),), _parts(obj, list(_keepers(obj))), None, None, fill_parts


def _memory_under(obj: Any) -> tuple[Any, int] | None:
    """Return the object whose memory `obj` shows (a field of a structure, `from_buffer`), and where in it."""
    base = obj._b_base_
    while base is not None and base._b_base_ is not None:
        base = base._b_base_
    if base is not None:
        found = _find(ctypes.addressof(obj), [base, *_keepers(base)])
        if found is None:
            raise NotCarriedError("its memory belongs to C code", "Pass a copy of it")
        return found
    if isinstance(obj._objects, memoryview):
        from bequest.carry.objects import memory

        exporter = obj._objects.obj
        return exporter, ctypes.addressof(obj) - memory.address(memoryview(exporter))
    return None


def _keepers(obj: Any) -> Iterator[Any]:
    """Yield what `obj` keeps alive because it points there."""
    waiting: list[Any] = [] if isinstance(obj._objects, memoryview) else [obj._objects]
    seen: set[int] = set()
    while waiting:
        item = waiting.pop()
        if id(item) in seen:  # two structures may point to each other
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif item is not None:
            yield item


def _find(address: int, candidates: list[Any]) -> tuple[Any, int] | None:
    """Return which of `candidates` has `address` in its memory, and how far from its start."""
    for candidate in candidates:
        try:
            start, size = ctypes.addressof(candidate), ctypes.sizeof(candidate)
        except TypeError:  # bytes under a c_char_p, a thunk under a callback
            continue
        if start <= address < start + max(size, 1):
            return candidate, address - start
    return None


def _parts(obj: Any, keepers: list[Any]) -> Any:
    """Return the value of `obj`, or of its items or fields: pairs of an index or name, and a value."""
    if isinstance(obj, ctypes.Array):
        return [(index, _part(obj[index], obj._type_, keepers)) for index in range(len(obj))]
    if isinstance(obj, _COMPOSED):
        return [(name, _part(getattr(obj, name), kind, keepers)) for name, kind in _fields(obj)]
    return _part(obj.value, type(obj), keepers)


def _fields(obj: Any) -> list[tuple[str, Any]]:
    """Return name and type of each field that has a value."""
    every = [base.__dict__.get("_fields_", ()) for base in reversed(type(obj).__mro__)]
    return [(field[0], field[1]) for fields in every for field in fields if _has_value(obj, field[0])]


def _has_value(obj: Any, name: str) -> bool:
    try:
        getattr(obj, name)
    except ValueError:  # "PyObject is NULL"
        return False
    return True


def _part(value: Any, kind: Any, keepers: list[Any]) -> Any:
    if isinstance(value, _COMPOSED):
        return _parts(value, keepers)
    if isinstance(value, ctypes._Pointer):
        return kind() if not value else pointer_to(kind, *_target(value, keepers))
    if isinstance(value, ctypes._CFuncPtr):  # type: ignore[attr-defined]  # not in typeshed
        return (
            kind()
            if not value
            else kind(_called_by(keepers, ctypes.cast(value, ctypes.c_void_p).value, kind))
        )
    if value and getattr(kind, "_type_", None) == "P":
        raise NotCarriedError("it holds an address of this process's memory", _REMEDY)
    return value


def view_of(kind: Any, under: Any, offset: int) -> Any:
    """Return a `kind` that shows the memory of `under`."""
    return kind.from_buffer(under, offset)


def make_empty(kind: Any) -> Any:
    """Return a `kind` of zeros, without calling its `__init__`."""
    return kind.__new__(kind)


def fill_parts(obj: Any, parts: Any) -> None:
    """Set fields, items or value of an object of `make_empty`."""
    if isinstance(obj, ctypes.Array):
        for index, part in parts:
            if issubclass(obj._type_, _COMPOSED):
                fill_parts(obj[index], part)
            else:
                obj[index] = part
    elif isinstance(obj, _COMPOSED):
        kinds = {
            field[0]: field[1] for base in type(obj).__mro__ for field in base.__dict__.get("_fields_", ())
        }
        for name, part in parts:
            if issubclass(kinds[name], _COMPOSED):
                fill_parts(getattr(obj, name), part)
            else:
                setattr(obj, name, part)
    else:
        obj.value = parts


# -- pointers


@carries("_ctypes._Pointer", subclasses=True)
def reduce_pointer(pointer: Any, packing: Packing) -> Reduced:
    """Reduce a pointer, null or to an object that it keeps alive."""
    if not pointer:
        return type(pointer), ()
    keeper = pointer if pointer._b_base_ is None else pointer._b_base_
    return pointer_to, (type(pointer), *_target(pointer, list(_keepers(keeper))))


def _target(pointer: Any, keepers: list[Any]) -> tuple[Any, int]:
    pointers = [keeper for keeper in keepers if isinstance(keeper, ctypes._Pointer)]
    others = [keeper for keeper in keepers if not isinstance(keeper, ctypes._Pointer)]
    found = _find(ctypes.addressof(pointer.contents), others + pointers)
    if found is None:
        raise NotCarriedError("it points to memory that C code owns", _REMEDY)
    return found


def pointer_to(kind: Any, target: Any, offset: int) -> Any:
    """Return a pointer to the memory of `target`, which it keeps alive."""
    if offset == 0 and isinstance(target, kind._type_):
        return kind(target)
    return kind(kind._type_.from_buffer(target, offset))


# -- functions


@carries("_ctypes.CFuncPtr", "_ctypes.PyCFuncPtr", subclasses=True)
def reduce_function(function: Any, packing: Packing) -> Reduced:
    """Reduce a callback made of a Python function, or a function of a library."""
    kind = type(function)
    if not function:
        return make_prototype, _prototype(kind)
    library = (function._objects or {}).get("0")
    if isinstance(library, ctypes.CDLL):
        state = (function.argtypes, function.restype, getattr(function, "errcheck", None))
        return function_of, (library, function.__name__), state, None, None, set_function
    called = _called_by(list(_keepers(function)), ctypes.cast(function, ctypes.c_void_p).value, kind)
    return make_callback, (*_prototype(kind), called)


def _prototype(kind: Any) -> tuple[Any, ...]:
    return kind._restype_, kind._argtypes_, kind._flags_


def _called_by(keepers: list[Any], address: int | None, kind: Any) -> Any:
    """Return the Python function under the callback at `address`, whose thunk is among `keepers`."""
    thunks = [keeper for keeper in keepers if type(keeper).__name__ == "CThunkObject"]
    for thunk in thunks:
        others = (kind._restype_, type(thunk))
        called = [part for part in gc.get_referents(thunk) if callable(part) and part not in others]
        if len(called) == 1 and (len(thunks) == 1 or _is_at(thunk, address)):
            return called[0]
    raise NotCarriedError(
        "it is an address of code in this process", "Look the function up in the process that calls it"
    )


def _is_at(thunk: Any, address: int | None) -> bool:
    """Tell whether the code of `thunk` is at `address`, which its struct says (`pcl_exec`)."""
    from bequest.carry.objects import peek

    return address in peek.body(thunk)


def make_prototype(restype: Any, argtypes: tuple[Any, ...], flags: int) -> Any:
    """Return a null function of a prototype."""
    return prototype(restype, argtypes, flags)()


def make_callback(restype: Any, argtypes: tuple[Any, ...], flags: int, called: Any) -> Any:
    """Return a callback that calls `called`."""
    return prototype(restype, argtypes, flags)(called)


def prototype(restype: Any, argtypes: tuple[Any, ...], flags: int) -> Any:
    """Return the one function type of ctypes with these types and flags."""
    if flags & _PYTHON_API:
        return ctypes.PYFUNCTYPE(restype, *argtypes)
    options = {"use_errno": bool(flags & _USE_ERRNO), "use_last_error": bool(flags & _USE_LAST_ERROR)}
    return ctypes.CFUNCTYPE(restype, *argtypes, **options)


def python_prototype(restype: Any, argtypes: tuple[Any, ...], token: identity.Token) -> Any:
    """Return the function type that `PYFUNCTYPE` has made for these types."""
    known = identity.find(token, type)
    if known is None:
        known = ctypes.PYFUNCTYPE(restype, *argtypes)
        identity.remember(known, token)
    return known


def function_of(library: Any, name: str) -> Any:
    """Return a function of a library, the one that the library keeps."""
    return getattr(library, name)


def set_function(function: Any, state: tuple[Any, Any, Any]) -> None:
    """Set the types of a function of `function_of`."""
    argtypes, restype, errcheck = state
    function.restype = restype
    if argtypes is not None:
        function.argtypes = argtypes
    if errcheck is not None:
        function.errcheck = errcheck


# -- libraries


@carries("ctypes.CDLL", subclasses=True)
def reduce_library(library: Any, packing: Packing) -> Reduced:
    """Reduce a library to its name and the functions that have been looked up and maybe set up."""
    if library is ctypes.pythonapi:
        return namespaces.find_attribute, ("ctypes", "pythonapi")
    attributes = {
        name: value
        for name, value in library.__dict__.items()
        if name not in ("_name", "_handle", "_FuncPtr")
    }
    flags = library._FuncPtr._flags_
    return open_library, (type(library), library._name, flags), attributes, None, None, set_library


def open_library(kind: Any, name: str | None, flags: int) -> Any:
    """Open a library again, without running code of a subclass."""
    library = kind.__new__(kind)
    options: Any = {"use_errno": bool(flags & _USE_ERRNO), "use_last_error": bool(flags & _USE_LAST_ERROR)}
    ctypes.CDLL.__init__(library, name, **options)
    return library


def set_library(library: Any, attributes: dict[str, Any]) -> None:
    """Put attributes into a library of `open_library`."""
    library.__dict__.update(attributes)


# -- classes, which are asked for by their metaclass


@carries("_ctypes.PyCPointerType", "_ctypes.PyCArrayType", "_ctypes.PyCFuncPtrType", subclasses=True)
def reduce_derived_class(kind: Any, packing: Packing) -> Reduced:
    """Reduce a class that ctypes keeps one of for each way to make it."""
    if issubclass(kind, ctypes._Pointer) and isinstance(getattr(kind, "_type_", None), type):
        return ctypes.POINTER, (kind._type_,)
    if issubclass(kind, ctypes.Array):
        return array_class, (kind._type_, kind._length_)
    if issubclass(kind, ctypes._CFuncPtr) and hasattr(kind, "_argtypes_"):  # type: ignore[attr-defined]
        if kind._flags_ & _PYTHON_API:  # ctypes makes a new one at each call
            return python_prototype, (kind._restype_, kind._argtypes_, identity.token_of(kind))
        return prototype, _prototype(kind)
    raise NotCarriedError("ctypes made it for one library", "Pass the library instead")


def array_class(item: Any, length: int) -> Any:
    """Return the one array class of so many items."""
    return item * length


@carries("_ctypes.PyCSimpleType", subclasses=True)
def reduce_simple_class(kind: Any, packing: Packing) -> Any:
    """Reduce the class of a number in the other byte order, which ctypes makes with each; None for others."""
    order = f"__ctype_{sys.byteorder[0]}e__"
    native = getattr(kind, order, kind)
    other = {"__ctype_le__": "__ctype_be__", "__ctype_be__": "__ctype_le__"}[order]
    return None if native is kind else (getattr, (native, other))


@carries("_ctypes.PyCStructType", "_ctypes.UnionType", subclasses=True)
def reduce_structure_class(kind: Any, packing: Any) -> Reduced:
    """Reduce a structure or union that no import finds; its fields may point to itself, so they are state."""
    attributes = {
        name: value
        for name, value in kind.__dict__.items()
        if type(value).__name__ not in ("CField", "getset_descriptor") and name not in _MADE_WITH_CLASS
    }
    made = (kind.__name__, kind.__bases__, kind.__module__, kind.__qualname__, identity.token_of(kind))
    state = (attributes, packing.bindings_of_class(kind))
    return make_structure, made, state, None, None, fill_structure


_MADE_WITH_CLASS = frozenset(("__module__", "__qualname__", "__dict__", "__weakref__"))
_BEFORE_FIELDS = ("_pack_", "_align_", "_layout_", "_anonymous_", "_swappedbytes_")


def make_structure(
    name: str, bases: tuple[Any, ...], module: str, qualname: str, token: identity.Token
) -> Any:
    """Make a structure without fields, or find the one that is here already."""
    known = identity.find(token, type)
    if known is not None:
        return known
    made = type(bases[0])(name, bases, {"__module__": module, "__qualname__": qualname})
    identity.remember(made, token)
    return made


def fill_structure(kind: Any, state: tuple[dict[str, Any], Any]) -> None:
    """Give a structure of `make_structure` its attributes; fields can be set only once."""
    attributes, bound = state
    if "_fields_" not in kind.__dict__:
        order = sorted(
            attributes, key=lambda name: 0 if name in _BEFORE_FIELDS else 1 if name == "_fields_" else 2
        )
        for name in order:
            setattr(kind, name, attributes[name])
    if bound is not None:
        bindings.bind(*bound)
