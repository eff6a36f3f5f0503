"""Views of memory, read-only views of dicts, and the frames that stay where they run.

    memoryview -> the object under it and the place of the view on it -> a view of the receiver's copy

What views the same object in the sender views the same object in the receiver.
"""

from __future__ import annotations

import gc
from types import MappingProxyType

from bequest.carry.registry import NotCarriedError, carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced

_NATIVE_FORMATS = frozenset("bBcChHiIlLqQnNfdeP?")


# -- memoryview


@carries("builtins.memoryview")
def reduce_view(view: memoryview, packing: Packing) -> Reduced:
    """The place of the view in the memory of the object under it."""
    try:
        under = view.obj
    except ValueError:  # "operation forbidden on released memoryview object"
        return released_view, ()
    if under is None:  # memory of C that no object owns
        return copied_view, (view.tobytes(), view.format, view.shape, view.readonly)
    with memoryview(under) as whole:
        offset = address(view) - address(whole)
        readonly = view.readonly and not whole.readonly
        if offset == 0 and _layout(view) == _layout(whole):
            return whole_view, (under, readonly)
        item = whole.itemsize
        is_part = whole.ndim == view.ndim == 1 and whole.format == view.format and whole.strides == (item,)
    shape, strides = view.shape or (), view.strides or ()
    if is_part:
        return strided_view, (under, readonly, offset // item, strides[0] // item, shape[0])
    if (not view.contiguous and view.ndim != 1) or view.format.lstrip("@") not in _NATIVE_FORMATS:
        raise NotCarriedError(
            "no Python code can make such a view again", "Pass the object under the memoryview"
        )
    stride = strides[0] if view.ndim == 1 else view.itemsize
    return cast_view, (under, readonly, offset, view.format, shape, stride, view.itemsize)


def _layout(view: memoryview) -> tuple[object, ...]:
    return view.format, view.shape, view.strides


def address(view: memoryview) -> int:
    """Return where the first item of `view` is."""
    from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_ssize_t, c_void_p, py_object, pythonapi

    class Buffer(Structure):
        """`Py_buffer`, as the C API fixes it."""

        _fields_ = (
            ("buf", c_void_p),
            ("obj", py_object),
            ("len", c_ssize_t),
            ("itemsize", c_ssize_t),
            ("readonly", c_int),
            ("ndim", c_int),
            ("format", c_char_p),
            ("shape", POINTER(c_ssize_t)),
            ("strides", POINTER(c_ssize_t)),
            ("suboffsets", POINTER(c_ssize_t)),
            ("internal", c_void_p),
        )

    buffer = Buffer()
    everything_readonly = 0x011C  # PyBUF_FULL_RO
    pythonapi.PyObject_GetBuffer(py_object(view), byref(buffer), everything_readonly)
    address: int = buffer.buf or 0
    pythonapi.PyBuffer_Release(byref(buffer))
    return address


def released_view() -> memoryview:
    """Return a view that has been released."""
    view = memoryview(b"")
    view.release()
    return view


def copied_view(content: bytes, form: str, shape: tuple[int, ...], readonly: bool) -> memoryview:
    """Return a view of a copy of memory that belongs to no object."""
    return _shaped(memoryview(content if readonly else bytearray(content)), form, shape)


def whole_view(under: Any, readonly: bool) -> memoryview:
    """Return the view that `under` gives of itself."""
    view = memoryview(under)
    return view.toreadonly() if readonly else view


def strided_view(under: Any, readonly: bool, first: int, step: int, count: int) -> memoryview:
    """Return `count` items of `under` from item `first` on."""
    stop = first + count * step
    return whole_view(under, readonly)[first : None if stop < 0 else stop : step]


def cast_view(
    under: Any, readonly: bool, offset: int, form: str, shape: tuple[int, ...], *strides: int
) -> memoryview:
    """Return a view of bytes of `under` as other items; `strides` are the bytes between items and in one."""
    stride, size = strides
    view = whole_view(under, readonly).cast("B")
    if stride == size or not shape:
        total = size
        for length in shape:
            total *= length
        return _shaped(view[offset : offset + total], form, shape)
    count = shape[0]
    # The lowest item comes first in memory, even where the view runs backwards.
    start = offset + min(0, stride * (count - 1))
    span = abs(stride) * (count - 1) + size
    part: Any = view[start : start + span]
    found: memoryview = part.cast(form)[:: stride // size]
    return found


def _shaped(view: memoryview, form: str, shape: tuple[int, ...]) -> memoryview:
    cast: Any = view.cast
    made: memoryview = cast(form) if len(shape) == 1 else cast(form, shape)
    return made


# -- mappingproxy


@carries("builtins.mappingproxy")
def reduce_mapping_proxy(proxy: MappingProxyType[Any, Any], packing: Packing) -> Reduced:
    """A proxy follows its mapping; that of a class is the class's own."""
    mapping = gc.get_referents(proxy)[0]
    owner = _class_of_namespace(mapping)
    return (vars, (owner,)) if owner is not None else (MappingProxyType, (mapping,))


def _class_of_namespace(mapping: Any) -> type | None:
    """Return the class whose namespace `mapping` is, which the descriptors in it name."""
    for value in mapping.values():
        owner = getattr(type(value), "__objclass__", None) and value.__objclass__
        if isinstance(owner, type) and _is_namespace_of(mapping, owner):
            return owner
    # Since 3.15 all classes share the descriptors that they have by default. Every class says these two
    # things.
    if "__module__" in mapping and "__doc__" in mapping:
        holders = (holder for holder in gc.get_referrers(mapping) if isinstance(holder, type))
        return next((holder for holder in holders if _is_namespace_of(mapping, holder)), None)
    return None


def _is_namespace_of(mapping: Any, owner: type) -> bool:
    return gc.get_referents(owner.__dict__)[0] is mapping


# -- what stays


@carries("builtins.frame")
def refuse_frame(frame: Any, packing: Packing) -> Reduced:
    """A frame is the stack of a running thread."""
    raise NotCarriedError(
        "a stack belongs to the process that runs it", "Pass the values that are needed from its f_locals"
    )


@carries("builtins.traceback")
def refuse_traceback(traceback: Any, packing: Packing) -> Reduced:
    """A traceback holds frames."""
    raise NotCarriedError(
        "it holds frames, and a stack belongs to the process that runs it",
        "Format it with traceback.format_exception and pass the text",
    )
