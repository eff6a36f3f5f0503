"""What a sqlite3 connection shows to nobody: flags of `connect`, and the Python functions registered with it.

    Connection -> the library's struct -> its hash of functions -> FuncDef -> Python's context -> function

Used by the sender only, and only to read. Nothing is taken for granted but the order of fields in structs
that SQLite has not changed in many years; where in the larger structs they hang is found on connections made
for that purpose, whose contents are known. Memory is read through the kernel, which answers a wrong address
with an error.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_LIBRARY_WORDS = 160  # of SQLite's struct for a connection; its hashes are among the first 100
_NEXT, _DATA = 0, 2  # HashElem: next, prev, data, pKey
_HEAD, _USER_DATA, _OVERLOAD, _STEP, _FINAL, _VALUE, _NAME = (
    0,
    1,
    2,
    3,
    4,
    5,
    7,
)  # FuncDef, `_HEAD` being two numbers
_COLLATION_WORDS, _COLLATION_USER = (
    5,
    2,
)  # CollSeq: zName, enc, pUser, xCmp, xDel; one for each of three encodings
_DETERMINISTIC = 0x800
_LONGEST_NAME = 256
_MOST_ELEMENTS = 10_000  # of a hash; ends a walk that a wrong word has started
_PROBE = b"bequest_probe"


def flag(connection: Any, option: str) -> int:
    """Return what `option` of `connect` was, one that is kept as a C int."""
    found: int = _ints(connection)[_flag_place(option)]
    return found


@functools.cache
def _flag_place(option: str) -> int:
    values = (0, 1, 1, 0, 1, 0, 0, 1)
    connect: Any = sqlite3.connect
    samples = [connect(":memory:", **{option: value}) for value in values]
    try:
        columns = list(zip(*(_ints(sample) for sample in samples), strict=True))
    finally:
        for sample in samples:
            sample.close()
    return columns.index(values)


def _ints(connection: Any) -> memoryview:
    from bequest.carry.objects import peek

    words = peek.words_at(id(connection) + object.__basicsize__, _connection_words())
    return memoryview(b"".join(word.to_bytes(8, "little", signed=True) for word in words)).cast("I")


def _connection_words() -> int:
    return (sqlite3.Connection.__basicsize__ - object.__basicsize__) // 8


def functions(connection: Any) -> list[tuple[str, str, int, Any, bool]]:
    """Return (method of Connection that registers, name, arity, function or class, deterministic) of each."""
    try:
        with _Memory() as memory:
            return list(_functions(memory, _library_struct(connection)))
    except OSError:  # /proc is not there, or a word was no address
        return []


def collations(connection: Any) -> list[tuple[str, Any]]:
    """Return (name, function) of each collation."""
    try:
        with _Memory() as memory:
            return list(_collations(memory, _library_struct(connection)))
    except OSError:  # as above
        return []


class _Memory:
    """This process's memory, through the kernel."""

    def __enter__(self) -> _Memory:
        self._file = os.open("/proc/self/mem", os.O_RDONLY)
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._file)

    def read(self, address: int, size: int) -> bytes:
        """Return up to `size` bytes.

        Raises:
            OSError: There is no memory at `address`.
        """
        if not 0 < address < 1 << 62:
            raise OSError(f"not an address: {address:#x}")
        return os.pread(self._file, size, address)

    def words(self, address: int, count: int) -> list[int]:
        """Return `count` words."""
        raw = self.read(address, count * 8)
        if len(raw) < count * 8:
            raise OSError(f"no memory at {address:#x}")
        return list(struct.unpack(f"{count}N", raw))

    def text(self, address: int) -> str:
        """Return a C string."""
        return self.read(address, _LONGEST_NAME).partition(b"\0")[0].decode()

    def chain(self, address: int) -> Iterator[int]:
        """Yield the data of each element of a hash of SQLite."""
        for _ in range(_MOST_ELEMENTS):
            if not address:
                return
            element = self.words(address, 4)
            yield element[_DATA]
            address = element[_NEXT]


def _library_struct(connection: Any) -> int:
    from bequest.carry.objects import peek

    return peek.words_at(id(connection) + object.__basicsize__, 1)[0]


def _functions(memory: _Memory, library: int) -> Iterator[tuple[str, str, int, Any, bool]]:
    from bequest.carry.objects import peek

    place, ways = _function_place()
    if place is None:
        return
    for definition in memory.chain(memory.words(library + 8 * place, 1)[0]):
        while definition:
            fields = memory.words(definition, 8)
            way = ways.get((fields[_STEP], bool(fields[_VALUE])))
            if way is not None and fields[_USER_DATA]:  # others are C functions, of SQLite or of an extension
                arity = int.from_bytes((fields[_HEAD] & 0xFF).to_bytes(1, "little"), "little", signed=True)
                called = peek.object_at(memory.words(fields[_USER_DATA], 1)[0])
                yield (
                    way,
                    memory.text(fields[_NAME]),
                    arity,
                    called,
                    bool(fields[_HEAD] >> 32 & _DETERMINISTIC),
                )
            definition = fields[_OVERLOAD]


def _collations(memory: _Memory, library: int) -> Iterator[tuple[str, Any]]:
    from bequest.carry.objects import peek

    place, compare = _collation_place()
    if place is None:
        return
    for sequences in memory.chain(memory.words(library + 8 * place, 1)[0]):
        words = memory.words(sequences, 3 * _COLLATION_WORDS)
        for start in range(0, len(words), _COLLATION_WORDS):
            if words[start + _COLLATION_USER + 1] == compare and words[start + _COLLATION_USER]:
                yield (
                    memory.text(words[start]),
                    peek.object_at(memory.words(words[start + _COLLATION_USER], 1)[0]),
                )
                break


def _probe(*args: object) -> int:
    """Registered with the sample connections, so that it can be recognised there."""
    return 0


class _ProbeAggregate:
    def step(self, *args: object) -> None: ...
    def value(self) -> int: ...  # type: ignore[empty-body]  # never called
    def inverse(self, *args: object) -> None: ...
    def finalize(self) -> int: ...  # type: ignore[empty-body]  # never called


@functools.cache
def _function_place() -> tuple[int | None, dict[tuple[int, bool], str]]:
    """Return where the hash of functions hangs, and how to tell by its callbacks what has registered one."""
    place: int | None = None
    ways: dict[tuple[int, bool], str] = {}
    registered: tuple[tuple[str, Any], ...] = (
        ("create_function", _probe),
        ("create_aggregate", _ProbeAggregate),
        ("create_window_function", _ProbeAggregate),  # since 3.11, with a SQLite of 2018 or later
    )
    for way, called in registered:
        sample = sqlite3.connect(":memory:")
        try:
            getattr(sample, way)(_PROBE.decode(), 1, called)
            found = _find_function(_library_struct(sample), id(called))
        except (AttributeError, sqlite3.NotSupportedError):
            continue
        finally:
            sample.close()
        if found is not None:
            place, fields = found
            ways[fields[_STEP], bool(fields[_VALUE])] = way
    return place, ways


def _find_function(library: int, called: int) -> tuple[int, list[int]] | None:
    with _Memory() as memory:
        for place, word in enumerate(memory.words(library, _LIBRARY_WORDS)):
            fields = _function_behind(memory, word, called)
            if fields is not None:
                return place, fields
    return None


def _function_behind(memory: _Memory, word: int, called: int) -> list[int] | None:
    """Return the definition of the sample's function, if `word` points to the elements of its hash."""
    try:
        for definition in memory.chain(word):
            fields = memory.words(definition, 8)
            if fields[_USER_DATA] and memory.words(fields[_USER_DATA], 1) == [called]:
                return fields if memory.read(fields[_NAME], len(_PROBE)) == _PROBE else None
    except OSError:  # no pointer to an element
        pass
    return None


@functools.cache
def _collation_place() -> tuple[int | None, int]:
    """Return where the hash of collations hangs, and the callback by which one of Python is known."""
    sample = sqlite3.connect(":memory:")
    try:
        sample.create_collation(_PROBE.decode(), _probe)
        library = _library_struct(sample)
        with _Memory() as memory:
            for place, word in enumerate(memory.words(library, _LIBRARY_WORDS)):
                found = _collation_behind(memory, word)
                if found is not None:
                    return place, found
    finally:
        sample.close()
    return None, 0


def _collation_behind(memory: _Memory, word: int) -> int | None:
    """Return the callback of the sample's collation, if `word` points to the elements of its hash."""
    try:
        for sequences in memory.chain(word):
            words = memory.words(sequences, 3 * _COLLATION_WORDS)
            for start in range(0, len(words), _COLLATION_WORDS):
                user, compare = words[start + _COLLATION_USER : start + _COLLATION_USER + 2]
                if user and memory.words(user, 1) == [id(_probe)]:
                    return compare
    except OSError:  # no pointer to an element
        pass
    return None
