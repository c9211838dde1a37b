"""The configuration of a Kafka source; it needs no client."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from schemas.transport import EncryptedPart, weak_brokers
from sources.captured import CapturedSource
from sources.kafka.options import refusals

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


class KafkaSourceConfig(EncryptedPart, CapturedSource):
    """Topics of a Kafka or MSK cluster."""

    type: Literal["kafka"]
    name: str = "kafka"
    """Name by which a table refers to this source."""
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


def is_selected(config: KafkaSourceConfig, name: str) -> bool:
    """Whether the configuration names a topic, there or not."""
    if config.topics_pattern is not None:
        return _compile(config.topics_pattern).fullmatch(name) is not None
    return name in (config.topics or ())


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"topics_pattern is no regular expression: {error}") from None
