"""The record by which `ragstream epoch` ends what was known of a table before an epoch; it stands in `changes` beside a source's.

Its stream's name has a space, as no topic of Kafka and no stream of Kinesis may have, so it is never a record that was read.
"""

from __future__ import annotations

from schemas.changes import Change, Changes, Decoded, Reject
from schemas.records import Record
from transforms.context import DecodeContext
from transforms.positions.sequence import before_epoch, epoch_at
from transforms.values import exact_json

STREAM = "ragstream epoch"


def record_of_epoch(source: str, table: str, start_us: int) -> Record:
    """The record of a table and an epoch, which begins at a time in microseconds; the same for the same two."""
    value = exact_json.dumps({"table": table, "start_us": start_us})
    return Record(STREAM, f"{source}/{table}", str(start_us), None, value.encode(), (), start_us // 1000)


def decode(record: Record, context: DecodeContext) -> Decoded:
    """A TRUNCATE between the epoch before and this one: newer than every change of that, older than every one of this."""
    epoch = exact_json.loads(record.value or b"")
    table, start_us = context.tables.get(epoch["table"]), epoch["start_us"]
    if table is None or start_us not in context.epoch_starts_us:
        return Reject("EPOCH_UNKNOWN", "the configuration has no such table or no such epoch any more", epoch["table"])
    order = before_epoch(epoch_at(context.epoch_starts_us, start_us))
    return Changes((Change(table.table, "t", order, "", commit_time_us=start_us),))
