"""A file descriptor as part of a message: a number on both sides, of one and the same open file.

Descriptor(fd) -> packing.share_fd(fd), when it is packed and not before -> take_fd -> the number there
    OwningDescriptor(fd) -> the same -> a `segments.OwnedFd`
"""

from __future__ import annotations

import os

from bequest.carry import arrival
from bequest.carry.registry import carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bequest.carry.registry import Packing, Reduced


class Descriptor:
    """Stands in a reduction for a descriptor of the sender; rebuilt, it is the `int` of the duplicate.

    The duplicate is made when the reduction is packed, so that a reducer which is only asked whether it would
    carry its object gives away nothing.

    Attributes:
        fd: The descriptor.
        is_owned: Whether it was opened for this message, and is closed with this object.
    """

    __slots__ = ("fd", "is_owned")

    def __init__(self, fd: int, *, is_owned: bool = False) -> None:
        self.fd, self.is_owned = fd, is_owned

    def __del__(self) -> None:
        if self.is_owned:
            os.close(self.fd)


class OwningDescriptor:
    """As `Descriptor`; rebuilt, it is an `OwnedFd` of the duplicate."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd


@carries("bequest.carry.objects.descriptors.Descriptor")
def reduce_descriptor(descriptor: Descriptor, packing: Packing) -> Reduced:
    """Reduce a descriptor by sharing it."""
    return arrival.take_fd, (packing.share_fd(descriptor.fd),)


@carries("bequest.carry.objects.descriptors.OwningDescriptor")
def reduce_owning_descriptor(descriptor: OwningDescriptor, packing: Packing) -> Reduced:
    """Reduce a descriptor by sharing it; the duplicate is closed with the object that the receiver has."""
    from bequest.carry.segments import OwnedFd

    return OwnedFd, (Descriptor(descriptor.fd),)
