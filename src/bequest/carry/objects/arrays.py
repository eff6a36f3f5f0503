"""Numpy arrays: a view goes on sharing memory with the array that it shows, and a large array is copied once.

view -> make_view(its owner, offset, shape, strides, dtype), where the owner is not much larger
array -> numpy's own way, by a buffer that may travel beside the message; a copy of it where it is no block
"""

from __future__ import annotations

from bequest.carry.buffers import THRESHOLD_BYTES
from bequest.carry.registry import carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced

# A view brings its owner along up to this size, or up to this many times its own: a slice of a huge array
# must not drag it into every message.
_SMALL_BYTES = 1 << 20
_FACTOR = 4


@carries("numpy.ndarray")
def reduce_array(array: Any, packing: Packing) -> Reduced:
    """Reduce an array: as a view of its owner, or by numpy's own way."""
    import numpy

    owner = array.base
    if owner is None and array.nbytes < THRESHOLD_BYTES and array.flags.writeable:
        # Protocol 5 would make it a view of what was read, and views of it would have that for their base.
        return tuple(array.__reduce__())
    if array.dtype.hasobject:
        return packing.own_way(array)
    if type(owner) is not numpy.ndarray or isinstance(owner.base, numpy.ndarray) or owner.dtype.hasobject:
        return _whole(array, packing)
    if owner.nbytes > max(_SMALL_BYTES, _FACTOR * array.nbytes) or not _is_block(owner):
        return _whole(array, packing)
    offset = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    kind = (array.dtype, bool(array.flags.writeable))
    return make_view, (owner, offset, array.shape, array.strides, kind)


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


def _is_block(array: Any) -> bool:
    return bool(array.flags.c_contiguous or array.flags.f_contiguous)


def make_view(
    owner: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], kind: tuple[Any, bool]
) -> Any:
    """Make an array that shows part of the memory of `owner`, and has it as its base."""
    import numpy

    dtype, writeable = kind
    made = numpy.ndarray(shape, dtype, owner, offset, strides)
    made.flags.writeable = writeable
    return made
