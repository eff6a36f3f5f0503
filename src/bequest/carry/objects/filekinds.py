"""How objects that are built of files are carried: temporary files, compressed ones, archives, csv, codecs.

    the object -> its files, which `files` carries, and its state; or, for what only its own process can go on
    with (a compressor that is half way), a refusal

Temporary files and directories stay the sender's: the receiver uses them, and does not remove them by itself.
A compressed file that is read is opened anew and read up to the same place, with an offset of its own.
The functions that rebuild are at the end.
"""

from __future__ import annotations

import os

from bequest.carry.objects.descriptors import Descriptor
from bequest.carry.objects.parts import require
from bequest.carry.registry import NotCarriedError, carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced


# -- temporary -----------------------------------------------------------------------------------------------


@carries("tempfile._TemporaryFileWrapper", subclasses=True)
def reduce_temporary_file(wrapper: Any, packing: Packing) -> Reduced:
    """Reduce a named temporary file to its file; the methods that it caches on itself are made again."""
    from bequest.carry.instances import reduce_by_state

    cached = tuple(name for name, value in vars(wrapper).items() if hasattr(value, "__wrapped__"))
    replace = {"delete": False} if "delete" in vars(wrapper) else {}  # 3.11 has one of its own
    return reduce_by_state(wrapper, replace=replace, drop=cached)


@carries("tempfile._TemporaryFileCloser", subclasses=True)
def reduce_temporary_closer(closer: Any, packing: Packing) -> Reduced:
    """Reduce what removes a temporary file: the receiver's closes it and does not remove it."""
    from bequest.carry.instances import reduce_by_state

    return reduce_by_state(closer, replace={"delete": False})


@carries("tempfile.TemporaryDirectory", subclasses=True)
def reduce_temporary_directory(directory: Any, packing: Packing) -> Reduced:
    """Reduce a temporary directory: the receiver removes it only when told to with `cleanup()`."""
    from bequest.carry.instances import reduce_by_state

    make, args, state, *_ = reduce_by_state(directory, drop=("_finalizer",))
    return make, args, state, None, None, set_temporary_directory


@carries("posix.DirEntry", "nt.DirEntry")
def reduce_directory_entry(entry: Any, packing: Packing) -> Reduced:
    """Reduce what `os.scandir` yields to an object with the same methods and answers.

    Another `DirEntry` could only be had by reading the directory again, for every single entry.
    """
    kinds = {}
    for name in ("is_dir", "is_file", "is_symlink"):
        kinds[name] = getattr(entry, name)()
    return DirectoryEntry, (entry.name, entry.path, entry.inode(), kinds)


@carries("posix.ScandirIterator", "nt.ScandirIterator")
def reduce_directory_iterator(iterator: Any, packing: Packing) -> Reduced:
    """Refuse an iterator over a directory."""
    raise NotCarriedError("it reads a directory as it goes", "Make a list of it first")


# -- compressed ----------------------------------------------------------------------------------------------


@carries("gzip.GzipFile", "bz2.BZ2File", "lzma.LZMAFile", subclasses=True)
def reduce_compressed(file: Any, packing: Packing) -> Reduced:
    """Reduce a compressed file that is read to the file below it and the place in it."""
    kind = next(kind for kind in type(file).__mro__ if kind.__module__ in ("gzip", "bz2", "lzma"))
    if file.closed:
        return make_compressed, (type(file),), (kind, None, 0, _extra(file)), None, None, set_compressed
    if file.writable():
        raise NotCarriedError("its compressor is half way through its stream", "Close it first")
    below = file.fileobj if kind.__name__ == "GzipFile" else file._fp
    if not file.seekable():
        raise NotCarriedError(
            "what it reads from cannot be read again from its beginning", "Open it in the child"
        )
    source = _afresh(below)
    require(source, packing)
    return (
        make_compressed,
        (type(file),),
        (kind, source, file.tell(), _extra(file)),
        None,
        None,
        set_compressed,
    )


def _extra(file: Any) -> dict[str, Any]:
    """Return the attributes that a user added to a compressed file, and its name."""
    own = (
        "fileobj",
        "myfileobj",
        "_fp",
        "_closefp",
        "_buffer",
        "_mode",
        "_pos",
        "_compressor",
        "_size",
        "mode",
    )
    return {name: value for name, value in vars(file).items() if name not in own}


def _afresh(below: Any) -> Any:
    """Return what stands in the message for a file that the receiver opens anew, at an offset of its own."""
    try:
        return OpenedAfresh(below.fileno())
    except (AttributeError, OSError):  # in memory: the receiver's is a copy
        return below


class OpenedAfresh:
    """Stands for an open file; rebuilt, it is a reader of the same file with an offset of its own."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd


@carries("bequest.carry.objects.filekinds.OpenedAfresh")
def reduce_opened_afresh(opened: OpenedAfresh, packing: Packing) -> Reduced:
    """Reduce it to the shared descriptor, and the name by which the system knows its file."""
    return open_afresh, (Descriptor(opened.fd), os.path.realpath(f"/proc/self/fd/{opened.fd}"))


# -- archives ------------------------------------------------------------------------------------------------


@carries("zipfile.ZipFile", subclasses=True)
def reduce_zip(archive: Any, packing: Packing) -> Reduced:
    """Reduce an archive to its state; one with members to be recorded would be finished by both processes."""
    from bequest.carry.instances import reduce_by_state

    if getattr(archive, "fp", None) is not None and getattr(archive, "_didModify", False):
        raise NotCarriedError("its directory of members has not been written yet", "Close it first")
    return reduce_by_state(archive)


@carries(
    "zipfile.ZipExtFile",
    "zipfile._ZipWriteFile",
    "_compression.DecompressReader",
    "compression._common._streams.DecompressReader",
    subclasses=True,
)
def reduce_member(member: Any, packing: Packing) -> Reduced:
    """Refuse a stream in or out of an archive."""
    raise NotCarriedError(
        "it is half way through a compressed stream", "Read it first, or open it in the child"
    )


# -- csv -----------------------------------------------------------------------------------------------------

_DIALECT = (
    "delimiter",
    "doublequote",
    "escapechar",
    "lineterminator",
    "quotechar",
    "quoting",
    "skipinitialspace",
    "strict",
)


@carries("_csv.Dialect")
def reduce_dialect(dialect: Any, packing: Packing) -> Reduced:
    """Reduce a dialect to its settings."""
    return make_dialect, ({name: getattr(dialect, name) for name in _DIALECT},)


@carries("_csv.writer")
def reduce_csv_writer(writer: Any, packing: Packing) -> Reduced:
    """Reduce a csv writer to its dialect and the `write` method that it calls."""
    import gc

    found = [found for found in gc.get_referents(writer) if callable(found) and not isinstance(found, type)]
    if len(found) != 1:
        raise NotCarriedError(
            "the file that it writes to cannot be reached", "Make it of its file in the child"
        )
    return make_csv_writer, (found[0], writer.dialect)


@carries("_csv.reader")
def reduce_csv_reader(reader: Any, packing: Packing) -> Reduced:
    """Reduce a csv reader to its dialect, what it reads from and how many lines it has read."""
    import gc

    held = gc.get_referents(reader)
    found = [found for found in held if hasattr(found, "__next__") and not isinstance(found, type)]
    if len(found) != 1:
        raise NotCarriedError("what it reads from cannot be reached", "Make it of its lines in the child")
    require(found[0], packing)
    return make_csv_reader, (found[0], reader.dialect, reader.line_num)


# -- codecs --------------------------------------------------------------------------------------------------


@carries(
    "codecs.StreamReader",
    "codecs.StreamWriter",
    "codecs.StreamReaderWriter",
    "codecs.StreamRecoder",
    subclasses=True,
)
def reduce_codec_stream(stream: Any, packing: Packing) -> Reduced:
    """Reduce what `codecs.open` returns, and its parts, which refuse to be pickled, to their state."""
    from bequest.carry.instances import reduce_by_state

    return reduce_by_state(stream)


# -- rebuilding ----------------------------------------------------------------------------------------------


def set_temporary_directory(directory: Any, state: Any) -> None:
    """Give a temporary directory its name, and a finalizer that is dead."""
    import weakref

    from bequest.carry.instances import fill

    fill(directory, state)
    directory._finalizer = weakref.finalize(directory, os.getpid)
    directory._finalizer.detach()


class DirectoryEntry:
    """What an `os.DirEntry` of another process said, with its methods."""

    __slots__ = ("_inode", "_kinds", "_stats", "name", "path")

    def __init__(self, name: Any, path: Any, inode: int, kinds: dict[str, bool]) -> None:
        self.name, self.path, self._inode, self._kinds = name, path, inode, kinds
        self._stats: dict[bool, os.stat_result] = {}

    def __fspath__(self) -> Any:
        """Return the path."""
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"

    def inode(self) -> int:
        """Return the inode's number."""
        return self._inode

    def is_symlink(self) -> bool:
        """Tell whether it is a symbolic link."""
        return self._kinds["is_symlink"]

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Tell whether it is a directory."""
        return self._kinds["is_dir"] and (follow_symlinks or not self.is_symlink())

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Tell whether it is a regular file."""
        return self._kinds["is_file"] and (follow_symlinks or not self.is_symlink())

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return the status of the file, asked for once."""
        if follow_symlinks not in self._stats:
            self._stats[follow_symlinks] = os.stat(self.path, follow_symlinks=follow_symlinks)
        return self._stats[follow_symlinks]


def make_compressed(kind: Any) -> Any:
    """Make a compressed file that is not open; no `__init__` of a user's class runs."""
    return kind.__new__(kind)


def set_compressed(file: Any, state: tuple[Any, Any, int, dict[str, Any]]) -> None:
    """Open a compressed file for reading and read it up to a place."""
    import io

    kind, source, place, extra = state
    is_closed = source is None
    source = io.BytesIO() if is_closed else source
    source.seek(0)
    owns = isinstance(source, io.BufferedReader)  # opened afresh: nobody else closes it
    if kind.__name__ == "GzipFile":
        kind.__init__(file, fileobj=source, mode="rb")
        file.myfileobj = source if owns else None
    else:
        kind.__init__(file, source)
        file._closefp = owns
    file.seek(place)
    if is_closed:
        kind.close(file)
    file.__dict__.update(extra)


def open_afresh(fd: int, path: str) -> Any:
    """Open the file of descriptor `fd`, which is closed, for reading at an offset of its own."""
    own = f"/proc/self/fd/{fd}"
    try:
        # By descriptor: the file may have been removed, or another be there under its name.
        return open(own if os.path.exists(own) else path, "rb")
    finally:
        os.close(fd)


def make_dialect(settings: dict[str, Any]) -> Any:
    """Make a dialect of its settings."""
    import _csv

    return _csv.Dialect(**settings)


class _Sink:
    """What csv asks for: an object with `write`."""

    __slots__ = ("write",)

    def __init__(self, write: Any) -> None:
        self.write = write


def make_csv_writer(write: Any, dialect: Any) -> Any:
    """Make a csv writer that calls `write`."""
    import _csv

    return _csv.writer(_Sink(write), dialect)


def make_csv_reader(lines: Any, dialect: Any, line_num: int) -> Any:
    """Make a csv reader that has read `line_num` lines, and goes on with `lines`."""
    import _csv
    from itertools import chain, repeat

    if not line_num:
        return _csv.reader(lines, dialect)
    reader = _csv.reader(chain(repeat("", line_num), lines), dialect)
    for _ in range(line_num):
        next(reader)
    return reader
