"""Kafka and MSK through Spark's own source, with the identity of its topics remembered beside the checkpoint.

Spark's offsets say how far a topic was read, not which topic: one that was deleted and made again under the same name
has other records at the same offsets. So each job remembers the broker's topic ids and refuses to go on when they change.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from schemas.errors import ConfigurationError, UnavailableError
from schemas.transport import EncryptedPart, weak_brokers
from sources.kafka.broker import Topic, ends_of, topics_of
from sources.kafka.options import refusals

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sources.feeds import Positions

_DEFAULT_OPTIONS = {
    # A record of a large row must fit: Kafka gives a single oversized record anyway, but not several side by side.
    "kafka.max.partition.fetch.bytes": "16777216",
    # Debezium with exactly-once delivery writes transactions; a record of an aborted one never happened.
    "kafka.isolation.level": "read_committed",
    # A micro-batch knows how far it reads: a fetch that waits for a byte more is latency.
    "kafka.fetch.max.wait.ms": "1",
}

_EARLIEST = -2
"""Spark's number for the first offset that a partition holds (Structured Streaming + Kafka, `startingOffsets`)."""

_OWNED_OPTIONS = frozenset(
    {
        "kafka.bootstrap.servers",
        "subscribe",
        "subscribepattern",
        "assign",
        "startingoffsets",
        "failondataloss",
        "includeheaders",
        "startingtimestamp",
        "startingoffsetsbytimestamp",
        "startingoffsetsbytimestampstrategy",
    }
)


class KafkaSourceConfig(EncryptedPart):
    """Topics of a Kafka or MSK cluster."""

    type: Literal["kafka"]
    name: str = "kafka"
    """Name by which a table refers to this source."""
    envelope: Literal["debezium", "dms"]
    """Who captured the changes."""
    bootstrap_servers: str = Field(min_length=1)
    """`host:port`, several separated by commas."""
    topics: list[str] | None = Field(default=None, min_length=1)
    """Topics to read; or give `topics_pattern`."""
    topics_pattern: str | None = None
    """Regular expression (Java's) that a topic's whole name must match."""
    starting: Literal["earliest", "latest"] = "earliest"
    """Where a job without a checkpoint begins."""
    max_offsets_per_trigger: int | None = Field(default=None, ge=1)
    """Most records in a micro-batch over all partitions; unlimited when absent."""
    options: dict[str, str] = Field(default_factory=dict, repr=False)
    """Options as Spark's Kafka source takes them, Kafka's own with the prefix `kafka.`. Readers get what has a meaning for
    them, translated (sources/kafka/options.py): `kafka.security.protocol`; `kafka.sasl.mechanism` PLAIN, SCRAM-SHA-256,
    SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM with `kafka.sasl.jaas.config`; `kafka.ssl.truststore.*` and `kafka.ssl.keystore.*`
    of type PEM, as a file or inline (`.certificates`, `.certificate.chain`, `.key`), `kafka.ssl.key.password`; `kafka.fetch.*`,
    `kafka.max.partition.fetch.bytes`, `kafka.isolation.level`, `kafka.client.id`, `kafka.client.rack`, timeouts and buffers.
    What only a JVM or a consumer group could use goes to micro-batches alone; what neither can use is refused. For MSK with
    IAM: `kafka.security.protocol: SASL_SSL`, `kafka.sasl.mechanism: AWS_MSK_IAM`; where micro-batches read as well, also
    `kafka.sasl.jaas.config: software.amazon.msk.auth.iam.IAMLoginModule required;`,
    `kafka.sasl.client.callback.handler.class: software.amazon.msk.auth.iam.IAMClientCallbackHandler`, and the jar
    aws-msk-iam-auth on the job's class path."""

    @model_validator(mode="after")
    def _one_way_to_name_topics(self) -> KafkaSourceConfig:
        if (self.topics is None) == (self.topics_pattern is None):
            raise ValueError("give either topics or topics_pattern")
        if self.topics_pattern is not None:
            _compile(self.topics_pattern)
        for option in self.options:
            if option.lower() in _OWNED_OPTIONS:
                raise ValueError(f"option {option!r} is set by this source itself")
        for refusal in refusals(self.options):
            raise ValueError(refusal)
        return self

    def weaknesses(self) -> Iterator[str]:
        """Tell brokers of another machine that are spoken to without TLS, or not verified."""
        return weak_brokers("bootstrap_servers", self.bootstrap_servers, self.options)


def check(config: KafkaSourceConfig) -> None:
    """Ask the brokers for the topics with the job's own rights; raises ConfigurationError when they are not to be had."""
    from sources.kafka.feed import KafkaFeed

    try:
        selected_topics(config, topics_there(config))
    except UnavailableError as error:
        raise ConfigurationError(error.message, condition=error.condition, hint=error.hint) from None
    KafkaFeed(config, config.name).close()  # what readers would refuse is said here


def is_selected(config: KafkaSourceConfig, name: str) -> bool:
    """Whether the configuration names a topic, there or not."""
    if config.topics_pattern is not None:
        return _compile(config.topics_pattern).fullmatch(name) is not None
    return name in (config.topics or ())


def topics_there(config: KafkaSourceConfig) -> dict[str, Topic]:
    """Ask the brokers for the topics that the configuration names; raises as `topics_of` does."""
    return topics_of(config.bootstrap_servers, config.options, lambda name: is_selected(config, name))


def selected_topics(config: KafkaSourceConfig, found: Mapping[str, Topic]) -> dict[str, Topic]:
    """Keep the topics the configuration names; raises ConfigurationError for a name no topic has."""
    if config.topics_pattern is not None:
        matching = {name: topic for name, topic in found.items() if is_selected(config, name)}
        if not matching:
            raise _missing(config, f"no topic matches {config.topics_pattern!r}")
        return matching
    missing = sorted(set(config.topics or ()) - set(found))
    if missing:
        raise _missing(config, f"no topic {', '.join(missing)}")
    return {name: found[name] for name in config.topics or ()}


def partitions(config: KafkaSourceConfig) -> int:
    """How many partitions the topics have now; raises UnavailableError when no broker answers."""
    return sum(topic.partitions for topic in selected_topics(config, topics_there(config)).values())


@dataclass(frozen=True)
class BrokerNote:
    """Asks the brokers which partitions hold more than a query has reached: Spark tells that of none, or of all together."""

    config: KafkaSourceConfig

    def empty_us(self, progress: Mapping[str, Any] | None) -> Mapping[str, int] | None:
        """Now, of a partition that holds no more; None while they do not answer."""
        if progress is None:
            return None
        config, now_us = self.config, time.time_ns() // 1000
        with contextlib.suppress(UnavailableError):
            topics = selected_topics(config, topics_there(config))
            ends = ends_of(topics.values(), config.bootstrap_servers, config.options)
            reached = _offsets(progress["sources"][0]["endOffset"])
            return {
                f"{topic}/{number}": now_us if int(reached.get(topic, {}).get(str(number), 0)) >= end else 0
                for (topic, number), end in ends.items()
            }
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
    """Write offsets as Spark's option has them: every partition there is, one that is not in `starts` from what it holds."""
    topics = selected_topics(config, topics_there(config)).values()
    offsets = {
        topic.name: {str(n): starts.get(f"{topic.name}/{n}", _EARLIEST) for n in range(topic.partitions)}
        for topic in topics
    }
    return json.dumps(offsets)


def _offsets(told: str | None) -> Mapping[str, Any]:
    """Offsets by topic and partition: PySpark's report holds the JSON object as Python prints it."""
    return ast.literal_eval(told) or {} if told else {}


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"topics_pattern is no regular expression: {error}") from None


def _missing(config: KafkaSourceConfig, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"source {config.name!r}: {what} on {config.bootstrap_servers}.",
        condition="SOURCE_TOPIC_MISSING",
        hint="Start the capture first (`ragstream capture CONFIG --apply`), or correct `topics` under `source`. A topic also"
        " stays hidden from a user without the right to describe it.",
    )
