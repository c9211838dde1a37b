"""An epoch of a source in `changes`: what was landed since it began, and the record that ends what was known before.

That record is a TRUNCATE between two epochs (`transforms.envelopes.epochs`), so that every job and command that reads
`changes` does the rest, in any order of its records.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from lake.landing.batch import create_tables
from lake.layout import LakeLayout
from lake.storage import append_rows, scan
from lake.table_schemas import CHANGES
from schemas.changes import Change
from schemas.records import Record
from transforms.positions.sequence import before_epoch
from transforms.values.times import moment


@dataclass
class SinceEpoch:
    """Counts of a source's records by table."""

    loaded: Counter[str] = field(default_factory=Counter)
    """Rows of a full load or a snapshot in the epoch."""
    misplaced: Counter[str] = field(default_factory=Counter)
    """Committed in the epoch, and landed by a job that did not know it yet: they rank below it."""


def since_epoch(layout: LakeLayout, source: str, epoch: int, start_us: int) -> SinceEpoch:
    """Count what was landed since an epoch began, by commit time, or by ingest time where no commit is known."""
    import pyarrow.dataset as ds

    start, counts = pa.scalar(moment(start_us)), SinceEpoch()
    of_late = (ds.field("_commit_time") >= start) | (
        ds.field("_commit_time").is_null() & (ds.field("_ingest_time") >= start)
    )
    condition = (ds.field("_source") == source) & of_late
    floor, ceiling = before_epoch(epoch), before_epoch(epoch + 1)
    for batch in scan(layout.path("changes"), ["_table", "_op", "_sequence"], condition):
        for row in batch.to_pylist():
            if row["_sequence"] < floor:
                counts.misplaced[row["_table"]] += 1
            elif row["_op"] == "r" and floor < row["_sequence"] < ceiling:
                counts.loaded[row["_table"]] += 1
    return counts


def land_epochs(layout: LakeLayout, source: str, ends: Iterable[tuple[Record, Change]]) -> None:
    """Append the records of an epoch, each with the change that it is; it stands there once, however often it is landed."""
    create_tables(layout)
    now = dt.datetime.now(dt.UTC)
    for record, change in ends:
        row = {
            "stream": record.stream, "partition": record.partition, "position": record.position, "value": record.value,
            "timestamp": moment((record.timestamp_ms or 0) * 1000), "_source": source, "_table": change.table, "_op": change.op,
            "_sequence": change.sequence, "_commit_time": moment(change.commit_time_us or 0), "_key": change.key,
            "_ingest_time": now, "_ingest_date": now.date(),
        }  # fmt: skip
        once = {"txnAppId": f"epoch:{record.partition}:{record.position}", "txnVersion": "1"}
        append_rows(layout.path("changes"), pa.Table.from_pylist([row], CHANGES), once)
