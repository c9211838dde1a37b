"""A source table whose columns change, and the records that a connector sends of it, each with its schema."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from itertools import batched
from typing import Any

import pyarrow as pa

from glue_jobs.config.pipeline import table_context
from lake.landing.batch import schema_rows
from lake.landing.decoding import Tally, decoded
from lake.tables.drift import refuse_drift
from lake.tables.folding import FoldSettings, fold_group
from lake.tables.observed_types import ObservedTypes, observed_in
from lake.tables.shape import TableShape, evolved
from schemas.records import Record
from schemas.tables import TableConfig
from transforms.context import DecodeContext
from transforms.documents.planning import DocumentSpec

TABLE = "inv.items"


class DriftingTable:
    """Writes records as Kafka Connect's JsonConverter does; `columns` maps each column to its Connect type."""

    def __init__(self, columns: Mapping[str, str], table: str = TABLE) -> None:
        self.columns, self.table = dict(columns), table
        self.began_us = 0
        """Before the commit time of the first record, which is a microsecond later."""
        self.defaults: dict[str, Any] = {}
        self.records: list[Record] = []

    def write(self, op: str, row: Mapping[str, Any], *keys: str) -> Record:
        """One change; columns that are not named are NULL, as a whole row has them."""
        lsn = len(self.records) + 1
        image = {name: row.get(name) for name in self.columns}
        fields = [
            {"type": kind, "optional": name not in (keys or ("id",)), "field": name}
            | ({"default": self.defaults[name]} if name in self.defaults else {})
            for name, kind in self.columns.items()
        ]
        structs = [
            {"type": "struct", "fields": fields, "optional": True, "field": name} for name in ("before", "after")
        ]
        schema, _, name = self.table.partition(".")
        source = {"connector": "postgresql", "schema": schema, "table": name, "sequence": f'["{lsn}","{lsn}"]'}
        payload = {
            "before": image if op == "d" else None,
            "after": None if op == "d" else image,
            "source": source | {"ts_us": self.began_us + lsn, "name": "inv"},
            "op": op,
        }
        value = {"schema": {"type": "struct", "fields": structs, "optional": False}, "payload": payload}
        text = json.dumps(value, separators=(",", ":")).encode()
        record = Record(
            f"inv.{self.table}", "0", str(lsn), json.dumps({key: row[key] for key in keys or ("id",)}).encode(), text
        )
        self.records.append(record)
        return record

    def retype(self, **columns: str | None) -> None:
        """ALTER TABLE: a type, or None for a column that is dropped."""
        self.columns = {name: kind for name, kind in (self.columns | columns).items() if kind is not None}


def history() -> DriftingTable:
    """Added, widened, narrowed, retyped and dropped columns, each between changes of rows."""
    table = DriftingTable({"id": "int32", "n": "int32", "big": "int64", "code": "int32", "old": "string"})
    table.write("c", {"id": 1, "n": 1, "big": 2**40, "code": 7, "old": "o1"})
    table.write("c", {"id": 2, "n": 2, "big": 2, "code": 8, "old": "o2"})
    table.write("c", {"id": 9, "n": 2, "big": 2, "code": 8, "old": "o2"})
    table.retype(late="string")
    table.write("u", {"id": 1, "n": 1, "big": 2**40, "code": 7, "old": "o1", "late": "first"})
    table.retype(n="int64", big="int32", code="string")
    table.write("u", {"id": 2, "n": 2**35, "big": 3, "code": "A-8", "old": "o2", "late": "second"})
    table.write("d", {"id": 9})
    table.retype(old=None)
    table.write("c", {"id": 3, "n": 3, "big": 3, "code": "9", "late": None})
    return table


def renamed_history() -> DriftingTable:
    """A column and then the key get other names, while rows with the old names still come."""
    table = DriftingTable({"id": "int32", "body": "string"})
    table.write("c", {"id": 1, "body": "one"})
    table.write("c", {"id": 2, "body": "two"})
    table.columns = {"id": "int32", "text": "string"}
    table.write("u", {"id": 2, "text": "two, edited"})
    table.columns = {"item": "int32", "text": "string"}
    table.write("c", {"item": 3, "text": "three"}, "item")
    table.write("d", {"item": 1}, "item")
    return table


def shuffled(records: list[Record], seed: int) -> list[list[Record]]:
    r = random.Random(seed)
    more = records + r.choices(records, k=4)
    r.shuffle(more)
    return [list(batch) for batch in batched(more, r.randint(1, 4))]


EVOLVED: dict[str, dict[str, Any]] = {
    '{"id":1}': {"id": 1, "n": 1, "big": 2**40, "code": "7", "old": "o1", "late": "first"},
    '{"id":2}': {"id": 2, "n": 2**35, "big": 3, "code": "A-8", "old": "o2", "late": "second"},
    '{"id":3}': {"id": 3, "n": 3, "big": 3, "code": "9", "old": None, "late": None},
}
"""What `history` leaves where every change is taken in, by key."""
FROZEN: dict[str, dict[str, Any]] = {
    '{"id":1}': {"id": 1, "n": 1, "big": 2**40, "code": 7, "old": "o1"},
    '{"id":2}': {"id": 2, "n": None, "big": 3, "code": None, "old": "o2"},
    '{"id":3}': {"id": 3, "n": 3, "big": 3, "code": None, "old": None},
}
"""The same where the first schema stays."""


type Row = dict[str, Any]


def configured(**more: Any) -> TableConfig:
    """The table with these keys of its section."""
    return TableConfig.model_validate({"table": TABLE, "keys": ["id"], **more})


def specs_of(table: TableConfig) -> dict[str, DocumentSpec]:
    """Its document."""
    spec = DocumentSpec.of(table)
    return {table.table: spec} if spec else {}


def context_of(table: TableConfig) -> DecodeContext:
    """What decoding knows of it."""
    return DecodeContext("debezium", {table.table: table_context(table)})


class MemoryTable:
    """A current table in memory: lands and merges batches as the jobs do."""

    def __init__(self, table: TableConfig) -> None:
        self.tally, self.shape, self.rows = Tally(), TableShape(), dict[str, Row]()
        self.tombstones: list[Row] = []
        self.rejects: set[tuple[str, str, str]] = set()
        self.configure(table)

    def configure(self, table: TableConfig) -> None:
        """Start with this configuration."""
        self.table, self.context = table, context_of(table)
        self._settle()

    def merge(self, batch: list[Record]) -> None:
        text, binary = pa.string(), pa.binary()
        columns: list[pa.Array[Any]] = [
            pa.array([r.stream for r in batch], text),
            pa.array([r.partition for r in batch], text),
            pa.array([r.position for r in batch], text),
            pa.array([r.key for r in batch], binary),
            pa.array([r.value for r in batch], binary),
        ]
        headers = pa.array([None] * len(batch), pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())])))
        self.tally.add(decoded([*columns, headers], self.context).tally)
        self._settle()
        self._fold([*self.rows.values(), *self.tombstones, *map(_input, batch)], self.shape)

    def _settle(self) -> None:
        rows = schema_rows("kb", self.tally.schemas.values()).to_pylist()
        self.observed = observed_in(rows, {self.table.table: self.table.renamed}).get(self.table.table, ObservedTypes())
        refuse_drift(self.table, self.observed)
        current, self.shape = self.shape, evolved(self.shape, self.table, self.observed, self.table.keys)
        if current != self.shape:
            self._fold(list(self.rows.values()), current)

    def _fold(self, rows: list[Row], current: TableShape) -> None:
        settings = FoldSettings.of(self.table, self.observed, {"kb": self.context}, current, self.shape)
        for row in list(fold_group(rows, settings)):
            assert not row.get("_unknown")
            self.rejects |= {(row["_key"], r["column"], r["sequence"]) for r in row.get("_rejects") or ()}
            if row["_tombstone"]:
                self.tombstones.append({"_from": "tombstone", "_key": row["_key"], "_state": row["_tombstone"]})
            self.rows.pop(row["_key"], None)
            if row["_live"]:
                self.rows[row["_key"]] = row | {"_from": "table"}

    @property
    def contents(self) -> dict[str, Row]:
        """By key: the columns that readers see."""
        names = [column.name for column in self.shape.columns]
        return {key: {name: row["_row"].get(name) for name in names} for key, row in self.rows.items()}


def _input(record: Record) -> Row:
    headers = [{"key": key, "value": value} for key, value in record.headers]
    return record._asdict() | {"_from": None, "_source": "kb", "_key": None, "headers": headers, "timestamp": None}
