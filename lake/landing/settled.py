"""Rejects that count no more: those that a replay has landed, or brought to the stores. `rejects` itself is only appended to."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lake.layout import STATS_COLUMNS, LakeLayout
from lake.storage import append_rows, create, rows_of, scan
from lake.table_schemas import SETTLED

type Row = dict[str, Any]
type Place = tuple[str, str, str, str, str | None]
"""Stage, stream, partition, position, and the column of a reject of one column."""

_PLACE = ("stage", "stream", "partition", "position", "column")


def settle(layout: LakeLayout, rejects: Sequence[Row]) -> None:
    """Note that rejects are settled. Noted twice they are settled once."""
    if not rejects:
        return
    path = layout.path("settled")
    create(path, SETTLED, stats=STATS_COLUMNS["settled"])
    now = dt.datetime.now(dt.UTC)
    rows = [{name: reject[name] for name in SETTLED.names} | {"_ingest_time": now} for reject in rejects]
    append_rows(path, pa.Table.from_pylist(rows, SETTLED))


def settled_at(layout: LakeLayout) -> dict[Place, dt.datetime]:
    """When each place was settled last."""
    settled: dict[Place, dt.datetime] = {}
    for row in rows_of(layout.path("settled"), [*_PLACE, "_ingest_time"]):
        place = _place(row)
        settled[place] = max(settled.get(place, row["_ingest_time"]), row["_ingest_time"])
    return settled


def open_ones(rejects: Iterable[Row], settled: Mapping[Place, dt.datetime]) -> list[Row]:
    """The rejects that are not settled; one that came after its place was settled is open again."""
    return [row for row in rejects if not _is_settled(row, settled)]


def settled_by_table(layout: LakeLayout) -> Counter[str]:
    """Rows of `rejects` that are settled, by table (empty where it is not known)."""
    settled = settled_at(layout)
    counts = Counter[str]()
    for batch in scan(layout.path("rejects"), [*_PLACE, "_table", "_ingest_time"]) if settled else ():
        counts.update(row["_table"] or "" for row in batch.to_pylist() if _is_settled(row, settled))
    return counts


def _is_settled(row: Mapping[str, Any], settled: Mapping[Place, dt.datetime]) -> bool:
    at = settled.get(_place(row))
    return at is not None and row["_ingest_time"] <= at


def _place(row: Mapping[str, Any]) -> Place:
    stage, stream, partition, position, column = (row[name] for name in _PLACE)
    return stage, stream, partition, position, column
