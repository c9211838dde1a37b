"""Rejects driven once more through decoding and landing, without Spark: they are few.

A record that decodes now, because the configuration or the code was corrected, is landed once: one that is in `changes`
is not landed again, and the append carries a transaction. Its reject stays in `rejects`.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from lake.history.current import record_of
from lake.landing.batch import create_tables, schema_rows
from lake.landing.decoding import decoded
from lake.layout import RAW_COLUMNS, LakeLayout
from lake.storage import append_rows, rows_of
from lake.table_schemas import CHANGES
from schemas.records import Record
from transforms.context import DecodeContext
from transforms.documents.planning import digest

type Row = dict[str, Any]

_COORDINATES = ("stream", "partition", "position")


@dataclass
class Relanded:
    """What became of rejects: their rows of `changes`, new or standing there already, and those that fail as before.

    A record that stands there may have been rejected for single columns; `unfit` counts those that still fail, by table.
    """

    landed: list[Row] = field(default_factory=list)
    standing: list[Row] = field(default_factory=list)
    rejected: list[Row] = field(default_factory=list)
    unfit: Counter[str] = field(default_factory=Counter)


def raw_rejects(layout: LakeLayout, stage: str) -> list[Row]:
    """The rejects of a stage that kept their record, each record once; `_source` and `_table` as far as they are known."""
    import pyarrow.dataset as ds

    wanted = (ds.field("stage") == stage) & ds.field("value").is_valid()
    rows = rows_of(layout.path("rejects"), [*RAW_COLUMNS, "_source", "_table"], wanted)
    return list({_coordinates(row): row for row in rows}.values())


def land_again(layout: LakeLayout, source: str, context: DecodeContext, rejects: Sequence[Row]) -> Relanded:
    """Decode rejects of a source once more, and land those that are a change now. A second call lands nothing."""
    create_tables(layout)
    columns = pa.Table.from_pylist(list(rejects), pa.schema([CHANGES.field(name) for name in RAW_COLUMNS]))
    records, _, tally = decoded([columns.column(name).combine_chunks() for name in RAW_COLUMNS[:6]], context)
    landed_before = _landed_before(layout, rejects)
    now = dt.datetime.now(dt.UTC)
    stamps = {"_source": source, "_ingest_time": now, "_ingest_date": now.date()}
    result = Relanded(unfit=tally.unfit)
    meanings = pa.RecordBatch.from_struct_array(records).to_pylist()
    for reject, meaning in zip(rejects, meanings, strict=True):
        if not meaning["_op"]:
            result.rejected.append(reject)
        else:
            part = result.standing if _coordinates(reject) in landed_before else result.landed
            part.append(reject | meaning | stamps)
    if result.landed:
        known = {(row["_table"], row["schema_id"]) for row in rows_of(layout.path("schemas"), ["_table", "schema_id"])}
        new = [seen for name, seen in tally.schemas.items() if name not in known]
        if new:  # before the changes: whoever merges these looks for them
            append_rows(layout.path("schemas"), schema_rows(source, new))
        name = digest("\n".join(sorted(map(str, map(_coordinates, result.landed)))))
        once = {"txnAppId": f"replay:{name}", "txnVersion": "1"}
        append_rows(layout.path("changes"), pa.Table.from_pylist(result.landed, CHANGES), once)
    return result


def records_of_rows(layout: LakeLayout, table: str, keys: Iterable[str]) -> Iterator[tuple[str, Record]]:
    """All that was landed of some rows, and of those that key changes tie to them, each with its source's name."""
    import pyarrow.dataset as ds

    wanted: set[str] = set()
    more = set(keys)
    rows: list[Row] = []
    while more - wanted:
        wanted |= more
        names = sorted(wanted)
        condition = ds.field("_key").isin(names) | ds.field("_related_key").isin(names)
        columns = [*RAW_COLUMNS, "_source", "_key", "_related_key"]
        rows = rows_of(layout.path("changes"), columns, (ds.field("_table") == table) & condition)
        more = {key for row in rows for key in (row["_key"], row["_related_key"]) if key}
    for row in rows:
        yield row["_source"], record_of(row)


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


def _landed_before(layout: LakeLayout, rejects: Sequence[Row]) -> set[tuple[str, str, str]]:
    import pyarrow.dataset as ds

    positions = sorted({row["position"] for row in rejects})
    rows = rows_of(layout.path("changes"), _COORDINATES, ds.field("position").isin(positions))
    return {_coordinates(row) for row in rows}
