"""Positions of a query and ends of its source as numbers, one a partition.

A place is `stream/partition` (Kafka: the offset of the next record; Kinesis: the sequence number of the last one read) or,
of recorded events, a file (the byte reached). The numbers of one place only grow, so two of them can be compared.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from sources.files.config import FilesSourceConfig, paths_by_mark
from sources.kafka import source as kafka
from sources.kafka.broker import ends_of
from sources.kafka.config import KafkaSourceConfig, is_selected
from sources.kinesis.client import Stream, ThrottledError
from sources.kinesis.config import KinesisSourceConfig
from sources.kinesis.offsets import TRIM_HORIZON, Mark

if TYPE_CHECKING:
    from sources import SourceConfig
    from sources.feeds import Partition, Position

type Positions = Mapping[str, int]

_MOST_PAGES = 100
"""Pages of a shard that are read to find its end; a query that is further behind is behind for long anyway."""
_BEYOND = 10**60
"""More than any sequence number: of a shard whose end was not reached."""
_PAUSE_S = 0.25
"""Between two reads of a shard that Kinesis throttles: it allows five a second to all readers."""


def of_offset(config: SourceConfig, offset: Mapping[str, Any]) -> Positions:
    """The numbers in an offset that Spark keeps for a query of this source."""
    return as_numbers(positions_in(config, offset))


def positions_in(config: SourceConfig, offset: Mapping[str, Any]) -> dict[Partition, Position]:
    """The positions in an offset that Spark keeps for a query of this source: a feed goes on there.

    An open batch of Kinesis, whose offset says where it begins, is read again from there.
    """
    match config:
        case KafkaSourceConfig():
            return {f"{topic}/{number}": at for topic, offsets in offset.items() for number, at in offsets.items()}
        case KinesisSourceConfig():
            return {f"{config.stream}/{shard_id}": mark for shard_id, mark in offset["shards"].items()}
        case FilesSourceConfig():
            return dict(offset)
        case _:
            assert_never(config)


def as_number(position: Position) -> int:
    """A position as a number that only grows in its partition: Kafka's offset, or the sequence number last read (0: none)."""
    return position if isinstance(position, int) else int(Mark(**position).after or 0)


def as_numbers(positions: Mapping[Partition, Position]) -> dict[Partition, int]:
    """Each position as a number."""
    return {partition: as_number(position) for partition, position in positions.items()}


def earlier(one: Position, other: Position) -> Position:
    """The position from which more is read; of two Kinesis marks at one record, that of a shard not known to be closed."""
    return min(one, other, key=_rank)


def ends(config: SourceConfig, read: Positions) -> Positions:
    """The end of each partition now: no query has read beyond it.

    `read` is how far some query came: a shard of Kinesis, which reports no end, is read from there to its end.
    Raises what reading raises when the source does not answer.
    """
    match config:
        case KafkaSourceConfig():
            topics = kafka.selected_topics(config, kafka.topics_there(config))
            return ends_of(topics.values(), config.bootstrap_servers, config.options)
        case KinesisSourceConfig():
            stream = Stream(config.access())
            places = {shard_id: f"{config.stream}/{shard_id}" for shard_id in stream.shards()}
            return {place: _end_of_shard(stream, shard_id, read.get(place, 0)) for shard_id, place in places.items()}
        case FilesSourceConfig():
            return {mark: _size(path) for mark, path in paths_by_mark(config).items()}
        case _:
            assert_never(config)


def records_after(config: SourceConfig, read: Positions) -> int | None:
    """How many records the partitions with these positions hold after them; None for a source that does not say.

    An upper bound, as not every offset has a record. Raises what `ends` raises.
    """
    match config:
        case KafkaSourceConfig():
            return sum(max(0, end - read.get(place, end)) for place, end in ends(config, read).items())
        case KinesisSourceConfig() | FilesSourceConfig():
            return None
        case _:
            assert_never(config)


def behind(config: SourceConfig, read: Positions, wanted: Positions) -> list[str]:
    """The places where a query is behind `wanted`, of those that the configuration still names."""
    return sorted(place for place, at in wanted.items() if is_read(config, place) and read.get(place, 0) < at)


def _rank(position: Position) -> tuple[int, bool, int]:
    if isinstance(position, int):
        return position, False, 0
    mark = Mark(**position)
    return as_number(position), mark.closed, mark.origin_ms or 0


def is_read(config: SourceConfig, place: str) -> bool:
    """Whether the configuration still names the place."""
    stream = place.rpartition("/")[0]
    match config:
        case KafkaSourceConfig():
            return is_selected(config, stream)
        case KinesisSourceConfig():
            return stream == config.stream
        case FilesSourceConfig():
            return place in paths_by_mark(config)
        case _:
            assert_never(config)


def _end_of_shard(stream: Stream, shard_id: str, read: int) -> int:
    """The last sequence number of a shard, by reading on from one; `_BEYOND` after `_MOST_PAGES`."""
    iterator: str | None = stream.iterator(shard_id, Mark(TRIM_HORIZON, sequence=str(read) if read else ""))
    for _ in range(_MOST_PAGES):
        assert iterator is not None  # noqa: S101 - of a closed shard this returns below
        try:
            page = stream.fetch(shard_id, iterator)
        except ThrottledError:
            time.sleep(_PAUSE_S)
            continue
        read = int(page.records[-1].sequence) if page.records else read
        iterator = page.next_iterator
        if iterator is None or not page.behind_ms:
            return read
    return _BEYOND


def _size(path: str) -> int:
    return Path(path).stat().st_size if Path(path).exists() else 0
