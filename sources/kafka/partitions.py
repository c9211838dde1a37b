"""The partitions that readers read of a Kafka cluster, and where each store begins."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from sources.kafka.broker import ends_of, starts_of
from sources.kafka.source import selected_topics
from sources.kafka.topic_identity import unchanged_topics

if TYPE_CHECKING:
    from sources.feeds import Partition, Position, SourcePositions
    from sources.kafka.config import KafkaSourceConfig


def refreshed(config: KafkaSourceConfig, checkpoint: str, known: SourcePositions) -> SourcePositions:
    """See `sources.feeds.refreshed`; the identity is `{"topics": {name: id}}`, as beside a plain query's checkpoint."""
    known_ids = (known.identity or {"topics": {}})["topics"]
    topics = selected_topics(config, unchanged_topics(config, known_ids, checkpoint))
    partitions = [f"{topic.name}/{number}" for topic in topics.values() for number in range(topic.partitions)]

    @cache
    def limits(*, ends: bool) -> dict[Partition, int]:
        return (ends_of if ends else starts_of)(topics.values(), config.bootstrap_servers, config.options)

    def extended(positions: dict[Partition, Position]) -> dict[Partition, Position]:
        # A partition that came later begins with its first record, whatever `starting` says.
        at_end = not positions and config.starting == "latest"
        return {name: positions[name] if name in positions else limits(ends=at_end)[name] for name in partitions}

    ids = {name: topic.topic_id for name, topic in topics.items()}
    return known._replace(identity={"topics": ids}, stores={store: extended(at) for store, at in known.stores.items()})
