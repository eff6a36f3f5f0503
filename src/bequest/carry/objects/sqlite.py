"""Connections, cursors and rows of sqlite3.

    on disk   -> its path, settings and functions      -> opened again there; what is committed is seen
    in memory -> its content, as `serialize()` gives it -> a copy, as under fork
    cursor    -> its connection, where it has no more rows to give -> a new one there

A transaction that is open on a database in memory is open there too, with what has been written in it; that
is what a rollback there goes back to, since what was before is not to be had. A cursor's `description`,
`lastrowid` and `rowcount` are a new one's.

Not carried: temporary tables, blobs and cursors that are open, and the callbacks of `set_authorizer`,
`set_progress_handler` and `set_trace_callback`.
"""

from __future__ import annotations

import functools
import gc
import sqlite3

from bequest.carry import instances
from bequest.carry.objects.parts import require
from bequest.carry.registry import NotCarriedError, carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bequest.carry.registry import Packing, Reduced

_LARGEST_COPY_BYTES = 256 * 1024 * 1024

# What a program sets for one connection at a time; the file keeps the rest.
_PRAGMAS = (
    "foreign_keys",
    "recursive_triggers",
    "synchronous",
    "cache_size",
    "temp_store",
    "query_only",
    "read_uncommitted",
    "busy_timeout",
)


@carries("sqlite3.Connection", subclasses=True)
def reduce_connection(connection: Any, packing: Packing) -> Reduced:
    """Reduce a connection; nothing of it changes, and nothing is written."""
    kind = type(connection)
    settings: dict[str, Any] = {}
    try:
        settings["isolation_level"] = connection.isolation_level
        # As blobs, they do not go through the connection's text factory.
        rows = _ask(connection, "select cast(name as blob), cast(file as blob) from pragma_database_list")
    except sqlite3.ProgrammingError as error:
        if "closed" in str(error):
            return closed_connection, (kind,)
        raise NotCarriedError(
            "it belongs to another thread", "Open it in the process that uses it"
        ) from error
    files = {name.decode(): (path or b"").decode() for name, path in rows if name != b"temp"}
    for name in ("row_factory", "text_factory", "autocommit"):
        if hasattr(connection, name):
            settings[name] = getattr(connection, name)
    from bequest.carry.objects import sqlite_memory

    flags = {name: sqlite_memory.flag(connection, name) for name in ("detect_types", "check_same_thread")}
    state = {
        "settings": settings,
        "pragmas": {name: _ask(connection, f"pragma {name}")[0][0] for name in _PRAGMAS},
        "content": {name: _content(connection, name) for name, path in files.items() if not path},
        "attached": {name: path for name, path in files.items() if name != "main"},
        "functions": sqlite_memory.functions(connection),
        "collations": sqlite_memory.collations(connection),
        "in_transaction": connection.in_transaction and not all(files.values()),
        "attributes": instances.instance_dict(connection),
    }
    return open_connection, (kind, files["main"] or ":memory:", flags), state, None, None, set_connection


def _ask(connection: Any, statement: str) -> list[Any]:
    """Execute a statement that only reads, whatever rows are made into there."""
    cursor = sqlite3.Connection.cursor(connection)
    cursor.row_factory = None
    return cursor.execute(statement).fetchall()


def _content(connection: Any, name: str) -> bytes:
    if not hasattr(connection, "serialize"):  # a build without it
        raise NotCarriedError(
            "this Python cannot copy a database in memory", "Make it in the process that uses it"
        )
    pages = (
        _ask(connection, f'pragma "{name}".page_count')[0][0]
        * _ask(connection, f'pragma "{name}".page_size')[0][0]
    )
    if pages > _LARGEST_COPY_BYTES:
        raise NotCarriedError(
            "it is a database in memory too large to copy at each start", "Keep it in a file"
        )
    content: bytes = connection.serialize(name=name) if pages else b""
    return content


def closed_connection(kind: Any) -> Any:
    """Return a connection that has been closed."""
    connection = open_connection(kind, ":memory:", {})
    connection.close()
    return connection


def open_connection(kind: Any, path: str, flags: dict[str, Any]) -> Any:
    """Open a connection, without running code of a subclass."""
    connection = kind.__new__(kind)
    sqlite3.Connection.__init__(connection, path, **flags)
    return connection


def set_connection(connection: Any, state: dict[str, Any]) -> None:
    """Give a connection of `open_connection` its settings, content and functions."""
    for name, path in state["attached"].items():
        connection.execute("attach ? as ?", (path or ":memory:", name))
    for name, content in state["content"].items():
        if content:
            connection.deserialize(content, name=name)
    for name, value in state["pragmas"].items():
        connection.execute(f"pragma {name} = {value}")
    for way, name, arity, function, deterministic in state["functions"]:
        options = {"deterministic": True} if deterministic else {}
        getattr(connection, way)(name, arity, function, **options)
    for name, function in state["collations"]:
        connection.create_collation(name, function)
    for name, value in state["settings"].items():
        setattr(connection, name, value)
    if state["in_transaction"] and not connection.in_transaction:
        sqlite3.Connection.execute(connection, "begin")
    if state["attributes"]:
        connection.__dict__.update(state["attributes"])


# -- cursors and rows


@carries("sqlite3.Cursor", subclasses=True)
def reduce_cursor(cursor: Any, packing: Packing) -> Reduced:
    """Reduce a cursor that is not half way through a statement."""
    connection = cursor.connection
    if not _shows_statements() or _has_statement(cursor) or not _is_open(connection):
        raise NotCarriedError(
            "it is half way through a statement, or its connection is closed",
            "Pass the rows, or the connection, and execute the statement there",
        )
    require(connection, packing)
    settings = {"arraysize": cursor.arraysize, "row_factory": cursor.row_factory}
    attributes = (instances.instance_dict(cursor) or None, instances.read_slots(cursor) or None, None)
    return make_cursor, (type(cursor), connection), (settings, attributes), None, None, set_cursor


def _has_statement(cursor: Any) -> bool:
    """Tell whether a cursor has rows to give yet; only the collector is shown what it executes."""
    return any(type(part).__name__ == "Statement" for part in gc.get_referents(cursor))


@functools.cache
def _shows_statements() -> bool:
    connection = sqlite3.connect(":memory:")
    try:
        return _has_statement(connection.execute("select 1"))
    finally:
        connection.close()


def _is_open(connection: Any) -> bool:
    try:
        return int(connection.total_changes) >= 0
    except sqlite3.ProgrammingError:  # closed, or of another thread
        return False


def make_cursor(kind: Any, connection: Any) -> Any:
    """Make a cursor, without running code of a subclass."""
    cursor = kind.__new__(kind)
    sqlite3.Cursor.__init__(cursor, connection)
    return cursor


def set_cursor(cursor: Any, state: tuple[dict[str, Any], Any]) -> None:
    """Give a cursor of `make_cursor` its settings and attributes."""
    settings, attributes = state
    for name, value in settings.items():
        setattr(cursor, name, value)
    instances.fill(cursor, attributes)


@carries("sqlite3.Row")
def reduce_row(row: Any, packing: Packing) -> Reduced:
    """Reduce a row to its names and values."""
    return make_row, (tuple(row.keys()), tuple(row))


def make_row(names: tuple[str, ...], values: tuple[Any, ...]) -> sqlite3.Row:
    """Return a row; only a cursor that has asked for columns of these names can make one."""
    connection = sqlite3.connect(":memory:")
    try:
        columns = ", ".join('null as "' + name.replace('"', '""') + '"' for name in names)
        return sqlite3.Row(connection.execute(f"select {columns}"), values)
    finally:
        connection.close()
