"""MariaDB as a source: its rows, and its binary log from a GTID, which a file keeps.

The server has `binlog_format=ROW` and, for this reader, `binlog_row_metadata=FULL`: DMS looks columns up in the catalogue, here
the log itself names them, also those of before an ALTER. What DMS's guide and samples leave open, this chooses:

* `stream-position` is `file:position:row:next:transaction:file:begin`. In both samples of MySQL (AWS's guide, one of a change
  and one of a checkpoint) `transaction` is the file's number in its upper 32 bits and below them where BEGIN stands, and
  `begin` is where BEGIN ends. MariaDB has a GTID event in BEGIN's place, and here it is taken for it.
* From 11.4 on MariaDB writes no position into the events of a transaction (`binlog_legacy_event_pos=OFF`): here they are
  counted by their sizes. What DMS makes of such a log is not known.
* TRUNCATE is a statement and no rows, and the guide lists no record for it: it gets none. A reload brings what is left.
* A zero date is NULL, BIT(1) a boolean, other bits and bytes are hexadecimal, TIME is text, FLOAT is the double that it equals.
* Unsigned integers are announced as UINT1 to UINT8, which the guide has among DMS's types and not in its table of MySQL's.
  Types that this table lacks (UUID, INET6, VECTOR) are refused.

Rows of tables without transactions (Aria, MyISAM) are refused: the log ends them by a statement, and statements are not read, of
which the reader's library does not know all that MariaDB 11 writes. Only one GTID domain is followed.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql
from pymysql.cursors import SSCursor
from pymysqlreplication import BinLogStreamReader, constants, row_event  # type: ignore[import-untyped]
from pymysqlreplication import event as events

from local_stack.standins.dms.source import Change, Described, Row, Send, TableDefinition
from schemas.errors import StoppedError
from sources.capture.engines.binlog import quoted_name

_CHANGES = 2000
"""Sent before the place is noted; a transaction is never cut."""
_OPERATIONS: Mapping[type, str] = {
    row_event.WriteRowsEvent: "insert", row_event.UpdateRowsEvent: "update", row_event.DeleteRowsEvent: "delete"
}  # fmt: skip
_EVENTS = (
    *_OPERATIONS, row_event.TableMapEvent, events.MariadbGtidEvent, events.MariadbAnnotateRowsEvent, events.XidEvent,
)  # fmt: skip
"""All but statements that a transaction has."""
_CLIENT_ERRORS = range(2000, 3000)
_TYPES = {
    "tinyint": "INT1", "smallint": "INT2", "mediumint": "INT4", "int": "INT4", "bigint": "INT8", "year": "INT2",
    "decimal": "NUMERIC", "float": "REAL8", "double": "REAL8", "bit": "BYTES", "date": "DATE", "datetime": "DATETIME",
    "timestamp": "DATETIME", "time": "STRING", "enum": "STRING", "set": "STRING", "char": "WSTRING", "varchar": "WSTRING",
    "tinytext": "WSTRING", "text": "WSTRING", "mediumtext": "NCLOB", "longtext": "NCLOB", "binary": "BYTES",
    "varbinary": "BYTES", "tinyblob": "BYTES", "blob": "BYTES", "mediumblob": "BLOB", "longblob": "BLOB",
    **dict.fromkeys(("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
                     "geometrycollection"), "BLOB"),
}  # fmt: skip
"""MariaDB's type names to DMS's (its guide, "Using a MySQL-compatible database as a source"); JSON is a longtext."""
_SECOND = dt.timedelta(seconds=1)
_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})


class MariaDB:
    """A server; `checkpoint` is the file that keeps a task's place in its log."""

    def __init__(self, dsn: str, tables: Sequence[str], checkpoint: Path) -> None:
        """Keep where it is, and `database.table` of what is captured."""
        parts = urlsplit(dsn)
        self._address: dict[str, Any] = {
            "host": parts.hostname, "port": parts.port, "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""), "charset": "utf8mb4", "connect_timeout": 5,
        }  # fmt: skip
        self._tables, self._checkpoint = tuple(tables), checkpoint

    @contextmanager
    def session(self) -> Iterator[MariaDBSession]:
        """Connect."""
        with pymysql.connect(**self._address, autocommit=True, init_command="SET time_zone = '+00:00'") as connection:
            yield MariaDBSession(connection, self._address, self._tables, self._checkpoint)

    def is_away(self, error: Exception) -> bool:
        """The client numbers its own errors in the two thousands, the server its refusals otherwise."""
        return isinstance(error, pymysql.MySQLError) and error.args[0] in _CLIENT_ERRORS


class MariaDBSession:
    """A connection, and the GTID up to which all is in the stream."""

    def __init__(
        self, connection: pymysql.Connection[Any], address: Mapping[str, Any], tables: Sequence[str], checkpoint: Path
    ) -> None:
        """Take a connection in UTC that commits by itself."""
        self._connection, self._address, self._tables, self._checkpoint = connection, address, tables, checkpoint
        self._reached = str(json.loads(checkpoint.read_text())["gtid"]) if checkpoint.exists() else ""

    def names(self) -> Sequence[str]:
        """Name the tables."""
        return self._tables

    def table(self, name: str) -> TableDefinition:
        """Read a table's definition from the catalogue; raises StoppedError for one that is not there, or has other types."""
        schema, table = name.split(".", 1)
        query = """SELECT column_name, data_type, column_type, is_nullable, numeric_precision, numeric_scale,
                          character_maximum_length FROM information_schema.columns
                   WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position"""
        keys = "SELECT column_name FROM information_schema.key_column_usage WHERE constraint_name = 'PRIMARY' AND "
        keys += "table_schema = %s AND table_name = %s ORDER BY ordinal_position"
        columns = {column: _described(*of_type) for column, *of_type in self._rows(query, schema, table)}
        if not columns:
            raise StoppedError(f"there is no table {name}.", hint="Name it as `database.table`.")
        return TableDefinition(schema, table, columns, tuple(key for (key,) in self._rows(keys, schema, table)))

    def value(self, value: Any, described: Described) -> Any:
        """Write a value of the client's or the log's; both have the same."""
        kind = described.get("type", "")
        match value:
            case dt.datetime():
                return f"{value.isoformat()}Z"
            case dt.date():
                return value.isoformat()
            case dt.timedelta():
                return _time(value)
            case bytes():
                return f"0x{value.hex()}"
            case int() if kind == "BOOLEAN":
                return bool(value)
            case int() if kind == "BYTES":
                return f"0x{value:0{2 * described['length']}x}"
            case str() if kind in {"DATE", "DATETIME"}:  # one that the client cannot read: a zero date
                return None
            case _:
                return value

    def is_loaded(self) -> bool:
        """Whether there is a checkpoint."""
        return bool(self._reached)

    def begin_load(self) -> None:
        """Open a consistent snapshot, whose place in the log the server tells; StoppedError where columns have no names there."""
        ((metadata,),) = self._rows("SELECT @@binlog_row_metadata")
        if metadata != "FULL":
            raise StoppedError(f"binlog_row_metadata is {metadata}.", hint="SET GLOBAL binlog_row_metadata = FULL")
        self._rows("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        place = dict(self._rows("SHOW STATUS LIKE 'binlog_snapshot_%%'"))
        ((self._reached,),) = self._rows(
            "SELECT BINLOG_GTID_POS(%s, %s)", place["Binlog_snapshot_file"], int(place["Binlog_snapshot_position"])
        )

    def rows(self, table: TableDefinition) -> Iterator[Row]:
        """Every row of the snapshot."""
        columns = ", ".join(quoted_name(name) for name in table.columns)
        with closing(self._connection.cursor(SSCursor)) as cursor:
            cursor.execute(f"SELECT {columns} FROM {quoted_name(table.schema)}.{quoted_name(table.table)}")  # noqa: S608 - quoted
            for values in cursor:
                yield {
                    name: _read(value, table.columns[name]) for name, value in zip(table.columns, values, strict=True)
                }

    def end_load(self) -> None:
        """Close the snapshot, keep its place."""
        self._connection.rollback()
        self._save()

    def follow(self, send: Send) -> bool:
        """Send what the log has, then keep its place."""
        if self._rows("SELECT @@gtid_binlog_pos") == ((self._reached,),):
            return False
        log = BinLogStreamReader(
            dict(self._address), server_id=2**31 + secrets.randbelow(2**31), is_mariadb=True, auto_position=self._reached,
            annotate_rows_event=True, only_events=_EVENTS, enable_logging=False, pymysql_wrapper=_connect,
        )  # fmt: skip
        with closing(log), closing(self._changes(log)) as changes:
            send(changes)
        self._save()
        return True

    def _changes(self, log: Any) -> Generator[Change]:
        """The rows of each transaction once its end has come; a place is reached with the transaction."""
        transaction, sent = _Transaction(), 0
        for event in log:
            end = event.packet.log_pos
            if isinstance(event, events.MariadbGtidEvent):
                self._reach(transaction)
                transaction = _Transaction(event.gtid, log.log_file, end - event.packet.event_size, end, end)
                continue
            if isinstance(event, events.XidEvent):
                yield from transaction.changes(end - event.packet.event_size, event.timestamp)
                sent += len(transaction.rows)
                transaction.rows.clear()
                if sent >= _CHANGES:
                    break
            elif type(event) in _OPERATIONS and f"{event.schema}.{event.table}" in self._tables:
                transaction.add(event)
            transaction.at += event.packet.event_size
        self._reach(transaction)

    def _reach(self, transaction: _Transaction) -> None:
        if transaction.rows:
            raise StoppedError("the log has rows of a table without transactions.", hint="Make its ENGINE InnoDB.")
        self._reached = transaction.gtid or self._reached

    def _save(self) -> None:
        new = self._checkpoint.with_name(f"{self._checkpoint.name}.new")
        new.write_text(json.dumps({"gtid": self._reached}))
        new.replace(self._checkpoint)

    def _rows(self, query: str, *values: Any) -> tuple[tuple[Any, ...], ...]:
        with self._connection.cursor() as cursor:
            cursor.execute(query, values)
            return tuple(cursor.fetchall())


@dataclass
class _Transaction:
    """What the log has of one, from its GTID event on; of a statement alone that is all."""

    gtid: str = ""
    file: str = ""
    start: int = 0
    begin: int = 0
    at: int = 0
    """Where the next event stands, by the sizes of those before."""
    rows: list[tuple[int, int, int, str, str, tuple[str, ...], Row, Row]] = field(default_factory=list)

    def add(self, event: Any) -> None:
        """Keep the rows of an event."""
        operation, columns = _OPERATIONS[type(event)], tuple(column.name for column in event.columns)
        for number, row in enumerate(event.rows):
            old: Row = {}
            if operation == "update":
                new = _logged(event, row["after_values"], row["after_none_sources"])
                old = _logged(event, row["before_values"], row["before_none_sources"])
            else:
                new = _logged(event, row["values"], row["none_sources"])
            place = (self.at, number, self.at + event.packet.event_size)
            self.rows.append((*place, f"{event.schema}.{event.table}", operation, columns, new, old))

    def changes(self, end: int, committed: int) -> Iterator[Change]:
        """Its rows, now that `end` is where its last event stands; statements that were not read moved all after them."""
        number, moved = int(self.file.rpartition(".")[2]) << 32 | self.start, end - self.at
        at_time = dt.datetime.fromtimestamp(committed, dt.UTC)
        for count, (at, row_number, following, table, operation, columns, row, old) in enumerate(self.rows, 1):
            place = f"{self.file}:{at + moved}:{row_number}:{following + moved}:{number}:{self.file}:{self.begin}"
            yield Change(table, operation, columns, row, old, number, count, at_time, place)


def _connect(db: str | None = None, **settings: Any) -> pymysql.Connection[Any]:
    """Open a connection for the log's reader, which names its database as PyMySQL did once."""
    return pymysql.connect(database=db, **settings)


def _described(
    kind: str, whole: str, nullable: str, precision: int | None, scale: int | None, length: int | None
) -> Described:
    if kind not in _TYPES:
        raise StoppedError(f"a column is a {kind}, which DMS's guide does not name.", hint="Leave its table out.")
    described: dict[str, Any] = {"type": _TYPES[kind], "nullable": nullable == "YES"}
    if kind in _INTEGERS and "unsigned" in whole:
        described["type"] = f"U{_TYPES[kind]}"
    elif kind == "decimal":
        described |= {"precision": precision, "scale": scale}
    elif kind == "bit":
        described |= {"type": "BOOLEAN"} if precision == 1 else {"length": ((precision or 0) + 7) // 8}
    elif length is not None:
        described["length"] = length
    return described


def _read(value: Any, described: Described) -> Any:
    """A value of the client's as the log has it: bits are bytes there."""
    is_bits = isinstance(value, bytes) and described["type"] == "BOOLEAN"
    return int.from_bytes(value) if is_bits else value


def _logged(event: Any, values: Mapping[str, Any], missing: Mapping[str, str]) -> Row:
    """A row of the log as the client reads it: a set's members in their order, bits as a number, BINARY with its zeros."""
    row: Row = {}
    for column in event.columns:
        value = values[column.name]
        if isinstance(value, set):
            value = ",".join(member for member in column.set_values if member in value)
        elif missing.get(column.name) == constants.NONE_SOURCE.EMPTY_SET:
            value = ""
        elif column.type == constants.FIELD_TYPE.BIT and value is not None:
            value = int(value, 2)
        elif column.type == constants.FIELD_TYPE.STRING and isinstance(value, bytes):
            value = value.ljust(column.max_length, b"\0")
        elif isinstance(value, dt.timedelta) and value < dt.timedelta():
            value = _mended(value)
        row[column.name] = value
    return row


def _mended(span: dt.timedelta) -> dt.timedelta:
    """A span before 0 whose fraction the log's reader (1.0.17) counts from the wrong end: -1.9 s where the log has -1.1 s."""
    whole = span // _SECOND
    return span if span == whole * _SECOND else (2 * whole + 1) * _SECOND - span


def _time(span: dt.timedelta) -> str:
    """`[-]hh:mm:ss[.ffffff]`."""
    micros = abs(span) // dt.timedelta(microseconds=1)
    seconds, fraction = divmod(micros, 1_000_000)
    text = f"{'-' if span < dt.timedelta() else ''}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{fraction:06}" if fraction else text
