"""A stream record as it was read, of any source."""

from __future__ import annotations

from typing import Literal, NamedTuple

Envelope = Literal["debezium", "dms", "flattened", "outbox"]
"""The forms of a record: Debezium's envelope, AWS DMS's JSON, rows that Debezium's ExtractNewRecordState flattened, and events
of an outbox that its EventRouter routed."""

RECORD_COLUMNS = (
    "stream string, partition string, position string, key binary, value binary, "
    "headers array<struct<key:string,value:binary>>, timestamp timestamp"
)
"""The columns that every source's `read_stream` yields, as Spark DDL."""


class Record(NamedTuple):
    """One record with its coordinates.

    Kafka: topic, partition, offset. Kinesis: stream, shard id, sequence number, followed by `:N` for the N-th user
    record of an aggregated one. `timestamp_ms` is the broker's time, in milliseconds since the epoch. `stored` says that it was
    read from `changes`, where landing wrote it in the form of `transforms.envelopes.stored`.
    """

    stream: str
    partition: str
    position: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int | None = None
    stored: bool = False
