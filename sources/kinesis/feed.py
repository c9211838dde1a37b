"""The feed of a Kinesis source, for readers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection
from dataclasses import asdict

from schemas.records import Record
from sources.feeds import MAX_BYTES, MAX_RECORDS, Fetched, Partition, Position, Positions
from sources.kinesis.client import Stream
from sources.kinesis.config import Access
from sources.kinesis.fan_out import Consumer
from sources.kinesis.offsets import Mark
from sources.kinesis.read_ahead import ReadAhead
from sources.kinesis.records import user_records

FEED_BYTES = 32 * 1024 * 1024
"""Bytes that one feed reads ahead: the pages of three shards that are far behind."""


class KinesisFeed:
    """Fetches the records of some shards (`sources.feeds.Feed`), each by a thread of its own that polls every interval.

    A record is returned at most `fetch_interval_ms` after it was put, plus one call; a pushed one at once. Records
    aggregated into one are returned together, and may exceed `MAX_RECORDS`: a position cannot lie between them. Positions
    are `Mark`s as dicts; one whose shard was split or merged and read to its end says `closed`, and nothing follows it.
    """

    def __init__(self, access: Access, fetch_interval_ms: int, consumer: str | None = None) -> None:
        """Connect to nothing yet; with a consumer (its ARN or its name) records are pushed as they come."""
        self._stream = Stream(access)
        self._ahead = ReadAhead(
            self._stream,
            None,
            interval_s=fetch_interval_ms / 1000,
            buffer_bytes=FEED_BYTES,
            consumer=Consumer(self._stream, consumer) if consumer else None,
        )
        self._marks: dict[str, Mark] = {}
        self._shards: deque[str] = deque()
        self._closed = False

    def follow(self, positions: Positions) -> None:
        """Read these shards as well, each from its position on; one that is read already goes on where it is."""
        for partition, position in positions.items():
            shard_id = _shard(partition)
            if shard_id not in self._marks:
                self._marks[shard_id] = Mark(**position)
                self._shards.append(shard_id)
                self._ahead.follow(shard_id, self._marks[shard_id])

    def leave(self, partitions: Collection[Partition]) -> None:
        """Read these shards no more; each one's thread ends after its current call."""
        for shard_id in map(_shard, partitions):
            if self._marks.pop(shard_id, None) is not None:
                self._shards.remove(shard_id)
                self._ahead.leave(shard_id)

    def fetch(self, seconds: float) -> Fetched:
        """Return what has come; see `sources.feeds.Feed`. Raises SourceGoneError and ConfigurationError."""
        until = time.monotonic() + seconds
        while True:
            self._ahead.raise_failure()
            fetched = self._fetched()
            left = until - time.monotonic()
            if fetched.reached or left <= 0 or self._closed:
                return fetched
            self._ahead.wait(left)

    def caught_up_us(self) -> dict[Partition, int]:
        """When each shard was last known to have no more than was returned; closed ones are left out: their children count."""
        return {self._partition(shard_id): ms * 1000 for shard_id, ms in self._ahead.caught_up_ms(self._marks).items()}

    @property
    def away(self) -> str | None:
        """Which shard does not answer now, or has been throttled for long, in one sentence."""
        return self._ahead.away

    def close(self) -> None:
        """Leave every shard and close the connections."""
        self._closed = True
        self._ahead.stop()
        self._stream.close()

    def _fetched(self) -> Fetched:
        """Take from shard after shard, in turn the first, until the limits are reached."""
        records: list[Record] = []
        reached: dict[Partition, Position] = {}
        size = 0
        self._shards.rotate(-1)
        for shard_id in self._shards:
            if len(records) >= MAX_RECORDS or size >= MAX_BYTES:
                break
            before = self._marks[shard_id]
            mark = self._ahead.take(shard_id, before, MAX_RECORDS - len(records), MAX_BYTES - size)
            if mark == before:
                continue
            raw = self._ahead.slice(shard_id, before, mark) or []
            records += user_records(self._stream.access.stream, shard_id, raw)
            size += sum(len(record.data) for record in raw)
            self._ahead.forget(shard_id, mark)
            self._marks[shard_id] = mark
            reached[self._partition(shard_id)] = asdict(mark)
        return Fetched(records, reached)

    def _partition(self, shard_id: str) -> Partition:
        return f"{self._stream.access.stream}/{shard_id}"


def _shard(partition: Partition) -> str:
    return partition.rpartition("/")[2]
