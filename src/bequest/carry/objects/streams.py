"""The family of streams, in modules of their own: a receiver imports only those that rebuild what it got.

files (FileIO ... TextIOWrapper)   filekinds (tempfile, gzip, zip, csv ...)   endpoints (socket, Popen, mmap)
"""

from __future__ import annotations

from bequest.carry.objects import descriptors, endpoints, filekinds, files

__all__ = ["descriptors", "endpoints", "filekinds", "files"]
