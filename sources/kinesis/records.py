"""From Kinesis's raw records to ours: aggregated ones are taken apart. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from schemas.records import Record

_MAGIC = b"\xf3\x89\x9a\xc2"
"""First bytes of a record aggregated by the Kinesis Producer Library (its aggregation-format.md)."""
_DIGEST_BYTES = 16


class RawRecord(NamedTuple):
    """One record as GetRecords returns it."""

    sequence: str
    partition_key: str
    data: bytes
    arrival_ms: int


def user_records(stream: str, shard_id: str, raw: Iterable[RawRecord]) -> Iterator[Record]:
    """Turn raw records into what their producers wrote, in order.

    The N-th user record of an aggregated one is at position `sequence:N`. What only looks aggregated (its MD5 or its
    content is wrong) is passed on whole, so that decoding rejects it with its bytes.
    """
    for record in raw:
        parts = _disaggregated(record.data)
        if parts is None:
            yield _record(stream, shard_id, record, record.sequence, record.partition_key, record.data)
            continue
        for index, (key, data) in enumerate(parts):
            yield _record(stream, shard_id, record, f"{record.sequence}:{index}", key, data)


def _record(stream: str, shard_id: str, raw: RawRecord, position: str, key: str, data: bytes) -> Record:
    return Record(stream, shard_id, position, key.encode("utf-8", "surrogatepass"), data, (), raw.arrival_ms)


def _disaggregated(data: bytes) -> list[tuple[str, bytes]] | None:
    """Take an aggregated record apart into partition keys and data; None when it is no sound one.

    The message is aws_kinesis_agg's own; its deaggregator is not used, because on a damaged record it prints the raw
    bytes (row text) to standard error and drops the user records it has not reached.
    """
    if not data.startswith(_MAGIC):
        return None
    message, digest = data[len(_MAGIC) : -_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if hashlib.md5(message, usedforsecurity=False).digest() != digest:
        return None
    # Imported here: few streams are aggregated, and the import costs a worker 50 ms.
    from aws_kinesis_agg.messages_pb2 import AggregatedRecord
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    aggregated = AggregatedRecord()
    try:
        aggregated.ParseFromString(message)
        keys = aggregated.partition_key_table
        parts = [(str(keys[record.partition_key_index]), bytes(record.data)) for record in aggregated.records]
    except (DecodeError, IndexError):
        return None
    return parts or None
