"""Find out what an `mmap.mmap` maps, which it does not tell: its address is looked up in the kernel's list.

    mmap -> address -> line of /proc/self/maps -> device and inode -> the descriptor that the object keeps
                                               -> or, where it keeps none, one opened by the address

Used by the sender only; where there is no /proc, nothing is found. Opening by the address takes the right to
look into processes (CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN); without it, shared memory without a file cannot
be reached.
"""

from __future__ import annotations

import os
from typing import Any


class Mapping:
    """What is mapped.

    Attributes:
        fd: A descriptor of the file or shared memory, which stays the sender's; None for private memory of
            no file.
        is_opened: Whether `fd` was opened to say this, so that the caller is to close it.
        offset: Where in the file it begins, in bytes.
        is_private: Whether writes stay in the process.
        can_write: Whether it can be written.
    """

    __slots__ = ("can_write", "fd", "is_opened", "is_private", "offset")

    def __init__(self, fd: int | None, offset: int, rights: str, *, is_opened: bool) -> None:
        self.fd, self.offset, self.is_opened = fd, offset, is_opened
        self.is_private, self.can_write = rights[3] == "p", rights[1] == "w"


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
    fd = _descriptor_of(device, int(inode)) if int(inode) else None
    is_opened = fd is None and rights[3] == "s"
    if is_opened:
        fd = _open(span, can_write=rights[1] == "w")
        if fd is None:
            return None
    return Mapping(fd, int(start, 16) + address - first, rights, is_opened=is_opened)


def _open(span: str, *, can_write: bool) -> int | None:
    """Open what is mapped at these addresses, or return None where the system does not allow it."""
    try:
        return os.open(f"/proc/self/map_files/{span}", os.O_RDWR if can_write else os.O_RDONLY)
    except OSError:
        return None


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
