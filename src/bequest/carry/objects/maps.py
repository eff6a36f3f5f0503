"""Find out what an `mmap.mmap` maps, which it does not tell: its address is looked up in the kernel's list.

    mmap -> address -> line of /proc/self/maps -> device and inode -> the descriptor that the object keeps

Used by the sender only; where there is no /proc, nothing is found.
"""

from __future__ import annotations

import os
from typing import Any


class Mapping:
    """What is mapped.

    Attributes:
        fd: A descriptor of the file, which stays the sender's; None for memory without a file.
        offset: Where in the file it begins, in bytes.
        is_private: Whether writes stay in the process.
        can_write: Whether it can be written.
    """

    __slots__ = ("can_write", "fd", "is_private", "offset")

    def __init__(self, fd: int | None, offset: int, *, is_private: bool, can_write: bool) -> None:
        self.fd, self.offset, self.is_private, self.can_write = fd, offset, is_private, can_write


def find(mapped: Any) -> Mapping | None:
    """Return what `mapped` maps; None where that cannot be shared or told."""
    address = _address_of(mapped)
    try:
        with open("/proc/self/maps") as table:
            lines = table.readlines()
    except OSError:
        return None
    for line in lines:
        span, rights, start, device, inode, *_ = line.split(None, 5)
        first, end = (int(text, 16) for text in span.split("-"))
        if first <= address < end:
            break
    else:
        return None
    is_private = rights[3] == "p"
    fd = _descriptor_of(device, int(inode)) if int(inode) else None
    if fd is None and not is_private:
        return None
    return Mapping(fd, int(start, 16) + address - first, is_private=is_private, can_write=rights[1] == "w")


def _address_of(mapped: Any) -> int:
    """Return where the memory begins; the buffer is given back at once, so that it can still be closed."""
    import ctypes

    class Buffer(ctypes.Structure):
        """The beginning of a Py_buffer, and room for the rest."""

        _fields_ = (("buf", ctypes.c_void_p), ("rest", ctypes.c_void_p * 31))

    buffer = Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(mapped), ctypes.byref(buffer), 0)
    try:
        return int(buffer.buf or 0)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


def _descriptor_of(device: str, inode: int) -> int | None:
    """Return an open descriptor of a file: an mmap keeps one."""
    major, minor = (int(part, 16) for part in device.split(":"))
    for name in os.listdir("/proc/self/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:  # the one by which the directory was read
            continue
        if status.st_ino == inode and os.major(status.st_dev) == major and os.minor(status.st_dev) == minor:
            return int(name)
    return None
