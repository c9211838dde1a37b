"""Records as Arrow rows, as our sources yield them to Spark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from schemas.records import Record

_HEADER: list[pa.Field[Any]] = [pa.field("key", pa.string()), pa.field("value", pa.binary())]
_FIELDS: list[pa.Field[Any]] = [
    pa.field("stream", pa.string()),
    pa.field("partition", pa.string()),
    pa.field("position", pa.string()),
    pa.field("key", pa.binary()),
    pa.field("value", pa.binary()),
    pa.field("headers", pa.list_(pa.struct(_HEADER))),
    pa.field("timestamp", pa.timestamp("us", tz="UTC")),
]
ARROW_SCHEMA = pa.schema(_FIELDS)
"""`schemas.records.RECORD_COLUMNS` as an Arrow schema."""

MAX_BATCH_BYTES = 32 * 1024 * 1024
"""Bytes of values in one Arrow batch: far under the 2 GiB that its 32-bit offsets can address, and little to hold at once."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_record_batch(records: Sequence[Record]) -> pa.RecordBatch:
    """Turn records into one Arrow batch, in their order."""
    columns: dict[str, list[Any]] = {
        "stream": [record.stream for record in records],
        "partition": [record.partition for record in records],
        "position": [record.position for record in records],
        "key": [record.key for record in records],
        "value": [record.value for record in records],
        "headers": [[{"key": name, "value": value} for name, value in record.headers] for record in records],
        "timestamp": [_timestamp(record.timestamp_ms) for record in records],
    }
    return pa.RecordBatch.from_pydict(columns, schema=ARROW_SCHEMA)


def record_batches(records: Iterable[Record], max_records: int = 10_000) -> Iterator[pa.RecordBatch]:
    """Cut records into Arrow batches of at most `max_records` records and about `MAX_BATCH_BYTES` of values."""
    pending: list[Record] = []
    size = 0
    for record in records:
        pending.append(record)
        size += len(record.value or b"")
        if len(pending) >= max_records or size >= MAX_BATCH_BYTES:
            yield to_record_batch(pending)
            pending, size = [], 0
    if pending:
        yield to_record_batch(pending)


def _timestamp(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else _EPOCH + timedelta(milliseconds=milliseconds)
