"""Feeds: how a reader fetches a source without Spark, and which partitions the driver has it read.

A partition is `stream/partition` (Kafka: `cdc.public.a/0`; Kinesis: `mystream/shardId-000000000000`). A position is a JSON
value from which reading goes on (Kafka: the offset of the next record; Kinesis: a `Mark` as a dict).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, assert_never

from sources.files.config import FilesSourceConfig
from sources.kafka import partitions as kafka_partitions
from sources.kafka.config import KafkaSourceConfig
from sources.kinesis import shards as kinesis_shards
from sources.kinesis.config import KinesisSourceConfig

if TYPE_CHECKING:
    from schemas.records import Record
    from sources import SourceConfig

type Partition = str
type Position = Any
type Positions = Mapping[Partition, Position]

MAX_RECORDS = 512
"""Most records that one `fetch` returns."""
MAX_BYTES = 4 * 1024 * 1024
"""Bytes of keys and values after which one `fetch` returns; a single larger record is returned alone."""


class Fetched(NamedTuple):
    """The result of one `fetch`."""

    records: list[Record]
    """In the order of each partition."""
    reached: dict[Partition, Position]
    """By partition: the position after them; also where only control records were read, or a shard was closed."""


class Feed(Protocol):
    """Fetches the records of some partitions; one thread calls it, `close` excepted.

    It stores nothing: opened again at positions that `fetch` returned, it returns the records after them.
    """

    def follow(self, positions: Positions) -> None:
        """Read these partitions as well, each from its position on."""

    def leave(self, partitions: Collection[Partition]) -> None:
        """Read these partitions no more; none of their records is returned after this."""

    def fetch(self, seconds: float) -> Fetched:
        """Return what has come, at most `MAX_RECORDS` or about `MAX_BYTES`; wait up to `seconds` for the first record.

        An endpoint that is away is no error: see `away`. Raises SourceGoneError when records to be read have expired or the
        stream was made again, ConfigurationError when the user is refused or the settings cannot work.
        """

    def caught_up_us(self) -> dict[Partition, int]:
        """When each partition was last known to hold nothing that `fetch` has not returned, in µs since the epoch.

        Never later than the server's last answer. 0: it holds more, or nothing is known.
        """

    @property
    def away(self) -> str | None:
        """Which endpoint does not answer now, in one sentence; None when all do."""

    def close(self) -> None:
        """Close all connections."""


class SourcePositions(NamedTuple):
    """Where each store goes on with a source, as the driver keeps it."""

    identity: Any
    """The topics (ids) or the stream that the positions belong to, as JSON; None before the first `refreshed`."""
    stores: dict[str, dict[Partition, Position]]
    """By store and partition; a store without positions begins by the source's `starting`."""


def open_feed(config: SourceConfig, checkpoint: str) -> Feed:
    """Open a feed that follows nothing yet; `checkpoint` is named in the hint when the stream has lost what was to be read.

    Raises ConfigurationError when the settings cannot work. Nothing is connected before `fetch`.
    """
    match config:
        case KafkaSourceConfig():
            from sources.kafka.feed import KafkaFeed

            return KafkaFeed(config, checkpoint)
        case KinesisSourceConfig():
            from sources.kinesis.feed import KinesisFeed

            return KinesisFeed(config.access(checkpoint), config.fetch_interval_ms, config.consumer)
        case FilesSourceConfig():
            raise _no_feed(config)
        case _:
            assert_never(config)


def refreshed(config: SourceConfig, checkpoint: str, known: SourcePositions) -> SourcePositions:
    """Ask the source for its partitions now; calling it again changes nothing.

    A store without positions begins by `starting`; a new partition begins with its first record; one that the
    configuration names no more is dropped. Raises SourceGoneError when a topic or stream was deleted or made again
    (`checkpoint` is named in the hint), UnavailableError when the source does not answer.
    """
    match config:
        case KafkaSourceConfig():
            return kafka_partitions.refreshed(config, checkpoint, known)
        case KinesisSourceConfig():
            return kinesis_shards.refreshed(config, checkpoint, known)
        case FilesSourceConfig():
            raise _no_feed(config)
        case _:
            assert_never(config)


def _no_feed(config: FilesSourceConfig) -> NotImplementedError:
    return NotImplementedError(f"source {config.name!r}: files are read in micro-batches alone, never by a reader")
