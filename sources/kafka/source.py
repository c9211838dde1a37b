"""Kafka and MSK through Spark's own source, with the ids of its topics kept beside the checkpoint.

Spark's offsets name no topic id: a topic that was deleted and made again under the same name has other records at the same
offsets. So each job keeps the broker's topic ids, and refuses to go on when they change.
"""

from __future__ import annotations

import ast
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigurationError, UnavailableError
from sources.kafka.broker import Topic, ends_of, topics_of
from sources.kafka.config import is_selected

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sources.feeds import Partition, Positions
    from sources.kafka.config import KafkaSourceConfig

_DEFAULT_OPTIONS = {
    # A record of a large row must fit: Kafka returns a single oversized record anyway, but not several together.
    "kafka.max.partition.fetch.bytes": "16777216",
    # Debezium with exactly-once delivery writes transactions; a record of an aborted one never happened.
    "kafka.isolation.level": "read_committed",
    # A micro-batch has fixed ends: a fetch that waits for more bytes adds latency alone.
    "kafka.fetch.max.wait.ms": "1",
}

_EARLIEST = -2
"""Spark's number for the first offset that a partition holds (Structured Streaming + Kafka, `startingOffsets`)."""


def check(config: KafkaSourceConfig) -> None:
    """Ask the brokers for the topics with the job's own rights; raises ConfigurationError when one is missing or refused."""
    from sources.kafka.feed import KafkaFeed

    try:
        selected_topics(config, topics_there(config))
    except UnavailableError as error:
        raise ConfigurationError(error.message, condition=error.condition, hint=error.hint) from None
    KafkaFeed(config, config.name).close()  # raises for options that readers refuse


def topics_there(config: KafkaSourceConfig) -> dict[str, Topic]:
    """Ask the brokers for the topics that the configuration names; raises as `topics_of` does."""
    return topics_of(config.bootstrap_servers, config.options, lambda name: is_selected(config, name))


def selected_topics(config: KafkaSourceConfig, topics: Mapping[str, Topic]) -> dict[str, Topic]:
    """The topics that the configuration names; raises ConfigurationError for a name that no topic has."""
    if config.topics_pattern is not None:
        matching = {name: topic for name, topic in topics.items() if is_selected(config, name)}
        if not matching:
            raise _missing(config, f"no topic matches {config.topics_pattern!r}")
        return matching
    missing = sorted(set(config.topics or ()) - set(topics))
    if missing:
        raise _missing(config, f"no topic {', '.join(missing)}")
    return {name: topics[name] for name in config.topics or ()}


@dataclass(frozen=True)
class BrokerProbe:
    """Asks the brokers which partitions hold more than a query has reached; Spark reports that of all together at best."""

    config: KafkaSourceConfig

    def caught_up_us(self, progress: Mapping[str, Any] | None) -> Mapping[str, int] | None:
        """Now, for a partition that holds no more; None while no broker answers."""
        if progress is None:
            return None
        config, now_us = self.config, time.time_ns() // 1000
        with contextlib.suppress(UnavailableError):
            topics = selected_topics(config, topics_there(config))
            ends = ends_of(topics.values(), config.bootstrap_servers, config.options)
            reached = _offsets(progress["sources"][0]["endOffset"])
            return {place: now_us if reached.get(place, 0) >= end else 0 for place, end in ends.items()}
        return None


def read_stream(spark: SparkSession, config: KafkaSourceConfig, *, starts: Positions | None = None) -> DataFrame:
    """Read the topics as a stream of records; without a checkpoint from `starts`, else by `starting`.

    Spark fixes a batch's offsets before it runs, so a batch run again holds the same records. Offsets that are gone stop
    the query (`failOnDataLoss`).
    """
    reader = (
        spark.readStream.format("kafka")
        .options(**(_DEFAULT_OPTIONS | config.options))
        .option("kafka.bootstrap.servers", config.bootstrap_servers)
        .option("startingOffsets", config.starting if starts is None else _starting_offsets(config, starts))
        .option("includeHeaders", "true")
        .option("failOnDataLoss", "true")
    )
    if config.topics_pattern is not None:
        reader = reader.option("subscribePattern", config.topics_pattern)
    else:
        reader = reader.option("subscribe", ",".join(config.topics or ()))
    if config.max_offsets_per_trigger is not None:
        reader = reader.option("maxOffsetsPerTrigger", config.max_offsets_per_trigger)
    return reader.load().selectExpr(
        "topic as stream",
        "cast(partition as string) as partition",
        "cast(offset as string) as position",
        "key",
        "value",
        "headers",
        "timestamp",
    )


def _starting_offsets(config: KafkaSourceConfig, starts: Positions) -> str:
    """Spark's option: the offset of every partition, that of the first record for one that is not in `starts`."""
    topics = selected_topics(config, topics_there(config)).values()
    offsets = {
        topic.name: {str(n): starts.get(f"{topic.name}/{n}", _EARLIEST) for n in range(topic.partitions)}
        for topic in topics
    }
    return json.dumps(offsets)


def _offsets(text: str | None) -> dict[Partition, int]:
    """By partition, the offsets in PySpark's report: a JSON object as Python prints it."""
    offsets = ast.literal_eval(text) or {} if text else {}
    return {f"{topic}/{number}": int(at) for topic, by_number in offsets.items() for number, at in by_number.items()}


def _missing(config: KafkaSourceConfig, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"source {config.name!r}: {what} on {config.bootstrap_servers}.",
        condition="SOURCE_TOPIC_MISSING",
        hint="Start the capture first (`ragstream capture CONFIG --apply`), or correct `topics` under `source`. A topic also"
        " stays hidden from a user without the right to describe it.",
    )
