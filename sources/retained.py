"""Whether a stream still retains the records after a position."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, assert_never

from schemas.errors import SourceGoneError
from sources.files.config import FilesSourceConfig
from sources.kafka.broker import starts_of
from sources.kafka.config import KafkaSourceConfig
from sources.kafka.source import selected_topics, topics_there
from sources.kinesis.client import Stream
from sources.kinesis.config import KinesisSourceConfig
from sources.kinesis.loss import confirm_kept
from sources.kinesis.offsets import Mark

if TYPE_CHECKING:
    from sources import SourceConfig

type Holds = Callable[[str, Any], bool]
"""Whether all records of a partition from a position on are still there."""


def holds(config: SourceConfig) -> Holds:
    """Ask a source what it retains; raises UnavailableError when it does not answer.

    The answer holds for this moment: a record may expire before it is read.
    """
    match config:
        case KafkaSourceConfig():
            topics = selected_topics(config, topics_there(config))
            first = starts_of(topics.values(), config.bootstrap_servers, config.options)
            return lambda partition, position: position >= first.get(partition, 0)
        case KinesisSourceConfig():
            stream = Stream(config.access())
            retention_ms = stream.summary().retention_ms
            return lambda partition, position: _holds_shard(stream, partition, position, retention_ms)
        case FilesSourceConfig():
            return lambda _partition, _position: True
        case _:
            assert_never(config)


def _holds_shard(stream: Stream, partition: str, position: Mapping[str, Any], retention_ms: int) -> bool:
    mark = Mark(**position)
    try:
        if not mark.closed:
            confirm_kept(stream, partition.rpartition("/")[2], mark, retention_ms)
    except SourceGoneError:
        return False
    return True
