"""Databases, TLS contexts, loggers and the like: opened again, named again, or refused with the reason."""

from __future__ import annotations

import bz2
import contextlib
import gc
import hashlib
import hmac
import json
import logging
import lzma
import os
import pickle
import random
import re
import sqlite3
import ssl
import struct
import xmlrpc.client
import zlib
import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bequest.carry.pickler import dumps, pack
from bequest.errors import CarryError
from receiving import Receiver


def again(obj: Any) -> Any:
    """Return `obj` as a child would have it."""
    return pickle.loads(pack(obj, starting=True, strict=True).data)


# -- time zones and tokens


def test_time_zone_of_a_class_that_comes_along(receiver: Receiver) -> None:
    """A zone is in the cache of its class, which comes with it and has that very zone there."""

    class Zone(zoneinfo.ZoneInfo):
        pass

    zone: Any = Zone("UTC")
    zone.note = "note"

    assert receiver.ask("(it.key, it.note, type(it)('UTC') is it)", dumps(zone)) == ("UTC", "note", True)


def test_scanner_of_a_lexicon() -> None:
    """It is compiled again, with its flags, and calls what it called."""
    lexer: Any = re.Scanner([("[a-z]+", lambda found, text: text), (r"\s", None)], re.IGNORECASE)  # type: ignore[attr-defined]

    assert again(lexer).scan("Ab c") == (["Ab", "c"], "")
    with pytest.raises(CarryError, match="of several texts"):
        again(lexer.scanner)


# -- random


def test_system_random_draws_there() -> None:
    """A generator that draws from the system has no state to carry; what else it holds comes along."""

    class Tokens(random.SystemRandom):
        def __init__(self, length: int) -> None:
            super().__init__()
            self.length = length

    arrived = again(Tokens(8))

    assert 0 <= arrived.random() < 1
    assert arrived.length == 8


# -- sqlite3


class Total:
    """An aggregate, also of a window."""

    def __init__(self) -> None:
        self.total = 0

    def step(self, value: int) -> None:
        """Add one."""
        self.total += value

    def inverse(self, value: int) -> None:
        """Take one away."""
        self.total -= value

    def value(self) -> int:
        """Return the present result."""
        return self.total

    finalize = value


class Store(sqlite3.Connection):
    """A connection whose class takes other arguments."""

    title: str


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a connection to a database on disk, with two rows."""
    made = sqlite3.connect(
        tmp_path / "people.db", factory=Store, isolation_level=None, detect_types=1, check_same_thread=False
    )
    made.title = "people"
    made.execute("create table person (id integer, name text)")
    made.executemany("insert into person values (?, ?)", [(1, "ann"), (2, "bob")])
    yield made
    made.close()


def _one(connection: Any, statement: str) -> Any:
    return connection.execute(statement).fetchone()[0]


def test_database_on_disk_is_opened_again(store: Store) -> None:
    """Path, class, attributes and settings of a connection are kept."""
    store.row_factory = sqlite3.Row
    store.execute("pragma foreign_keys = 1")
    arrived = again(store)
    try:
        assert [row["name"] for row in arrived.execute("select * from person order by id")] == ["ann", "bob"]
        assert (type(arrived), arrived.title, arrived.isolation_level) == (Store, "people", None)
        assert _one(arrived, "pragma foreign_keys") == 1
    finally:
        arrived.close()


def test_user_functions_come_along(store: Store) -> None:
    """Functions, aggregates, window functions and collations registered with a connection work."""
    store.create_function("loud", 1, lambda word: word.upper())
    store.create_function("loud", 2, lambda word, mark: word + mark, deterministic=True)
    store.create_function("shout", -1, str.upper)
    store.create_aggregate("total_of", 1, Total)
    store.create_window_function("running", 1, Total)
    store.create_collation("backwards", lambda a, b: (a < b) - (a > b))
    arrived = again(store)
    try:
        assert _one(arrived, "select loud(name) from person where id = 1") == "ANN"
        assert _one(arrived, "select loud('a', '!')") == "a!"
        assert _one(arrived, "select shout('q')") == "Q"
        assert _one(arrived, "select total_of(id) from person") == 3
        assert (
            _one(arrived, "select max(r) from (select running(id) over (order by id) as r from person)") == 3
        )
        assert _one(arrived, "select name from person order by name collate backwards") == "bob"
    finally:
        arrived.close()


def test_database_in_memory_is_copied() -> None:
    """A database in memory arrives with its content, and is the receiver's own from then on."""
    source = sqlite3.connect(":memory:")
    source.execute("create table t (n)")
    source.execute("insert into t values (4)")
    source.commit()
    arrived = again(source)
    assert not arrived.in_transaction
    arrived.execute("insert into t values (5)")
    assert source.execute("select n from t").fetchall() == [(4,)]
    assert arrived.execute("select n from t").fetchall() == [(4,), (5,)]
    arrived.close()
    source.close()
    again(source)


def test_transaction_of_a_database_in_memory_goes_on() -> None:
    """What has been written and not committed is there, in a transaction as here."""
    with contextlib.closing(sqlite3.connect(":memory:")) as source:
        source.execute("create table t (n)")
        source.execute("insert into t values (4)")
        with contextlib.closing(again(source)) as arrived:
            assert arrived.in_transaction
            assert arrived.execute("select n from t").fetchall() == [(4,)]
            assert source.in_transaction


def test_cursor_without_rows_to_give_is_made_again(store: Store) -> None:
    """One that has done its work executes there, on the connection that came with it; others are refused."""
    cursor = store.cursor()
    cursor.arraysize = 7
    cursor.execute("select * from person")
    with pytest.raises(CarryError, match="half way"):
        again(cursor)
    cursor.fetchall()

    connection, arrived = again((store, cursor))
    with contextlib.closing(connection):
        assert (arrived.connection is connection, arrived.arraysize) == (True, 7)
        assert arrived.execute("select count(*) from person").fetchone() == (2,)


def test_row_keeps_its_names(store: Store) -> None:
    """A `sqlite3.Row` is found by name and by place."""
    store.row_factory = sqlite3.Row
    cursor = store.execute('select id, name as "the ""name""" from person')
    row = cursor.fetchone()
    arrived = again(row)
    assert (arrived, arrived.keys(), arrived['the "name"']) == (row, row.keys(), "ann")
    del cursor
    gc.collect()  # the rebuilt row's connection is closed, not left to the collector


# -- TLS


def test_tls_context_keeps_its_settings() -> None:
    """What a context shows of its settings is the same."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_OPTIONAL
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    arrived = again(context)
    for name in ("check_hostname", "verify_mode", "verify_flags", "options", "minimum_version", "protocol"):
        assert getattr(arrived, name) == getattr(context, name), name
    assert arrived.cert_store_stats() == context.cert_store_stats()


def test_tls_server_keeps_its_ciphers() -> None:
    """A restricted list of ciphers stays restricted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ECDHE+AESGCM")
    assert again(context).get_ciphers() == context.get_ciphers()


# -- the process's own


def test_environment_is_the_receivers() -> None:
    """`os.environ` is not a copy."""
    assert again(os.environ) is os.environ


def test_logger_by_name_or_by_value() -> None:
    """A logger that `getLogger` knows goes by name, any other by value with its handlers."""
    known, root = logging.getLogger("bequest.test.known"), logging.getLogger()
    assert again(known) is known
    assert again(root) is root
    own = logging.Logger("own", logging.INFO)
    own.addHandler(logging.NullHandler())
    own.parent = known
    arrived = again(own)
    assert arrived is not own
    assert (arrived.name, arrived.level, arrived.parent) == ("own", logging.INFO, known)
    assert type(arrived.handlers[0]) is logging.NullHandler


def test_small_objects_of_c() -> None:
    """A Struct, a JSON decoder with hooks and an XML-RPC proxy work."""
    assert again(struct.Struct("<iq")).pack(1, 2) == struct.pack("<iq", 1, 2)
    assert again(json.JSONDecoder(object_hook=sorted)).decode('{"a": 1}') == ["a"]
    assert "host" in repr(again(xmlrpc.client.ServerProxy("http://host/")))


# -- hashes and compressors


@pytest.mark.parametrize("name", ["sha256", "md5", "sha3_256", "blake2b", "shake_128"])
def test_hash_that_was_not_fed(name: str) -> None:
    """A fresh hash is fresh in the receiver; one that has been fed is refused."""
    length: tuple[Any, ...] = (8,) if name == "shake_128" else ()
    arrived = again(hashlib.new(name))
    arrived.update(b"text")
    assert arrived.digest(*length) == hashlib.new(name, b"text").digest(*length)
    with pytest.raises(CarryError, match="fed"):
        again(hashlib.new(name, b"text"))


OPAQUE: list[Any] = [
    hmac.new(b"key", digestmod="sha256"),
    hashlib.blake2b(key=b"key"),
    zlib.compressobj(),
    zlib.decompressobj(),
    bz2.BZ2Compressor(),
    bz2.BZ2Decompressor(),
    lzma.LZMACompressor(),
    lzma.LZMADecompressor(),
]


@pytest.mark.parametrize("opaque", OPAQUE, ids=type)
def test_opaque_state_is_refused(opaque: Any) -> None:
    """C state that nothing can read back is refused with the reason."""
    with pytest.raises(CarryError, match="C state"):
        again(opaque)
