"""The shards that readers read of a Kinesis stream, and where each store begins."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from sources.kinesis.client import Stream
from sources.kinesis.loss import refuse_another
from sources.kinesis.offsets import Identity, Mark, Offset, first_offset, with_children

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sources.feeds import Partition, Position, Positions, SourcePositions
    from sources.kinesis.config import KinesisSourceConfig


def refreshed(config: KinesisSourceConfig, checkpoint: str, known: SourcePositions) -> SourcePositions:
    """See `sources.feeds.refreshed`; the identity is the stream's ARN and when it was made, in milliseconds.

    A store reads a shard's children once it has the shard's end; a closed shard is dropped when the stream lists it no more.
    """
    stream = Stream(config.access(checkpoint))
    try:
        summary = stream.summary()
        if known.identity is not None:
            refuse_another(stream, summary, Identity(*known.identity))
        listed, now_ms = stream.shards(), int(time.time() * 1000)
    finally:
        stream.close()

    def extended(positions: Positions) -> dict[Partition, Position]:
        if not positions:
            return by_partition(config, first_offset(summary.identity, listed, config.origin(now_ms), now_ms).shards)
        offset = Offset(summary.identity, marks(config, positions))
        return by_partition(config, with_children(offset, listed).shards)

    stores = {store: extended(positions) for store, positions in known.stores.items()}
    return known._replace(identity=list(summary.identity), stores=stores)


def marks(config: KinesisSourceConfig, positions: Positions) -> dict[str, Mark]:
    """Positions as marks by shard; those of another stream are left out."""
    split = ((partition.rpartition("/"), position) for partition, position in positions.items())
    return {shard_id: Mark(**position) for (stream, _, shard_id), position in split if stream == config.stream}


def by_partition(config: KinesisSourceConfig, shards: Mapping[str, Mark]) -> dict[Partition, Position]:
    """Marks by shard as positions."""
    return {f"{config.stream}/{shard_id}": asdict(mark) for shard_id, mark in shards.items()}
