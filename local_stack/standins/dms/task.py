"""A stand-in for AWS DMS: a real database's rows and log, as DMS writes them to Kinesis.

    python -m local_stack.standins.dms.task --dsn URI --table public.tickets --stream desk --endpoint-url URL --region us-east-1

Control records first, then the full load, then every change from the log, at least once: its place moves on only after the
records are in the stream, and an unfinished load is repeated. The formats are those of the DMS guide ("Using Kinesis as a
target") and of real payloads. What these leave open, each engine's module says what it chooses: `postgresql`, `mariadb`.
A changed table sends a control record with the whole new definition before its next row.
"""

from __future__ import annotations

import argparse
import datetime as dt
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3

from local_stack.standins.dms.postgresql import PostgreSQL
from local_stack.standins.dms.rows import change_of, control, envelope, key_text
from local_stack.standins.dms.source import Change, Database, Row, Session, TableDefinition
from local_stack.standins.dms.stream import Record, StreamWriter
from transforms.context import BEFORE_IMAGE

POLL_SECONDS = 0.01
"""Between two looks at the log's end."""


class DmsStandIn:
    """One task: full load and changes of some tables into one stream."""

    def __init__(
        self,
        database: Database,
        stream: str,
        kinesis: Any,
        *,
        null_and_empty: bool = True,
        primary_key: bool = False,
        details: bool = True,
    ) -> None:
        """Keep the task; `kinesis` is a boto3 client. Changes go by table, or by `primary_key`; the load always by it.

        Without `details` a change tells its transaction's number alone (IncludeTransactionDetails).
        """
        self.database = database
        self._null_and_empty, self._primary_key, self._details = null_and_empty, primary_key, details
        self.stop = threading.Event()
        self._writer = StreamWriter(kinesis, stream, self.stop)
        self._tables: dict[str, TableDefinition] = {}
        self._previous: tuple[int, int] | None = None

    def run(self) -> None:
        """Load, unless a load has finished before; then follow the log until a stop request."""
        with self.database.session() as session:
            self._tables = {name: session.table(name) for name in session.names()}
            if not session.is_loaded():
                session.begin_load()
                self._writer.write(self._load(session))
                session.end_load()
            while not self.stop.is_set():
                if not session.follow(lambda changes: self._writer.write(self._records(session, changes))):
                    self.stop.wait(POLL_SECONDS)

    def _load(self, session: Session) -> Iterator[Record]:
        """Control records, then every row."""
        for table in self._tables.values():
            yield control(table, "create-table")
        for table in self._tables.values():
            for row in session.rows(table):
                data = {"data": self._rendered(session, table, row)}
                yield envelope(table, "load", data, key_text(table, row), {})

    def _records(self, session: Session, changes: Iterator[Change]) -> Iterator[Record]:
        """Changes, and before them what their tables have become."""
        for change in changes:
            before = self._tables.get(change.table)
            if before is None or set(change.columns) - set(before.columns):
                table = self._tables[change.table] = session.table(change.table)
                yield control(table, change_of(before, table) if before else "create-table")
            yield self._row(session, self._tables[change.table], change)

    def _row(self, session: Session, table: TableDefinition, change: Change) -> Record:
        """One change; its before-image has the columns of the key alone (ColumnFilter `pk-only`)."""
        document = {"data": self._rendered(session, table, change.row)}
        if change.operation == "update":
            old = {name: change.old[name] for name in table.keys if name in change.old}
            document[BEFORE_IMAGE] = self._rendered(session, table, old)
        key = key_text(table, change.row) if self._primary_key else None
        return envelope(table, change.operation, document, key, self._position(change))

    def _rendered(self, session: Session, table: TableDefinition, row: Row) -> dict[str, Any]:
        """Write a row down; without IncludeNullAndEmpty what is NULL or empty is left out."""
        return {
            name: session.value(value, table.columns.get(name, {}))
            for name, value in row.items()
            if self._null_and_empty or name in table.keys or value not in {None, ""}
        }

    def _position(self, change: Change) -> Mapping[str, Any]:
        """Where a change stands; the first one of a task has no predecessor."""
        if not self._details:
            return {"transaction-id": change.transaction}
        names = ("prev-transaction-id", "prev-transaction-record-id")
        before = dict(zip(names, self._previous, strict=True)) if self._previous else {}
        self._previous = (change.transaction, change.number)
        committed = change.committed_at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        here = {"transaction-id": change.transaction, "transaction-record-id": change.number}
        return here | before | {"commit-timestamp": committed, "stream-position": change.position}


def database_at(dsn: str, tables: Sequence[str], *, slot: str, checkpoint: Path) -> Database:
    """Choose the engine by the URI."""
    if dsn.startswith("mariadb:"):
        from local_stack.standins.dms.mariadb import MariaDB

        return MariaDB(dsn, tables, checkpoint)
    return PostgreSQL(dsn, tables, slot)


def main() -> None:
    """Run a task until SIGTERM."""
    parser = argparse.ArgumentParser(description="stand-in for AWS DMS")
    for name in ("dsn", "stream", "endpoint-url", "region"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--table", action="append", required=True, help="schema.table; may be repeated")
    parser.add_argument("--access-key", default="test")
    parser.add_argument("--secret-key", default="test")
    parser.add_argument("--slot", default="dms", help="PostgreSQL's: it keeps the place in the log")
    parser.add_argument("--checkpoint", default="dms.json", type=Path, help="MariaDB's: a file that keeps the place")
    parser.add_argument("--omit-null-and-empty", action="store_true", help="IncludeNullAndEmpty: false")
    parser.add_argument("--omit-details", action="store_true", help="IncludeTransactionDetails: false")
    parser.add_argument("--primary-key", action="store_true", help="changes go by primary key, not by table")
    chosen = parser.parse_args()
    kinesis = boto3.client(
        "kinesis", endpoint_url=chosen.endpoint_url, region_name=chosen.region,
        aws_access_key_id=chosen.access_key, aws_secret_access_key=chosen.secret_key,
    )  # fmt: skip
    task = DmsStandIn(
        database_at(chosen.dsn, chosen.table, slot=chosen.slot, checkpoint=chosen.checkpoint),
        chosen.stream,
        kinesis,
        null_and_empty=not chosen.omit_null_and_empty,
        primary_key=chosen.primary_key,
        details=not chosen.omit_details,
    )
    signal.signal(signal.SIGTERM, lambda *_: task.stop.set())
    while not task.stop.is_set():
        try:
            task.run()
        except InterruptedError:
            return  # stopped with unsent records, which the place retains
        except Exception as error:
            if not task.database.is_away(error):
                raise
            task.stop.wait(0.5)  # the source is unavailable; the place is kept


if __name__ == "__main__":
    main()
