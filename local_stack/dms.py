"""A stand-in for AWS DMS: a real PostgreSQL's rows and write-ahead log, as DMS writes them to Kinesis.

    python -m local_stack.dms --dsn URI --table public.tickets --stream desk --endpoint-url URL --region us-east-1

Control records first, then the full load, then every change from the log, at least once: a position is given back to
the slot after its records are in the stream. The shapes are those of the DMS guide ("Using Kinesis as a target") and of
real payloads; what DMS leaves undocumented is chosen here and said so:

* `stream-position` is `COMMIT.n.COMMIT` with n the record's number in its transaction.
* TRUNCATE has no record of its own in the guide's list: the stand-in sends a delete for each row it knows the key of.
* An unchanged large column is left out of an update's `data`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import batched
from typing import Any

import boto3
import psycopg
import simplejson
from psycopg import sql

from local_stack.dms_rows import TableDefinition as Table
from local_stack.dms_rows import control, key_of, rendered, table_of
from local_stack.pgoutput import Begin, Decoder, RowChange, Truncate

_POLL_SECONDS = 0.01
_PUT_RECORDS = 500
_PUT_BYTES = 4_000_000
_OPERATIONS = {"I": "insert", "U": "update", "D": "delete"}


class DmsStandIn:
    """One task: full load and changes of some tables into one stream."""

    def __init__(
        self, dsn: str, tables: Sequence[str], stream: str, kinesis: Any, *, slot: str, null_and_empty: bool
    ) -> None:
        """Keep the task; `kinesis` is a boto3 client."""
        self._dsn, self._stream, self._kinesis, self._slot = dsn, stream, kinesis, slot
        self._names, self._null_and_empty = tables, null_and_empty
        self._keys: dict[str, set[str]] = {name: set() for name in tables}
        self.stop = threading.Event()

    def run(self) -> None:
        """Load once, when the slot is new; then follow the log until told to stop."""
        with psycopg.connect(self._dsn, autocommit=True) as source:
            source.execute("SET datestyle = 'ISO'")
            source.execute("SET timezone = 'UTC'")
            self._tables = {name: table_of(source, name) for name in self._names}
            if self._open_slot(source):
                self._put(self._load(source))
            decoder = Decoder()
            while not self.stop.is_set():
                if not self._follow(source, decoder):
                    self.stop.wait(_POLL_SECONDS)

    def _open_slot(self, source: psycopg.Connection[Any]) -> bool:
        names = [sql.Identifier(*name.split(".", 1)) for name in self._names]
        known = source.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", (self._slot,)).fetchone()
        if known:
            return False
        publication = sql.SQL("CREATE PUBLICATION {} FOR TABLE {}")
        source.execute(publication.format(sql.Identifier(self._slot), sql.SQL(", ").join(names)))
        source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self._slot,))
        return True

    def _load(self, source: psycopg.Connection[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Control records, then every row as it is now; a change the load has seen comes again from the log."""
        for table in self._tables.values():
            yield table.name, control(table)
        for table in self._tables.values():
            columns = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(c)) for c in table.columns)
            query = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(table.schema, table.table))
            for values in source.execute(query):
                row = dict(zip(table.columns, values, strict=True))
                data = rendered(table, row, null_and_empty=self._null_and_empty)
                key = key_of(table, row)
                self._keys[table.name].add(key)
                yield (
                    f"{table.name}.{key}",
                    {"data": data, "metadata": self._metadata(table, "load", "primary-key", key)},
                )

    def _follow(self, source: psycopg.Connection[Any], decoder: Decoder) -> bool:
        """Send what the log has; returns whether it had anything."""
        peek = """SELECT lsn, data FROM pg_logical_slot_peek_binary_changes(%s, NULL, 2000,
                  'proto_version', '1', 'publication_names', %s)"""
        rows = source.execute(peek, (self._slot, self._slot), binary=True).fetchall()
        if not rows:
            return False
        self._put(self._changes(decoder, [bytes(data) for _, data in rows]))
        source.execute("SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", (self._slot, _lsn_text(rows[-1][0])))
        return True

    def _changes(self, decoder: Decoder, messages: Sequence[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
        begin, number = Begin(0, dt.datetime.now(dt.UTC), 0), 0
        for data in messages:
            message = decoder.decode(data)
            if isinstance(message, Begin):
                begin, number = message, 0
            elif isinstance(message, RowChange):
                table = self._tables[f"{message.relation.schema}.{message.relation.table}"]
                number += 1
                yield table.name, self._row(table, message, begin, number)
            elif isinstance(message, Truncate):
                for relation in message.relations:
                    table = self._tables[f"{relation.schema}.{relation.table}"]
                    for key in sorted(self._keys[table.name]):
                        number += 1
                        yield table.name, self._gone(table, key, begin, number)
                    self._keys[table.name].clear()

    def _row(self, table: Table, change: RowChange, begin: Begin, number: int) -> dict[str, Any]:
        operation = _OPERATIONS[change.operation]
        row = change.new if change.new is not None else (change.old or {})
        keys = self._keys[table.name]
        document: dict[str, Any] = {}
        if operation == "delete":
            row = {name: row.get(name) if name in table.keys else None for name in table.columns}
            keys.discard(key_of(table, row))
        else:
            keys.add(key_of(table, row))
        if operation == "update":
            old = {n: (change.old or row).get(n) for n in table.keys}
            moved = key_of(table, old) != key_of(table, row)
            document["before-image"] = rendered(table, old, null_and_empty=True) if moved else {}
            if moved:
                keys.discard(key_of(table, old))
        data = rendered(table, row, null_and_empty=self._null_and_empty)
        return (
            {"data": data}
            | document
            | {"metadata": self._metadata(table, operation, "schema-table") | _position(begin, number)}
        )

    def _gone(self, table: Table, key: str, begin: Begin, number: int) -> dict[str, Any]:
        row = dict.fromkeys(table.columns) | dict(zip(table.keys, json.loads(key), strict=True))
        data = rendered(table, row, null_and_empty=self._null_and_empty)
        return {"data": data, "metadata": self._metadata(table, "delete", "schema-table") | _position(begin, number)}

    def _metadata(self, table: Table, operation: str, kind: str, value: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {
            "timestamp": _iso(dt.datetime.now(dt.UTC)), "record-type": "data", "operation": operation,
            "partition-key-type": kind, "schema-name": table.schema, "table-name": table.table,
        }  # fmt: skip
        return found | ({"partition-key-value": f"{table.name}.{value}"} if value else {})

    def _put(self, records: Iterator[tuple[str, dict[str, Any]]]) -> None:
        for group in batched(records, _PUT_RECORDS, strict=False):
            entries = [
                {
                    "PartitionKey": key[:256],
                    "Data": simplejson.dumps(value, use_decimal=True, separators=(",", ":")).encode() + b"\n",
                }
                for key, value in group
            ]
            for part in _by_size(entries):
                self._send(part)

    def _send(self, entries: list[dict[str, Any]]) -> None:
        """Send until all are in; only what failed goes again, so a key's order may suffer as it does with DMS."""
        while entries and not self.stop.is_set():
            try:
                answer = self._kinesis.put_records(StreamName=self._stream, Records=entries)
            except Exception:  # noqa: BLE001 - whatever the endpoint's trouble is, the records wait
                self.stop.wait(0.5)
                continue
            entries = [e for e, r in zip(entries, answer["Records"], strict=True) if r.get("ErrorCode")]
            if entries:
                self.stop.wait(0.1)


def _line(document: dict[str, Any]) -> bytes:
    """JSON_UNFORMATTED: one line, and its end."""
    return simplejson.dumps(document, use_decimal=True, separators=(",", ":")).encode() + b"\n"


def _by_size(entries: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        length = len(entry["Data"])
        if part and size + length > _PUT_BYTES:
            yield part
            part, size = [], 0
        part.append(entry)
        size += length
    if part:
        yield part


def _position(begin: Begin, number: int) -> dict[str, Any]:
    place = f"{begin.commit_lsn >> 32:08X}/{begin.commit_lsn & 0xFFFFFFFF:08X}"
    return {
        "transaction-id": begin.transaction, "transaction-record-id": number,
        "commit-timestamp": _iso(begin.committed_at), "stream-position": f"{place}.{number}.{place}",
    }  # fmt: skip


def _iso(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _lsn_text(lsn: Any) -> str:
    value = int.from_bytes(lsn, "big") if isinstance(lsn, bytes) else lsn
    return value if isinstance(value, str) else f"{value >> 32:X}/{value & 0xFFFFFFFF:X}"


def main() -> None:
    """Run a task until SIGTERM."""
    parser = argparse.ArgumentParser(description="stand-in for AWS DMS")
    for name in ("dsn", "stream", "endpoint-url", "region"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--table", action="append", required=True, help="schema.table; may be repeated")
    parser.add_argument("--access-key", default="test")
    parser.add_argument("--secret-key", default="test")
    parser.add_argument("--slot", default="dms")
    parser.add_argument("--omit-null-and-empty", action="store_true")
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
    )
    signal.signal(signal.SIGTERM, lambda *_: task.stop.set())
    while not task.stop.is_set():
        try:
            task.run()
        except psycopg.OperationalError:
            time.sleep(0.5)  # the source is away; the slot remembers where we were


if __name__ == "__main__":
    main()
