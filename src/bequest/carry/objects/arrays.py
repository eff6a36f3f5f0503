"""Arrays of numpy: one that shows memory which something else owns goes on sharing it; large ones go once.

view of an array         -> make_view(its owner, offset, shape, strides, ...), where that is not much larger
array over shared memory -> the same over what maps that memory in the receiver, in a process that starts
any other                -> numpy's own way, by a buffer that may travel beside the message

Shared memory is what a `RawArray`, a `SharedMemory` or a map of a file has: what a child writes there its
parent sees, as under fork. A message to a running process is a snapshot, and has a copy.
"""

from __future__ import annotations

from bequest.carry import instances
from bequest.carry.buffers import THRESHOLD_BYTES
from bequest.carry.objects import maps
from bequest.carry.objects.parts import require
from bequest.carry.registry import carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced

# A view brings its owner along up to this size, or up to this many times its own: a slice of a huge array
# must not drag it into every message.
_SMALL_BYTES = 1 << 20
_FACTOR = 4


@carries("numpy.ndarray", "numpy.memmap", subclasses=True)
def reduce_array(array: Any, packing: Packing) -> Reduced:
    """Reduce an array: as a view of its owner, or by its own way."""
    import numpy

    owner, is_plain = array.base, type(array) is numpy.ndarray
    if owner is None and is_plain and array.nbytes < THRESHOLD_BYTES and array.flags.writeable:
        # Protocol 5 would make it a view of what was read, and views of it would have that for their base.
        return tuple(array.__reduce__())
    if array.dtype.hasobject:
        return packing.own_way(array)
    under = _under(array)
    if packing.starting and array.size and under is not None and _is_shared(under):
        require(under, packing)
        start = numpy.frombuffer(under, "u1").__array_interface__["data"][0]
        return _view(array, under, start)
    if not is_plain:
        return packing.own_way(array)
    if type(owner) is not numpy.ndarray or isinstance(owner.base, numpy.ndarray) or owner.dtype.hasobject:
        return _whole(array, packing)
    if owner.nbytes > max(_SMALL_BYTES, _FACTOR * array.nbytes) or not _is_block(owner):
        return _whole(array, packing)
    return _view(array, owner, owner.__array_interface__["data"][0])


def _whole(array: Any, packing: Packing) -> Reduced:
    """Reduce an array by numpy's own way; a large one so that this gives a buffer, and not the bytes."""
    if array.nbytes < THRESHOLD_BYTES:
        return packing.own_way(array)
    if not _is_block(array):
        array = array.copy()
    if array.dtype.kind not in "mM":
        return packing.own_way(array)
    # Dates and times have no format as a buffer: they travel as the integers that they are.
    make, (buffer, _, *shape), *more = packing.own_way(array.view("i8"))
    return make, (buffer, array.dtype, *shape), *more


def _view(array: Any, owner: Any, start: int) -> Reduced:
    offset = array.__array_interface__["data"][0] - start
    kind = (type(array), array.dtype, bool(array.flags.writeable))
    attributes = (instances.instance_dict(array) or None, instances.read_slots(array) or None, None)
    made = (owner, offset, array.shape, array.strides, kind)
    return make_view, made, attributes, None, None, instances.fill


def _is_block(array: Any) -> bool:
    return bool(array.flags.c_contiguous or array.flags.f_contiguous)


def _under(array: Any) -> Any:
    """Return what owns the memory of `array` and is no array: its buffer, or None."""
    import numpy

    while isinstance(array, numpy.ndarray):
        array = array.base
    return array


def _is_shared(under: Any) -> bool:
    """Tell whether a child maps the memory of a buffer as well, instead of getting a copy."""
    import mmap
    import sys

    if isinstance(under, memoryview):
        try:
            under = under.obj
        except ValueError:  # released
            return False
    if isinstance(under, mmap.mmap):
        found = maps.find(under)
        return found is None or not found.is_private
    while getattr(under, "_b_base_", None) is not None:  # a part of a ctypes object
        under = under._b_base_
    return "_ctypes" in sys.modules and hasattr(under, "_b_base_") and hasattr(under, "_wrapper")


def make_view(
    owner: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], kind: tuple[Any, Any, bool]
) -> Any:
    """Make an array that shows part of the memory of `owner`, and has it as its base."""
    import numpy

    which, dtype, writeable = kind
    made = numpy.ndarray.__new__(which, shape, dtype, owner, offset, strides)
    made.flags.writeable = writeable
    return made
