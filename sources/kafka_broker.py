"""What the brokers say about their topics, asked without Spark.

kafka-python is used because `ragstream check` must answer before a JVM is up, because it is pure Python and kept, and
because it speaks MSK's IAM mechanism. It takes its security settings from the same `kafka.*` options as Spark's source.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from schemas.errors import ConfigurationError, UnavailableError

TIMEOUT_MS = 5_000
"""How long the brokers may take to answer, in milliseconds."""

_PASSED = {
    "kafka.security.protocol": "security_protocol",
    "kafka.sasl.mechanism": "sasl_mechanism",
    "kafka.ssl.truststore.location": "ssl_cafile",
}
_JAAS_CREDENTIAL = re.compile(r'\b(username|password)\s*=\s*"((?:[^"\\]|\\.)*)"')


class Topic(NamedTuple):
    """A topic as its broker knows it; the id changes when the topic is made again."""

    name: str
    topic_id: str
    partitions: int


def topics_of(bootstrap_servers: str, options: Mapping[str, str]) -> dict[str, Topic]:
    """List the cluster's topics that this user may see.

    Raises UnavailableError when no broker answers, ConfigurationError when they refuse this user.
    """
    with _administering(bootstrap_servers, options) as client:
        described = client.describe_topics()
    topics = (_topic(entry) for entry in described if not entry.get("is_internal"))
    return {topic.name: topic for topic in topics}


def ends_of(
    topics: Collection[Topic], bootstrap_servers: str, options: Mapping[str, str]
) -> dict[tuple[str, int], int]:
    """The offset after the last committed record of each partition; raises as `topics_of` does."""
    return _offsets(topics, bootstrap_servers, options, "LATEST")


def starts_of(
    topics: Collection[Topic], bootstrap_servers: str, options: Mapping[str, str]
) -> dict[tuple[str, int], int]:
    """The offset of the first record that each partition still holds; raises as `topics_of` does."""
    return _offsets(topics, bootstrap_servers, options, "EARLIEST")


def client_options(options: Mapping[str, str]) -> dict[str, Any]:
    """Translate Spark's `kafka.*` security options; what is no security setting is left out.

    Raises ConfigurationError for a Java key store, which only a JVM can open.
    """
    lowered = {name.lower(): value for name, value in options.items()}
    translated: dict[str, Any] = {ours: lowered[theirs] for theirs, ours in _PASSED.items() if theirs in lowered}
    for theirs in ("kafka.ssl.truststore.location", "kafka.ssl.keystore.location"):
        if theirs in lowered and lowered.get(theirs.replace("location", "type"), "JKS").upper() != "PEM":
            raise ConfigurationError(
                f"option {theirs}: only PEM files can be read here, not Java key stores.",
                condition="SOURCE_KAFKA_KEYSTORE",
                hint=f"Convert it to PEM and set {theirs.replace('location', 'type')}: PEM; Spark reads that as well.",
            )
    if "kafka.ssl.keystore.location" in lowered:
        translated["ssl_certfile"] = translated["ssl_keyfile"] = lowered["kafka.ssl.keystore.location"]
    if lowered.get("kafka.ssl.endpoint.identification.algorithm") == "":
        translated["ssl_check_hostname"] = False
    for name, value in _JAAS_CREDENTIAL.findall(lowered.get("kafka.sasl.jaas.config", "")):
        translated[f"sasl_plain_{name}"] = re.sub(r"\\(.)", r"\1", value)
    return translated


def _offsets(
    topics: Collection[Topic], bootstrap_servers: str, options: Mapping[str, str], which: Literal["EARLIEST", "LATEST"]
) -> dict[tuple[str, int], int]:
    from kafka import IsolationLevel, TopicPartition
    from kafka.admin import OffsetSpec

    wanted = {TopicPartition(t.name, n): getattr(OffsetSpec, which) for t in topics for n in range(t.partitions)}
    with _administering(bootstrap_servers, options) as client:
        found = client.list_partition_offsets(wanted, IsolationLevel.READ_COMMITTED)
    return {(at.topic, at.partition): told.offset for at, told in found.items()}


def _topic(entry: Mapping[str, Any]) -> Topic:
    return Topic(str(entry["name"]), str(entry["topic_id"]), len(entry["partitions"]))


@contextmanager
def _administering(bootstrap_servers: str, options: Mapping[str, str]) -> Iterator[Any]:
    """A client of the brokers, for a moment."""
    # Imported here: the runner's workers import this package and need no Kafka client.
    from kafka import KafkaAdminClient

    with _translating(bootstrap_servers):
        client = KafkaAdminClient(
            bootstrap_servers=bootstrap_servers.split(","),
            client_id="ragstream",
            request_timeout_ms=TIMEOUT_MS,
            bootstrap_timeout_ms=TIMEOUT_MS,
            **client_options(options),
        )
        try:
            yield client
        finally:
            client.close()


@contextmanager
def _translating(bootstrap_servers: str) -> Iterator[None]:
    """Turn the client's errors into ours, without the options (they hold secrets)."""
    from kafka import errors

    try:
        yield
    except (errors.SaslAuthenticationFailedError, errors.AuthorizationError) as error:
        raise ConfigurationError(
            f"Kafka at {bootstrap_servers} refuses this user ({type(error).__name__}).",
            condition="SOURCE_KAFKA_REFUSED",
            hint="Correct `options` under `source` (kafka.sasl.*), or grant the user the right to describe the topics.",
        ) from None
    except (errors.KafkaError, OSError, ValueError) as error:
        raise UnavailableError(
            f"Kafka at {bootstrap_servers} does not answer ({type(error).__name__}).",
            condition="SOURCE_KAFKA_UNREACHABLE",
            hint="Check `bootstrap_servers` under `source`, the brokers and the network between (`ragstream stack status`).",
        ) from None
