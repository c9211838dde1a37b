"""Rejects driven once more through decoding and landing, without Spark: they are few.

A record that decodes now, because the configuration or the code was corrected, is landed once: one that is in `changes`
is not landed again, and the append carries a transaction. Its reject stays in `rejects`, settled (`lake.landing.settled`).
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from lake.history.current import record_of
from lake.landing.batch import create_tables, known_schemas, new_schemas, schema_rows
from lake.landing.decoding import DecodedBatch, Tally, decoded
from lake.landing.landed_files import kept_bytes
from lake.landing.settled import Row, open_ones, settled_at
from lake.layout import RAW_COLUMNS, LakeLayout
from lake.registered_schemas import keep, kept_names
from lake.storage import append_rows, rows_of
from lake.table_schemas import CHANGES
from schemas.records import Record
from transforms.context import DecodeContext
from transforms.documents.planning import digest

_COORDINATES = ("stream", "partition", "position")

STAGES = ("decode", "embed", "store")
"""Stages whose rejects can be replayed: they name a record. Those of a merge or a load are of stored rows."""


@dataclass(frozen=True)
class Choice:
    """Which rejects: of one stage, one condition, one table, or all of them."""

    stage: str | None = None
    condition: str | None = None
    table: str | None = None


@dataclass
class Relanded:
    """What became of rejects: their rows of `changes`, new or standing there already, and those that fail as before.

    A record that stands there may have been rejected for single columns; `unfit` has those that still fail, by table.
    """

    landed: list[Row] = field(default_factory=list)
    standing: list[Row] = field(default_factory=list)
    rejected: list[Row] = field(default_factory=list)
    without_bytes: list[Row] = field(default_factory=list)
    """Rejects whose record was not kept, since a column of its table must not travel, and that were not landed since."""
    unfit: Counter[str] = field(default_factory=Counter)
    settled: list[Row] = field(default_factory=list)
    """The rejects that are none any more."""


def open_rejects(layout: LakeLayout, choice: Choice) -> list[Row]:
    """The rejects of a choice that name a record and that no replay has settled."""
    import pyarrow.dataset as ds

    chosen = ds.field("stage").isin([choice.stage] if choice.stage else STAGES) & ds.field("position").is_valid()
    if choice.condition:
        chosen &= ds.field("condition") == choice.condition
    if choice.table:
        chosen &= ds.field("_table") == choice.table
    columns = [*RAW_COLUMNS, "stage", "condition", "column", "_source", "_table", "_key", "_ingest_time"]
    return open_ones(rows_of(layout.path("rejects"), columns, chosen), settled_at(layout))


def land_again(layout: LakeLayout, source: str, context: DecodeContext, rejects: Sequence[Row]) -> Relanded:
    """Decode rejects of a source once more, and land those that are a change now. A second call lands nothing."""
    create_tables(layout)
    records = list({_coordinates(row): row for row in rejects if row["value"] is not None}.values())
    batch, kept, meanings = decoded_rows(records, context)
    before = landed_before(layout, rejects)
    now = dt.datetime.now(dt.UTC)
    stamps = {"_source": source, "_ingest_time": now, "_ingest_date": now.date()}
    result = Relanded(unfit=batch.tally.unfit)
    for record, as_kept, meaning in zip(records, kept, meanings, strict=True):
        if not meaning["_op"]:
            result.rejected.append(record)
        else:
            part = result.standing if _coordinates(record) in before else result.landed
            part.append(as_kept | meaning | stamps)
    result.without_bytes = [
        row for row in rejects if row["value"] is None and (row["column"] or _coordinates(row) not in before)
    ]
    result.settled = _settled(rejects, result, batch, records)
    if result.landed:
        if context.registry is not None:
            keep(layout, source, context.registry, batch.tally.registered - kept_names(layout, source))
        _append(layout, source, batch.tally, result.landed)
    return result


def decoded_rows(records: Sequence[Row], context: DecodeContext) -> tuple[DecodedBatch, list[Row], list[Row]]:
    """Decode rows of RAW_COLUMNS as landing does; of each row also the raw columns that are kept, and its decoded columns."""
    table = pa.Table.from_pylist(records, pa.schema([CHANGES.field(name) for name in RAW_COLUMNS]))
    raw = {name: table.column(name).combine_chunks() for name in RAW_COLUMNS}
    batch = decoded([raw[name] for name in RAW_COLUMNS[:6]], context)
    kept = pa.table(kept_bytes(raw, batch.kept)[0]).to_pylist()
    return batch, kept, pa.RecordBatch.from_struct_array(batch.records).to_pylist()


def _settled(rejects: Sequence[Row], result: Relanded, batch: DecodedBatch, records: Sequence[Row]) -> list[Row]:
    """Rejects whose record stands in `changes` now, with the column that was rejected."""
    landed = {_coordinates(row) for row in (*result.landed, *result.standing)}
    unfit = {
        (*_coordinates(records[row["record"]]), row["column"])
        for row in pa.RecordBatch.from_struct_array(batch.unfit).to_pylist()
    }
    without = {id(row) for row in result.without_bytes}
    return [
        row
        for row in rejects
        if id(row) not in without
        and (row["value"] is None or _coordinates(row) in landed)
        and (*_coordinates(row), row["column"]) not in unfit
    ]


def _append(layout: LakeLayout, source: str, tally: Tally, landed: Sequence[Row]) -> None:
    # before the changes: whoever merges these looks for them
    if new := new_schemas(tally, known_schemas(layout, source)):
        append_rows(layout.path("schemas"), schema_rows(source, new))
    name = digest("\n".join(sorted(map(str, map(_coordinates, landed)))))
    once = {"txnAppId": f"replay:{name}", "txnVersion": "1"}
    append_rows(layout.path("changes"), pa.Table.from_pylist(landed, CHANGES), once)


def records_of_rows(layout: LakeLayout, table: str, keys: Iterable[str]) -> Iterator[tuple[str, Record]]:
    """The records of `rows_of_keys`, each with its source's name."""
    for row in rows_of_keys(layout, table, keys):
        yield row["_source"], record_of(row)


def rows_of_keys(layout: LakeLayout, table: str, keys: Iterable[str]) -> list[Row]:
    """Rows of `changes` for all that was landed of some rows, and of those that key changes tie to them."""
    import pyarrow.dataset as ds

    read: set[str] = set()
    more = set(keys)
    rows: list[Row] = []
    while more - read:
        read |= more
        names = sorted(read)
        condition = ds.field("_key").isin(names) | ds.field("_related_key").isin(names)
        columns = [*RAW_COLUMNS, "_source", "_key", "_related_key"]
        rows = rows_of(layout.path("changes"), columns, (ds.field("_table") == table) & condition)
        more = {key for row in rows for key in (row["_key"], row["_related_key"]) if key}
    return rows


def by_source(rejects: Iterable[Row], owners: Mapping[str, str]) -> dict[str, list[Row]]:
    """Rejects by the source that they came from, or else that owns their table; those of neither are left out."""
    rejects_of: dict[str, list[Row]] = defaultdict(list)
    for row in rejects:
        source = row["_source"] or owners.get(row["_table"] or "")
        if source:
            rejects_of[source].append(row)
    return rejects_of


def _coordinates(row: Mapping[str, Any]) -> tuple[str, str, str]:
    stream, partition, position = (row[name] for name in _COORDINATES)
    return stream, partition, position


def landed_before(layout: LakeLayout, records: Sequence[Row]) -> set[tuple[str, str, str]]:
    """Stream, partition and position of the records that stand in `changes`, and of others there at the same positions."""
    import pyarrow.dataset as ds

    positions = pa.array(sorted({row["position"] for row in records}), pa.string())
    rows = rows_of(layout.path("changes"), _COORDINATES, ds.field("position").isin(positions))
    return {_coordinates(row) for row in rows}
