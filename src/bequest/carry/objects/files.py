"""How open files are carried: the receiver has the same open files, at the same place, as a forked child has.

    FileIO -> its descriptor, shared: one offset for both processes
    Buffered... over it -> flushed, or with what it has read ahead: both processes go on where the sender was
    TextIOWrapper over that -> with the text that it has decoded and not handed out
    sys.__stdin__ / __stdout__ / __stderr__ and their layers -> the receiver's own, by name
    BytesIO, StringIO -> copied, also when closed

What is built of files (tempfile, gzip, csv ...) is in `filekinds`, what is not a file (sockets, subprocesses,
maps) in `endpoints`. Reducing a file flushes it, and changes nothing else in the sender.
The functions that rebuild are at the end.
"""

from __future__ import annotations

import io
import os
import sys

from bequest.carry.objects.descriptors import Descriptor
from bequest.carry.objects.parts import require
from bequest.carry.registry import NotCarriedError, carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced

_STANDARD = ("stdin", "stdout", "stderr")
_LAYERS: tuple[tuple[str, ...], ...] = ((), ("buffer",), ("buffer", "raw"))


def _standard_place(stream: Any) -> tuple[str, ...] | None:
    """Return (name, attributes ...) where `stream` is a layer of a stream that the process began with."""
    for name in _STANDARD:
        layer = getattr(sys, f"__{name}__")
        for attributes in _LAYERS:
            if layer is stream:
                return (name, *attributes)
            layer = _below(layer)
            if layer is None:
                break
    return None


def _below(layer: Any) -> Any:
    try:
        return getattr(layer, "buffer", None) or getattr(layer, "raw", None)
    except ValueError:  # somebody has detached it
        return None


def _attributes(obj: Any) -> tuple[Any, Any, Any]:
    """Return the state that `instances.fill` puts back: the `__dict__` and the slots of a user's subclass."""
    from bequest.carry.ambient.adopter import is_front_end
    from bequest.carry.instances import read_slots

    # A notebook puts a `write` of its own on whatever `sys.stdout` is, and behind it stands the whole shell.
    own = {
        name: value
        for name, value in (getattr(obj, "__dict__", None) or {}).items()
        if not is_front_end(value)
    }
    return own, read_slots(obj), None


def _base_of(stream: Any) -> str:
    """Return the name in `io` of the class in C that a stream is, or is derived from."""
    return next(kind.__name__ for kind in type(stream).__mro__ if kind.__module__ == "_io")


# -- raw -----------------------------------------------------------------------------------------------------


@carries("_io.FileIO", subclasses=True)
def reduce_file(file: Any, packing: Packing) -> Reduced:
    """Reduce a raw file to its shared descriptor; a closed one stays closed."""
    place = _standard_place(file)
    if place is not None:
        return standard_stream, place
    fd = None if file.closed else Descriptor(file.fileno())
    return make_stream, (type(file),), (fd, file.mode, _attributes(file)), None, None, set_file


# -- buffered ------------------------------------------------------------------------------------------------


@carries("_io.BufferedReader", "_io.BufferedWriter", "_io.BufferedRandom", subclasses=True)
def reduce_buffered(stream: Any, packing: Packing) -> Reduced:
    """Reduce a buffered stream to its raw one, and what it has read from there and not handed out."""
    place = _standard_place(stream)
    if place is not None:
        return standard_stream, place
    raw = _layer(stream, "raw")
    require(raw, packing)
    size = max(stream.__sizeof__() - type(stream).__basicsize__, 1)
    ahead = None if stream.closed else read_ahead(stream)
    state = (_base_of(stream), raw, size, ahead, _attributes(stream))
    return make_stream, (type(stream),), state, None, None, set_buffered


def _layer(stream: Any, name: str) -> Any:
    """Return the layer below `stream`; below a closed one, one that the receiver can open for a moment."""
    try:
        layer = getattr(stream, name)
    except ValueError:  # so says a detached buffered stream; a text stream has None
        layer = None
    if layer is None:
        raise NotCarriedError("it has been detached from its file", "Carry the stream that was detached")
    if not layer.closed or isinstance(layer, _REOPENED):
        return layer
    stand_in = io.BytesIO()
    stand_in.close()
    return stand_in


_REOPENED = (io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.BytesIO)


def read_ahead(stream: Any) -> bytes:
    """Flush a buffered stream, and return what it has read ahead of its position.

    One that reads and writes loses by the flush what it has read ahead, and moves its file back to its
    position, here as there. To have it read again would be worse: when it is closed, it moves the file, whose
    offset is shared, back by that much once more.
    """
    from bequest.carry.objects import innards

    if innards.is_busy(stream):  # its bytes are in the hands of that thread
        return b""
    if stream.writable():
        flush(stream)
        return b""
    if not _is_ahead(stream):
        return b""
    return bytes(stream.peek()) if stream.seekable() else _peeked(stream)


def _is_ahead(stream: Any) -> bool:
    """Tell whether a stream may have read ahead; where it can seek, its position says so."""
    return not stream.seekable() or stream.raw.tell() > stream.tell()


def _peeked(stream: Any) -> bytes:
    """Return what a stream that cannot seek has read ahead, without reading.

    `peek()` reads where there is nothing: for this thread, and for one call, the raw stream then says that it
    is at its end, which a buffered stream does not remember.
    """
    import threading

    raw, me = stream.raw, threading.get_ident()
    read = raw.readinto

    def at_end(buffer: Any) -> Any:
        return 0 if threading.get_ident() == me else read(buffer)

    try:
        raw.readinto = at_end
    except AttributeError as error:
        raise NotCarriedError("what it has read ahead cannot be told", "Open it in the child") from error
    try:
        return bytes(stream.peek())
    finally:
        del raw.readinto


def flush(stream: Any) -> None:
    """Flush a stream of the sender, so that nothing that it holds is written twice."""
    try:
        stream.flush()
    except (OSError, ValueError) as error:
        raise NotCarriedError(
            f"what it holds cannot be written ({error})", "Flush or close it first"
        ) from error


@carries("_io.BufferedRWPair", subclasses=True)
def reduce_pair(pair: Any, packing: Packing) -> Reduced:
    """Reduce a pair of streams to the raw ones of those two, and what is read ahead."""
    if pair.closed:
        raise NotCarriedError("it is closed", "Carry the two streams and pair them in the child")
    reader, writer = _streams_of_pair(pair)
    require(reader.raw, packing)
    require(writer.raw, packing)
    state = (reader.raw, writer.raw, read_ahead(reader), _attributes(pair))
    flush(writer)
    return make_stream, (type(pair),), state, None, None, set_pair


def _streams_of_pair(pair: Any) -> tuple[Any, Any]:
    """Return the reader and the writer of a pair, which it shows to the garbage collector from 3.13 on."""
    import gc

    from bequest.carry.objects import peek

    kinds = (io.BufferedReader, io.BufferedWriter)
    found = [found for kind in kinds for found in gc.get_referents(pair) if isinstance(found, kind)]
    if len(found) == 2:
        return found[0], found[1]
    try:
        peek.expect(_pair_is_as_expected)
    except NotCarriedError as error:
        remedy = "Carry the two streams and pair them in the child"
        raise NotCarriedError("its two streams cannot be reached", remedy) from error
    reader, writer = peek.body(pair)[:2]
    if not reader or not writer:
        raise NotCarriedError("it has been given no streams", "Make it in the child")
    return peek.object_at(reader), peek.object_at(writer)


def _pair_is_as_expected() -> bool:
    """Look into a pair whose two streams are known by what they read and write."""
    import gc

    from bequest.carry.objects import peek

    reading, writing = io.BytesIO(), io.BytesIO()
    sample = io.BufferedRWPair(reading, writing)
    streams = [found for found in gc.get_objects() if type(found) in (io.BufferedReader, io.BufferedWriter)]
    known = {id(found): found.raw for found in streams}
    reader, writer = peek.body(sample)[:2]
    return known.get(reader) is reading and known.get(writer) is writing


# -- text ----------------------------------------------------------------------------------------------------


@carries("_io.TextIOWrapper", subclasses=True)
def reduce_text(stream: Any, packing: Packing) -> Reduced:
    """Reduce a text stream to the one below it, its settings, and the text that it has decoded ahead."""
    from bequest.carry.objects import innards

    place = _standard_place(stream)
    if place is not None:
        return standard_stream, place
    buffer = _layer(stream, "buffer")
    require(buffer, packing)
    is_idle = not stream.closed and not innards.is_busy(buffer)
    if is_idle and stream.writable():
        flush(stream)
    try:
        inside = innards.TextState(stream)
    except LookupError as error:
        raise NotCarriedError(str(error), "Open it in the child") from error
    settings = (stream.encoding, stream.errors, inside.newline, stream.line_buffering, stream.write_through)
    pending = _pending(stream, inside) if is_idle and inside.decoder is not None else None
    state = (buffer, stream.closed, settings, stream._CHUNK_SIZE, pending, _attributes(stream))
    return make_stream, (type(stream),), state, None, None, set_text


def _pending(stream: Any, inside: Any) -> tuple[Any, bytes, int, Any] | None:
    """Return (decoder state before, bytes to decode, characters to skip, decoder state after)."""
    after = inside.decoder.getstate()
    text = inside.decoded[inside.used :]
    if not inside.decoded:
        return None if after == (b"", 0) else (None, b"", 0, after)
    if inside.snapshot is not None and _decodes_to(stream, inside) == inside.decoded:
        flags, fed = inside.snapshot
        return (b"", flags), fed, inside.used, None
    # In a `for` loop no snapshot is taken: the text is encoded again.
    lenient = stream.errors if stream.errors in ("surrogateescape", "surrogatepass") else "strict"
    try:
        return None, text.encode(stream.encoding, lenient), 0, after
    except UnicodeEncodeError as error:
        raise NotCarriedError(
            "the text that it has read ahead cannot be told", "Open it in the child"
        ) from error


def _decodes_to(stream: Any, inside: Any) -> str | None:
    """Decode the bytes of the snapshot in the way of `stream`; a snapshot may be older than the text."""
    import codecs

    decoder: Any = codecs.getincrementaldecoder(stream.encoding)(stream.errors)
    if not inside.newline:
        decoder = io.IncrementalNewlineDecoder(decoder, translate=inside.newline is None)
    flags, fed = inside.snapshot
    decoder.setstate((b"", flags))
    try:
        return str(decoder.decode(fed))
    except UnicodeDecodeError:
        return None


# -- in memory -----------------------------------------------------------------------------------------------


@carries("_io.BytesIO", "_io.StringIO", subclasses=True)
def reduce_memory(stream: Any, packing: Packing) -> Reduced:
    """Reduce a stream in memory in its own way, which refuses a closed one: that stays closed."""
    if not stream.closed:
        return packing.own_way(stream)
    return (
        make_stream,
        (type(stream),),
        (_base_of(stream), _attributes(stream)),
        None,
        None,
        set_closed_memory,
    )


# -- rebuilding ----------------------------------------------------------------------------------------------


def standard_stream(name: str, *attributes: str) -> Any:
    """Return a layer of this process's own standard stream; None where it has no such stream."""
    stream = getattr(sys, f"__{name}__") or getattr(sys, name)
    for attribute in attributes:
        stream = getattr(stream, attribute, None)
    return stream


def make_stream(kind: Any) -> Any:
    """Make a stream that is not open; no `__init__` of its class runs."""
    return kind.__new__(kind)


def set_file(file: Any, state: tuple[int | None, str, Any]) -> None:
    """Open a raw file on a descriptor that it owns, or leave it closed."""
    fd, mode, attributes = state
    if fd is None:
        _init_closed_file(file, mode)
        file.close()
    else:
        _init_file(file, fd, mode)
        if isinstance(attributes[0].get("name"), int):  # opened by number: the number is this process's
            attributes[0]["name"] = fd
    _fill(file, attributes)


def _init_file(file: Any, fd: int, mode: str) -> None:
    offset = None
    if "a" in mode:  # FileIO moves to the end, and the offset is the sender's too
        try:
            offset = os.lseek(fd, 0, os.SEEK_CUR)
        except OSError:  # a pipe or a terminal has none
            offset = None
    io.FileIO.__init__(file, fd, mode)
    if offset is not None:
        os.lseek(fd, offset, os.SEEK_SET)


def _init_closed_file(file: Any, mode: str) -> None:
    name = file.__dict__.get("name")
    io.FileIO.__init__(file, os.devnull, mode.replace("x", "w"))
    if name is not None:
        file.name = name


def _fill(stream: Any, attributes: Any) -> None:
    from bequest.carry.instances import fill

    fill(stream, attributes)


def set_buffered(stream: Any, state: tuple[str, Any, int, bytes | None, Any]) -> None:
    """Open a buffered stream over its raw one, with what the sender had read ahead already in it."""
    base, raw, size, ahead, attributes = state
    kind: Any = getattr(io, base)
    if ahead is None:
        _reopen(raw)
    kind.__init__(stream, raw, size)
    if ahead is None:
        kind.close(stream)
    elif ahead:
        _prefill(stream, raw, ahead)
    _fill(stream, attributes)


def _prefill(stream: Any, raw: Any, ahead: bytes) -> None:
    """Let a fresh buffered stream read `ahead`, which its raw stream has behind it."""

    def hand_over(buffer: Any) -> int:
        buffer[: len(ahead)] = ahead
        return len(ahead)

    raw.readinto = hand_over
    try:
        stream.peek()
    finally:
        del raw.readinto
    if raw.seekable():
        stream.tell()  # it asks the raw stream where that is, and no longer counts what it was handed


def set_pair(pair: Any, state: tuple[Any, Any, bytes, Any]) -> None:
    """Pair two raw streams."""
    reader, writer, ahead, attributes = state
    io.BufferedRWPair.__init__(pair, reader, writer)
    if ahead:
        _prefill(pair, reader, ahead)
    _fill(pair, attributes)


def set_text(stream: Any, state: tuple[Any, bool, Any, int, Any, Any]) -> None:
    """Open a text stream over the one below it, with the text that the sender had decoded ahead."""
    buffer, is_closed, settings, chunk_size, pending, attributes = state
    if is_closed:
        _reopen(buffer)
    io.TextIOWrapper.__init__(stream, buffer, *settings)
    stream._CHUNK_SIZE = chunk_size
    if pending is not None:
        _decode_ahead(stream, buffer, pending)
    if is_closed:
        io.TextIOWrapper.close(stream)
    _fill(stream, attributes)


def _decode_ahead(stream: Any, buffer: Any, pending: tuple[Any, bytes, int, Any]) -> None:
    import gc

    before, fed, used, after = pending
    decoder = next(found for found in gc.get_referents(stream) if hasattr(found, "setstate"))
    if before is not None:
        decoder.setstate(before)
    if fed:
        name = "read1" if hasattr(buffer, "read1") else "read"
        setattr(buffer, name, lambda _size: fed)
        try:
            io.TextIOWrapper.readline(stream, 0)  # reads one chunk, and hands out nothing of it
        finally:
            delattr(buffer, name)
        io.TextIOWrapper.read(stream, used)
    if after is not None:
        decoder.setstate(after)


def _reopen(stream: Any) -> None:
    """Make a closed stream usable again, for as long as it takes to put another one above it."""
    stream.__dict__.pop("__IOBase_closed", None)  # how a raw stream remembers it
    if isinstance(stream, io.FileIO):
        _init_closed_file(stream, stream.mode)
    elif isinstance(stream, (io.BufferedReader, io.BufferedWriter, io.BufferedRandom)):
        raw = stream.raw
        _reopen(raw)
        kind: Any = getattr(io, _base_of(stream))
        kind.__init__(stream, raw)
    elif isinstance(stream, io.BytesIO):
        io.BytesIO.__init__(stream, b"")


def set_closed_memory(stream: Any, state: tuple[str, Any]) -> None:
    """Make a closed stream in memory."""
    base, attributes = state
    kind: Any = getattr(io, base)
    kind.__init__(stream)
    kind.close(stream)
    _fill(stream, attributes)
