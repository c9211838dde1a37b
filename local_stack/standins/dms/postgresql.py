"""PostgreSQL as a source: its rows, and its write-ahead log by a replication slot, which keeps the place.

* `stream-position` is `COMMIT.n.COMMIT`, n being the record's number in its transaction.
* TRUNCATE has no record in DMS's guide and gets none. A new task therefore runs the statements that `ragstream capture`
  renders for DMS: their trigger deletes the rows first, which the log shows row by row.
* An unchanged large column is left out of an update's `data`, unless the table's replica identity is FULL. A deleted row
  shows what the log has: with the default identity its key, and NULL elsewhere.
* Of a partitioned table the partitions are loaded, and their names are in the records, also of a partition that comes later.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from local_stack.standins.dms.pgoutput import UNCHANGED, Begin, Decoder, RowChange, Truncate
from local_stack.standins.dms.source import Change, Described, Row, Send, TableDefinition
from sources.capture.dms import DmsCaptureConfig
from sources.capture.dms_postgresql import source_sql
from sources.capture.target import tables_named

_PEEK_CHANGES = 2000
"""Changes read at once; a transaction is never cut."""
_OPERATIONS = {"I": "insert", "U": "update", "D": "delete"}
_LOADED = "ragstream dms: loaded"
"""Comment of the publication once the full load is in the stream."""
_TYPES = {
    "int2": "INT2", "int4": "INT4", "int8": "INT8", "float4": "REAL4", "float8": "REAL8", "bool": "BOOLEAN",
    "date": "DATE", "time": "TIME", "timestamp": "DATETIME", "timestamptz": "DATETIME", "bytea": "BLOB",
    "numeric": "NUMERIC", "varchar": "WSTRING", "bpchar": "WSTRING", "uuid": "STRING",
}  # fmt: skip
"""PostgreSQL's type names to DMS's; every other (text, JSON, arrays) is an NCLOB."""
_ISO_TIMESTAMP = re.compile(r"(\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)(?:\+00)?")

logger = logging.getLogger(__name__)


class PostgreSQL:
    """A database; `slot` names the publication and the slot of the task."""

    def __init__(self, dsn: str, tables: Sequence[str], slot: str) -> None:
        """Keep where it is, and `schema.table` of what is captured."""
        self._dsn, self._tables, self._slot = dsn, tuple(tables), slot

    @contextmanager
    def session(self) -> Iterator[PostgreSQLSession]:
        """Connect."""
        with psycopg.connect(self._dsn, autocommit=True) as source:
            source.execute("SET datestyle = 'ISO'; SET timezone = 'UTC'; SET intervalstyle = 'postgres'")
            yield PostgreSQLSession(source, self._dsn, self._tables, self._slot)

    def is_away(self, error: Exception) -> bool:
        """The slot keeps the position meanwhile."""
        return isinstance(error, psycopg.OperationalError)


class PostgreSQLSession:
    """A connection, and what its log has told of the relations."""

    def __init__(self, source: psycopg.Connection[Any], dsn: str, tables: Sequence[str], slot: str) -> None:
        """Take a connection whose session writes ISO dates in UTC."""
        self._source, self._dsn, self._tables, self._slot = source, dsn, tables, slot
        self._decoder, self._seen = Decoder(), ""

    def names(self) -> Sequence[str]:
        """Name the tables that hold rows: partitions in place of their table."""
        query = """SELECT n.nspname || '.' || c.relname FROM pg_partition_tree(%s::regclass) JOIN pg_class c ON c.oid = relid
                   JOIN pg_namespace n ON n.oid = c.relnamespace WHERE isleaf"""
        names: list[str] = []
        for table in tables_named(self._tables):
            parts = self._source.execute(query, (table.quoted,)).fetchall()
            names += [str(part) for (part,) in parts] or [".".join(table)]
        return names

    def table(self, name: str) -> TableDefinition:
        """Read a table's definition from the catalogue."""
        schema, table = name.split(".", 1)
        query = """SELECT a.attname, t.typname, a.atttypmod, coalesce(a.attnum = ANY(i.indkey), false)
                   FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                   LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
                   WHERE a.attrelid = (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                       WHERE n.nspname = %s AND c.relname = %s)
                     AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""
        columns: dict[str, dict[str, Any]] = {}
        keys = []
        for column, kind, modifier, is_key in self._source.execute(query, (schema, table)).fetchall():
            columns[column] = {"type": _TYPES.get(kind, "NCLOB"), "nullable": not is_key}
            if kind == "numeric" and modifier > 0:
                columns[column] |= {"precision": (modifier - 4) >> 16, "scale": (modifier - 4) & 0xFFFF}
            keys += [column] if is_key else []
        return TableDefinition(schema, table, columns, tuple(keys))

    def value(self, value: Any, described: Described) -> Any:
        """Read a value's text."""
        kind = described.get("type", "NCLOB")
        if value is None:
            return None
        if kind == "NUMERIC" or kind.startswith(("INT", "REAL")):
            number = Decimal(value)
            return (int(value) if kind.startswith("INT") else number) if number.is_finite() else value
        if kind == "BOOLEAN":
            return value in {"t", "true"}
        if kind == "DATETIME":
            timestamp = _ISO_TIMESTAMP.fullmatch(
                value
            )  # infinity and years before Christ stay as PostgreSQL writes them
            return f"{timestamp[1]}T{timestamp[2]}Z" if timestamp else value
        return "0x" + value.removeprefix("\\x") if kind == "BLOB" else value

    def is_loaded(self) -> bool:
        """Whether the publication says so, and the slot is there."""
        query = "SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = %s"
        return self._scalar(query, self._slot) == _LOADED and self._has_slot()

    def begin_load(self) -> None:
        """Prepare the source as its owner would, then create publication and slot: the log is kept from here on."""
        config = DmsCaptureConfig(type="dms", dsn=self._dsn, replica_identity="default")  # type: ignore[arg-type]
        for statement in source_sql(config, dict.fromkeys(tables_named(self._tables), ()), replica_identity=False):
            self._source.execute(statement.encode())
        if not self._scalar("SELECT count(*) FROM pg_publication WHERE pubname = %s", self._slot):
            names = sql.SQL(", ").join(sql.Identifier(*name.split(".", 1)) for name in self._tables)
            create = sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(sql.Identifier(self._slot), names)
            self._source.execute(create)
        if not self._has_slot():
            self._source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self._slot,))

    def rows(self, table: TableDefinition) -> Iterator[Row]:
        """Every row as it is now; a change that this has seen comes again from the log."""
        columns = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in table.columns)
        query = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(table.schema, table.table))
        for values in self._source.execute(query):
            yield dict(zip(table.columns, values, strict=True))

    def end_load(self) -> None:
        """Note it at the publication."""
        self._source.execute(
            sql.SQL("COMMENT ON PUBLICATION {} IS {}").format(sql.Identifier(self._slot), sql.Literal(_LOADED))
        )

    def follow(self, send: Send) -> bool:
        """Send what the slot has, then advance it."""
        end = str(self._scalar("SELECT pg_current_wal_flush_lsn()::text"))
        if end == self._seen:
            return False
        peek = """SELECT lsn::text, data FROM pg_logical_slot_peek_binary_changes(%s, NULL, %s,
                  'proto_version', '1', 'publication_names', %s)"""
        rows = self._source.execute(peek, (self._slot, _PEEK_CHANGES, f'"{self._slot}"'), binary=True).fetchall()
        if not rows:
            self._seen = end
            return False
        send(self._changes([bytes(data) for _, data in rows]))
        self._source.execute("SELECT pg_replication_slot_advance(%s, %s::text::pg_lsn)", (self._slot, rows[-1][0]))
        return True

    def _changes(self, messages: Sequence[bytes]) -> Iterator[Change]:
        begin, number = Begin(0, dt.datetime.now(dt.UTC), 0), 0
        for data in messages:
            message = self._decoder.decode(data)
            if isinstance(message, Begin):
                begin, number = message, 0
            elif isinstance(message, RowChange):
                number += 1
                yield _change(message, begin, number)
            elif isinstance(message, Truncate):
                logger.info("TRUNCATE of %d tables: DMS has no record for it", len(message.relations))

    def _has_slot(self) -> bool:
        return bool(self._scalar("SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", self._slot))

    def _scalar(self, query: str, *parameters: str) -> Any:
        row = self._source.execute(query.encode(), parameters).fetchone()
        return row[0] if row else None


def _change(change: RowChange, begin: Begin, number: int) -> Change:
    """One row: the new one, completed from the old where the log has all of it (identity FULL)."""
    relation, old = change.relation, change.old or {}
    if change.new is None:
        row: Row = dict.fromkeys(relation.columns) | dict(old)
    else:
        whole = old if change.is_old_complete else {}
        row = {name: whole.get(name, value) if value is UNCHANGED else value for name, value in change.new.items()}
    place = f"{begin.commit_lsn >> 32:08X}/{begin.commit_lsn & 0xFFFFFFFF:08X}"
    return Change(
        f"{relation.schema}.{relation.table}", _OPERATIONS[change.operation], relation.columns,
        {name: value for name, value in row.items() if value is not UNCHANGED}, dict(old),
        begin.transaction, number, begin.committed_at, f"{place}.{number}.{place}",
    )  # fmt: skip
