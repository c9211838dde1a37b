"""A stand-in for AWS DMS: a real PostgreSQL's rows and write-ahead log, as DMS writes them to Kinesis.

    python -m local_stack.standins.dms.task --dsn URI --table public.tickets --stream desk --endpoint-url URL --region us-east-1

Control records first, then the full load, then every change from the log, at least once: the slot is advanced only after the
records are in the stream, and an unfinished load is repeated. The formats are those of the DMS guide ("Using Kinesis as a
target") and of real payloads; where these leave something open, this stand-in chooses:

* `stream-position` is `COMMIT.n.COMMIT`, n being the record's number in its transaction.
* TRUNCATE has no record in the guide's list and gets none. A new task therefore runs the statements that
  `ragstream capture` renders for DMS: their trigger deletes the rows first, which the log shows row by row.
* An unchanged large column is left out of an update's `data`, unless the table's replica identity is FULL.
* Of a partitioned table the partitions are loaded, and their names are in the records, also of a partition that comes later.
* A changed table sends a control record with the whole new definition before its next row.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import boto3
import psycopg
from psycopg import sql

from local_stack.standins.dms.pgoutput import Begin, Decoder, RowChange, Truncate
from local_stack.standins.dms.rows import TableDefinition as Table
from local_stack.standins.dms.rows import (
    change_of,
    control,
    envelope,
    full_row,
    key_text,
    old_key_row,
    rendered,
    table_of,
)
from local_stack.standins.dms.stream import Record, StreamWriter
from sources.capture.dms import DmsCaptureConfig
from sources.capture.dms_postgresql import source_sql
from sources.capture.target import tables_named
from transforms.context import BEFORE_IMAGE

POLL_SECONDS = 0.01
"""Between two looks at the log's end."""
_PEEK_CHANGES = 2000
"""Changes read at once; a transaction is never cut."""
_OPERATIONS = {"I": "insert", "U": "update", "D": "delete"}
_LOADED = "ragstream dms: loaded"
"""Comment of the publication once the full load is in the stream."""

logger = logging.getLogger(__name__)


class DmsStandIn:
    """One task: full load and changes of some tables into one stream."""

    def __init__(  # noqa: PLR0913 - a task is its settings
        self,
        dsn: str,
        tables: Sequence[str],
        stream: str,
        kinesis: Any,
        *,
        slot: str,
        null_and_empty: bool,
        primary_key: bool = False,
        details: bool = True,
    ) -> None:
        """Keep the task; `kinesis` is a boto3 client. Changes go by table, or by `primary_key`; the load always by it.

        Without `details` a change tells its transaction's number alone (IncludeTransactionDetails).
        """
        self._dsn, self._names, self._slot = dsn, tuple(tables), slot
        self._null_and_empty, self._primary_key, self._details = null_and_empty, primary_key, details
        self.stop = threading.Event()
        self._writer = StreamWriter(kinesis, stream, self.stop)
        self._tables: dict[str, Table] = {}
        self._previous: tuple[int, int] | None = None

    def run(self) -> None:
        """Load, unless a load has finished before; then follow the log until a stop request."""
        with psycopg.connect(self._dsn, autocommit=True) as source:
            source.execute("SET datestyle = 'ISO'; SET timezone = 'UTC'; SET intervalstyle = 'postgres'")
            self._tables = {name: table_of(source, name) for name in self._stored(source)}
            if not self._is_loaded(source):
                self._open_slot(source)
                self._writer.write(self._load(source))
                done = sql.SQL("COMMENT ON PUBLICATION {} IS {}").format(sql.Identifier(self._slot), _LOADED)
                source.execute(done)
            decoder, seen = Decoder(), ""
            while not self.stop.is_set():
                end = str(_value(source, "SELECT pg_current_wal_flush_lsn()::text"))
                if end == seen or not self._follow(source, decoder):
                    seen = end
                    self.stop.wait(POLL_SECONDS)

    def _stored(self, source: psycopg.Connection[Any]) -> Iterator[str]:
        """The tables that hold rows: partitions in place of their table."""
        query = """SELECT n.nspname || '.' || c.relname FROM pg_partition_tree(%s::regclass) JOIN pg_class c ON c.oid = relid
                   JOIN pg_namespace n ON n.oid = c.relnamespace WHERE isleaf"""
        for table in tables_named(self._names):
            parts = source.execute(query, (table.quoted,)).fetchall()
            yield from [str(part) for (part,) in parts] or [".".join(table)]

    def _is_loaded(self, source: psycopg.Connection[Any]) -> bool:
        query = "SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = %s"
        return _value(source, query, self._slot) == _LOADED and self._has_slot(source)

    def _has_slot(self, source: psycopg.Connection[Any]) -> bool:
        return bool(_value(source, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", self._slot))

    def _open_slot(self, source: psycopg.Connection[Any]) -> None:
        """Prepare the source as its owner would, then create publication and slot: the log is kept from here on."""
        rendered_for = DmsCaptureConfig(type="dms", dsn=self._dsn, replica_identity="default")  # type: ignore[arg-type]
        for statement in source_sql(rendered_for, dict.fromkeys(tables_named(self._names), ()), replica_identity=False):
            source.execute(statement.encode())
        if not _value(source, "SELECT count(*) FROM pg_publication WHERE pubname = %s", self._slot):
            names = sql.SQL(", ").join(sql.Identifier(*name.split(".", 1)) for name in self._names)
            source.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(sql.Identifier(self._slot), names))
        if not self._has_slot(source):
            source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self._slot,))

    def _load(self, source: psycopg.Connection[Any]) -> Iterator[Record]:
        """Control records, then every row as it is now; a change the load has seen comes again from the log."""
        for table in self._tables.values():
            yield control(table, "create-table")
        for table in self._tables.values():
            columns = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(c)) for c in table.columns)
            query = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(table.schema, table.table))
            for values in source.execute(query):
                row = dict(zip(table.columns, values, strict=True))
                data = {"data": rendered(table, row, null_and_empty=self._null_and_empty)}
                yield envelope(table, "load", data, key_text(table, row), {})

    def _follow(self, source: psycopg.Connection[Any], decoder: Decoder) -> bool:
        """Send what the log has; returns whether it had anything. The slot moves on only when all of it is sent."""
        peek = """SELECT lsn::text, data FROM pg_logical_slot_peek_binary_changes(%s, NULL, %s,
                  'proto_version', '1', 'publication_names', %s)"""
        rows = source.execute(peek, (self._slot, _PEEK_CHANGES, f'"{self._slot}"'), binary=True).fetchall()
        if not rows:
            return False
        self._writer.write(self._changes(source, decoder, [bytes(data) for _, data in rows]))
        source.execute("SELECT pg_replication_slot_advance(%s, %s::text::pg_lsn)", (self._slot, rows[-1][0]))
        return True

    def _changes(
        self, source: psycopg.Connection[Any], decoder: Decoder, messages: Sequence[bytes]
    ) -> Iterator[Record]:
        begin, number = Begin(0, dt.datetime.now(dt.UTC), 0), 0
        for data in messages:
            message = decoder.decode(data)
            if isinstance(message, Begin):
                begin, number = message, 0
            elif isinstance(message, RowChange):
                name = f"{message.relation.schema}.{message.relation.table}"
                if name not in self._tables:
                    self._tables[name] = table_of(source, name)
                    yield control(self._tables[name], "create-table")
                if set(message.relation.columns) - set(self._tables[name].columns):
                    before, self._tables[name] = self._tables[name], table_of(source, name)
                    yield control(self._tables[name], change_of(before, self._tables[name]))
                number += 1
                yield self._row(self._tables[name], message, begin, number)
            elif isinstance(message, Truncate):
                logger.info("TRUNCATE of %d tables: DMS has no record for it", len(message.relations))

    def _row(self, table: Table, change: RowChange, begin: Begin, number: int) -> Record:
        operation = _OPERATIONS[change.operation]
        row = full_row(table, change)
        document: dict[str, Any] = {"data": rendered(table, row, null_and_empty=self._null_and_empty)}
        if operation == "update":
            old = old_key_row(table, change)
            document[BEFORE_IMAGE] = rendered(table, old, null_and_empty=True) if old else {}
        key = key_text(table, row) if self._primary_key else None
        return envelope(table, operation, document, key, self._position(begin, number))

    def _position(self, begin: Begin, number: int) -> dict[str, Any]:
        """Where a change stands; the first one of a task has no predecessor."""
        if not self._details:
            return {"transaction-id": begin.transaction}
        place = f"{begin.commit_lsn >> 32:08X}/{begin.commit_lsn & 0xFFFFFFFF:08X}"
        names = ("prev-transaction-id", "prev-transaction-record-id")
        before = dict(zip(names, self._previous, strict=True)) if self._previous else {}
        self._previous = (begin.transaction, number)
        committed = begin.committed_at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        here = {"transaction-id": begin.transaction, "transaction-record-id": number}
        return here | before | {"commit-timestamp": committed, "stream-position": f"{place}.{number}.{place}"}


def _value(source: psycopg.Connection[Any], query: str, *parameters: str) -> Any:
    row = source.execute(query.encode(), parameters).fetchone()
    return row[0] if row else None


def main() -> None:
    """Run a task until SIGTERM."""
    parser = argparse.ArgumentParser(description="stand-in for AWS DMS")
    for name in ("dsn", "stream", "endpoint-url", "region"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--table", action="append", required=True, help="schema.table; may be repeated")
    parser.add_argument("--access-key", default="test")
    parser.add_argument("--secret-key", default="test")
    parser.add_argument("--slot", default="dms")
    parser.add_argument("--omit-null-and-empty", action="store_true", help="IncludeNullAndEmpty: false")
    parser.add_argument("--omit-details", action="store_true", help="IncludeTransactionDetails: false")
    parser.add_argument("--primary-key", action="store_true", help="changes go by primary key, not by table")
    chosen = parser.parse_args()
    kinesis = boto3.client(
        "kinesis", endpoint_url=chosen.endpoint_url, region_name=chosen.region,
        aws_access_key_id=chosen.access_key, aws_secret_access_key=chosen.secret_key,
    )  # fmt: skip
    task = DmsStandIn(
        chosen.dsn,
        chosen.table,
        chosen.stream,
        kinesis,
        slot=chosen.slot,
        null_and_empty=not chosen.omit_null_and_empty,
        primary_key=chosen.primary_key,
        details=not chosen.omit_details,
    )
    signal.signal(signal.SIGTERM, lambda *_: task.stop.set())
    while not task.stop.is_set():
        try:
            task.run()
        except InterruptedError:
            return  # stopped with unsent records, which the slot retains
        except psycopg.OperationalError:
            task.stop.wait(0.5)  # the source is unavailable; the slot keeps the position


if __name__ == "__main__":
    main()
