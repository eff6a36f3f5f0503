"""Open files and what is built of them, carried within one process."""

from __future__ import annotations

import bz2
import codecs
import csv
import gc
import gzip
import io
import lzma
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from objects_packing import again

from bequest.carry.objects.innards import is_busy
from bequest.carry.registry import NotCarriedError

LIMIT_S = 30.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of six lines."""
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\nthree\nfour\nfive\nsix\n")
    return path


# -- raw and buffered ----------------------------------------------------------------------------------------


def test_raw_file_shares_its_offset(path: Path) -> None:
    """What one side reads of an unbuffered file, the other has passed."""
    with open(path, "rb", buffering=0) as file, again(file) as copy:
        assert (file.read(4), copy.read(4), file.read(3)) == (b"one\n", b"two\n", b"thr")
        assert (copy.name, copy.mode) == (file.name, file.mode)


@pytest.mark.parametrize("mode", ["rb", "rb+"])
def test_buffered_file_goes_on_where_the_parent_was(path: Path, mode: str) -> None:
    """Both sides go on from the parent's position, and the file is in the same place for who reads on."""
    with open(path, mode) as file:
        assert file.readline() == b"one\n"
        with again(file) as copy:
            assert (copy.tell(), copy.readline()) == (4, b"two\n")
            if mode == "rb":  # one that writes, too, has its place in the file in common with the copy
                assert file.readline() == b"two\n"
                copy.seek(0)
                assert copy.readline() == b"one\n"
            assert (copy.mode, type(copy), type(copy.raw)) == (mode, type(file), io.FileIO)


def test_big_file_is_read_to_its_end(path: Path) -> None:
    """What was read ahead and what follows in the file join without a gap, whatever the buffer's size."""
    data = bytes(range(256)) * 2000
    path.write_bytes(data)
    with open(path, "rb", buffering=777) as file:
        file.read(1000)
        with again(file) as copy:
            assert copy.peek() == file.peek()  # type: ignore[attr-defined]
            assert copy.read() == data[1000:]


def test_written_file_is_flushed_and_goes_on(path: Path) -> None:
    """What the parent has written is written once, before what the copy writes."""
    with open(path, "wb") as file, again(file) as other:
        file.write(b"one ")
        with again(file) as copy:
            copy.write(b"two ")
        other.write(b"three ")
        other.flush()
        file.write(b"four")
    assert path.read_bytes() == b"one two three four"


def test_file_for_update_keeps_what_both_write(path: Path) -> None:
    """A file open for reading and writing, with a write after a read, is at the parent's position."""
    with open(path, "r+b") as file:
        file.readline()
        file.write(b"TWO")
        with again(file) as copy:
            assert copy.read(1) == b"\n"
            assert copy.readline() == b"three\n"
    assert path.read_bytes().startswith(b"one\nTWO\n")


def test_appended_file_keeps_its_place_for_reading(path: Path) -> None:
    """Opening the copy of a file in append mode does not move the parent's offset."""
    with open(path, "ab+", buffering=0) as file:
        file.seek(4)
        with again(file) as copy:
            assert file.read(4) == b"two\n"
            copy.write(b"seven\n")
    assert path.read_bytes().endswith(b"six\nseven\n")


def test_pipe_keeps_what_was_read_ahead() -> None:
    """A pipe of which too much was read goes on with the rest, and packing it neither reads nor waits."""
    reader, writer = os.pipe()
    with open(reader, "rb") as file, open(writer, "wb", buffering=0) as sink:
        with again(file) as copy:
            assert copy.fileno() != file.fileno()
        sink.write(b"a\nb\n")
        assert file.readline() == b"a\n"
        with again(file) as copy:
            assert (copy.readline(), file.readline()) == (b"b\n", b"b\n")
            sink.write(b"c\n")
            assert copy.readline() == b"c\n"


@pytest.mark.parametrize("mode", ["rb", "r"])
def test_pipe_that_another_thread_reads_does_not_block(mode: str) -> None:
    """A thread that waits for a pipe's next line does not keep the stream from being carried."""
    reader, writer = os.pipe()
    with open(reader, mode) as file, open(writer, "wb", buffering=0) as sink:
        thread = threading.Thread(target=file.readline)
        thread.start()
        while not is_busy(getattr(file, "buffer", file)):
            assert thread.is_alive()
        with again(file) as copy:
            sink.write(b"for the thread\n")
            thread.join(LIMIT_S)
            sink.write(b"x\n")
            assert copy.readline() in (b"x\n", "x\n")


def test_closed_files_stay_closed(path: Path) -> None:
    """A file that was closed is closed, with its name, mode and encoding."""
    raw, buffered, text, memory = path.open("rb", 0), path.open("rb"), path.open("w+"), io.BytesIO(b"x")
    wrapped, of_memory = io.TextIOWrapper(io.BytesIO(b"x"), "latin-1"), io.StringIO("x")
    streams: list[Any] = [raw, buffered, text, memory, wrapped, of_memory]
    for stream in streams:
        stream.close()
    copies = again(streams)
    assert [copy.closed for copy in copies] == [True] * 6
    assert [copies[0].name, copies[1].name, copies[2].name] == [str(path)] * 3
    assert (copies[2].mode, copies[4].encoding) == ("w+", "latin-1")
    with pytest.raises(ValueError, match="closed"):
        copies[1].read()


def test_detached_stream_is_refused(path: Path) -> None:
    """A wrapper without its stream cannot be carried."""
    text, buffered = path.open(), path.open("rb")
    with text.detach(), buffered.detach():  # type: ignore[attr-defined]
        for stream in (text, buffered):
            with pytest.raises(NotCarriedError, match="detached"):
                again(stream)


def test_layers_stay_one_file(path: Path) -> None:
    """A text file and its own layers, carried together, are still one file."""
    with open(path) as file:
        copies = again([file, file.buffer, file.buffer.raw])  # type: ignore[attr-defined]
        assert copies[0].buffer is copies[1]
        assert copies[1].raw is copies[2]
        copies[0].close()


def test_pair_goes_on() -> None:
    """A BufferedRWPair goes on with what it has read ahead."""
    reader, writer = os.pipe()
    with io.BufferedRWPair(io.FileIO(reader), io.FileIO(writer, "w")) as pair:
        pair.write(b"a\nb\n")
        pair.flush()
        assert pair.readline() == b"a\n"
        copy = again(pair)
        assert copy.readline() == b"b\n"
        copy.close()


@pytest.mark.parametrize("mode", ["rw", "rwb"])
def test_file_of_a_socket_that_reads_and_writes_goes_on(mode: str) -> None:
    """`makefile("rw")` goes on with what it has read ahead, and writes."""
    here, there = socket.socketpair()
    with here, there, there.makefile(mode) as file:  # type: ignore[call-overload]  # a mode that it knows
        here.sendall(b"a\nb\n")
        assert file.readline() in ("a\n", b"a\n")
        copy, sock = again([file, there])
        with sock, copy:
            assert copy.readline() in ("b\n", b"b\n")
            copy.write("c" if mode == "rw" else b"c")
            copy.flush()
            assert here.recv(1) == b"c"


# -- text ----------------------------------------------------------------------------------------------------

TEXTS: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "one\ntwo\nthree\n" * 10),
    "universal": ({}, "one\r\ntwo\r\nthree\r\n" * 10),
    "untranslated": ({"newline": ""}, "one\r\ntwo\r\nthree\r\n" * 10),
    "carriage returns": ({"newline": "\r"}, "one\rtwo\rthree\r" * 10),
    "wide": ({"encoding": "utf-16"}, "öne\ntwø\nthrée\n" * 10),
    "many bytes": ({"encoding": "utf-8"}, "ön€\ntwø\nthré😀\n" * 2000),
    "stateful": ({"encoding": "iso2022_jp"}, "日本\n語\nabc日\n" * 1000),
    "surrogates": ({"encoding": "ascii", "errors": "surrogateescape"}, "a\udcffb\nc\udcfe\n" * 10),
}


@pytest.mark.parametrize("how", ["readline", "for", "read"])
@pytest.mark.parametrize("case", TEXTS)
def test_text_file_goes_on_where_the_parent_was(path: Path, case: str, how: str) -> None:
    """Half-read text goes on at the same character, in whatever way it was read, and the parent too."""
    options, text = TEXTS[case]
    with open(path, "w", newline="", **{key: options[key] for key in options if key != "newline"}) as out:
        out.write(text)
    with open(path, **options) as file, open(path, **options) as reference:
        for stream in (file, reference):
            read_some(stream, how)
        with again(file) as copy:
            assert copy.encoding == file.encoding
            if how != "for":
                assert copy.tell() == file.tell()
            assert copy.readline() == file.readline() == reference.readline()
            assert copy.read() == reference.read()


def read_some(stream: io.TextIOWrapper, how: str) -> None:
    """Read up to some place in the middle, in one of three ways."""
    if how == "for":
        for number, _ in enumerate(stream):
            if number == 3:
                break
    elif how == "readline":
        for _ in range(4):
            stream.readline()
    else:
        stream.read(7)


def test_written_text_keeps_its_settings(path: Path) -> None:
    """newline, errors and buffering of a text file hold for what the copy writes."""
    with open(path, "w", newline="\r\n", encoding="ascii", errors="replace", buffering=1) as file:
        file.write("one\n")
        with again(file) as copy:
            assert copy.line_buffering
            copy.write("twö\n")
            assert path.read_bytes() == b"one\r\ntw?\r\n"


def test_text_over_bytes_in_memory() -> None:
    """A TextIOWrapper over a BytesIO, and StringIO and BytesIO with a subclass and attributes, are copied."""
    wrapped = io.TextIOWrapper(io.BytesIO(b"first\nsecond\n"), encoding="utf-8")
    wrapped.readline()
    memory = Memory(b"data")
    memory.read(2)
    memory.label = "mine"
    copies = again([wrapped, memory])
    assert copies[0].readline() == "second\n"
    assert (copies[1].read(), copies[1].label) == (b"ta", "mine")


class Memory(io.BytesIO):
    """A user's stream in memory."""

    label = ""


class Upper(io.TextIOWrapper):
    """A user's text stream, with an `__init__` of its own."""

    def __init__(self, where: Path) -> None:
        self.where = where
        super().__init__(open(where, "rb"))  # noqa: SIM115 - closed with the text stream

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        """Return a line in capitals."""
        return super().readline(size).upper()


def test_subclass_of_a_stream_keeps_its_class(path: Path) -> None:
    """A user's subclass of a stream in C is carried with its attributes; its `__init__` is not run."""
    with Upper(path) as file:
        file.readline()
        with again(file) as copy:
            assert (copy.where, copy.readline(), type(copy)) == (path, "TWO\n", Upper)


def test_standard_streams_go_by_name() -> None:
    """The streams that the process began with, and their layers, are the child's own."""
    out: Any = sys.__stdout__
    assert again(out) is out
    assert again(out.buffer) is out.buffer
    raw = getattr(out.buffer, "raw", out.buffer)  # unbuffered, there is no layer between
    assert again(raw) is raw


# -- built of files ------------------------------------------------------------------------------------------


def test_temporary_files_stay_the_parents(tmp_path: Path) -> None:
    """The copy of a temporary file or directory works, and when it goes, the file and the directory stay."""
    with (
        tempfile.NamedTemporaryFile(dir=tmp_path) as file,
        tempfile.TemporaryFile(dir=tmp_path) as hidden,
        tempfile.SpooledTemporaryFile(dir=str(tmp_path)) as spooled,
        tempfile.TemporaryDirectory(dir=tmp_path) as directory,
    ):
        named = again(file)
        for stream in (file, hidden, spooled):
            stream.write(b"data")
            copy = again(stream)
            copy.seek(1)
            assert copy.read() == b"ata"
            copy.close()
        named.close()
        assert os.path.exists(file.name)
        assert os.path.isdir(directory)


def test_temporary_directory_is_not_removed_with_the_copy(tmp_path: Path) -> None:
    """Dropping the copy of a TemporaryDirectory leaves the directory; the parent's `cleanup()` removes it."""
    directory = tempfile.TemporaryDirectory(dir=tmp_path)
    copy = again(directory)
    assert copy.name == directory.name
    del copy
    gc.collect()
    assert os.path.isdir(directory.name)
    directory.cleanup()
    assert not os.path.exists(directory.name)


def test_directory_entry_answers_as_in_the_parent(path: Path) -> None:
    """What os.scandir yields has its names and kinds; the iterator is refused."""
    with os.scandir(path.parent) as entries:
        with pytest.raises(NotCarriedError):
            again(entries)
        (entry,) = entries
    copy = again(entry)
    assert (copy.name, copy.path, os.fspath(copy)) == (entry.name, entry.path, entry.path)
    assert (copy.is_file(), copy.is_dir(), copy.is_symlink()) == (True, False, False)
    assert (copy.inode(), copy.stat().st_size) == (entry.inode(), path.stat().st_size)


@pytest.mark.parametrize("module", [gzip, bz2, lzma])
def test_compressed_file_goes_on_where_the_parent_was(path: Path, module: Any) -> None:
    """A compressed file that is read goes on at its place; one that is written is refused."""
    packed = path.with_suffix(".packed")
    with module.open(packed, "wb") as out:
        with pytest.raises(NotCarriedError):
            again(out)
        out.write(path.read_bytes() * 100)
    with module.open(packed, "rb") as file, module.open(packed, "rt") as text:
        assert (file.readline(), text.readline()) == (b"one\n", "one\n")
        with again(file) as copy, again(text) as copied_text:
            assert copy.read() == (path.read_bytes() * 100)[4:]
            assert copied_text.readline() == "two\n"
        assert (file.readline(), text.readline()) == (b"two\n", "two\n")
    assert again(file).closed


def test_compressed_data_in_memory(path: Path) -> None:
    """The file below a compressed one may be in memory."""
    with gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(path.read_bytes()))) as file:
        file.read(4)
        with again(file) as copy:
            assert copy.readline() == b"two\n"


def test_archives_can_be_read(path: Path) -> None:
    """Archives that are open for reading are read in the child; one that is being written is refused."""
    archive, tape = path.with_suffix(".zip"), path.with_suffix(".tar")
    with zipfile.ZipFile(archive, "w") as out:
        out.write(path, "member")
        with pytest.raises(NotCarriedError):
            again(out)
    with tarfile.open(tape, "w") as out_tape:
        out_tape.add(path, "member")
    with zipfile.ZipFile(archive) as source, tarfile.open(tape) as source_tape:
        copy, copied_tape = again([source, source_tape])
        assert copy.read("member") == path.read_bytes()
        assert copied_tape.extractfile("member").read() == path.read_bytes()
        copy.close()
        copied_tape.close()


def test_csv_goes_on_where_it_was(path: Path) -> None:
    """csv readers and writers, in their dialect, go on with the lines and the file that they had."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";", lineterminator="\n")
    writer.writerow(["a", "b"])
    reader = csv.reader(["a;b", "'c;d';e", "f"], delimiter=";", quotechar="'")
    next(reader)
    table = csv.DictReader(io.StringIO("x,y\n1,2\n3,4\n"))
    next(table)
    writer, out, reader, table = again([writer, out, reader, table])
    writer.writerow(["c", "d e"])
    assert out.getvalue() == "a;b\nc;d e\n"
    assert (reader.line_num, next(reader), reader.line_num) == (1, ["c;d", "e"], 2)
    assert next(table) == {"x": "3", "y": "4"}


def test_codec_stream_goes_on(path: Path) -> None:
    """What codecs.open returned reads on."""
    with codecs.StreamReaderWriter(path.open("rb"), *codecs.lookup("utf-8")[2:]) as file, again(file) as copy:
        assert copy.readline() == "one\n"


# -- endpoints -----------------------------------------------------------------------------------------------


class Green(socket.socket):
    """A user's socket."""

    greeting = "hello"


def test_socket_keeps_class_timeout_and_connection() -> None:
    """A socket of a user's class is the same connection, with its attributes; a closed one is closed."""
    here, there = socket.socketpair()
    green = Green(fileno=there.detach())
    green.greeting = "mine"
    green.settimeout(LIMIT_S)
    with here, green, again(green) as copy:
        here.sendall(b"data")
        assert (type(copy), copy.greeting, copy.gettimeout(), copy.recv(4)) == (
            Green,
            "mine",
            LIMIT_S,
            b"data",
        )
        copy.sendall(b"back")
        assert here.recv(4) == b"back"
    assert again(green).fileno() == -1


def test_file_of_a_socket_goes_on() -> None:
    """`makefile()` keeps what it has read ahead, and its socket."""
    here, there = socket.socketpair()
    with here, there, there.makefile("rb") as file, there.makefile("r") as text:
        here.sendall(b"a\nb\n")
        assert file.readline() == b"a\n"
        copy, sock = again([file, there])
        assert copy.raw._sock is sock
        assert copy.readline() == b"b\n"
        here.sendall(b"c\nd\n")
        assert text.readline() == "c\n"
        copied_text, other = again([text, there])
        assert copied_text.readline() == "d\n"
        for end in (copy, sock, copied_text, other):
            end.close()


def test_started_program_is_a_handle() -> None:
    """A Popen tells whether the program runs, is waited for and signalled; its pipes are shared."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        copy = again(program)
        assert (copy.pid, copy.poll()) == (program.pid, None)
        with pytest.raises(subprocess.TimeoutExpired):
            copy.wait(0.01)
        copy.stdin.write("line\n")
        copy.stdin.close()
        assert copy.stdout.readline() == "line\n"
        copy.terminate()
        assert copy.wait(LIMIT_S) == 0
        copy.stdout.close()
        assert program.wait(LIMIT_S) == -15
