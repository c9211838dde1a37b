"""Clients of Kafka's brokers (confluent-kafka over librdkafka), opened and their errors translated in this one place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from schemas.errors import ConfigurationError, UnavailableError
from sources.kafka_iam import token_source
from sources.kafka_options import connection_options, iam_login

_DEFAULTS: dict[str, Any] = {
    "client.id": "ragstream",
    "reconnect.backoff.max.ms": 1_000,  # a broker that is back is found within a second
    "socket.keepalive.enable": True,
    "socket.timeout.ms": 30_000,  # Kafka's own `request.timeout.ms`
    "log_level": 0,  # what is wrong reaches us as errors; its own lines on stderr would belong to nobody
}
_REFUSALS = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)


class Brokers:
    """The brokers of one cluster as one user sees them, and what they said last that no answer carries."""

    def __init__(self, bootstrap_servers: str, options: Mapping[str, str]) -> None:
        """Keep how to reach them; nothing is connected. Raises ConfigurationError when a token cannot be signed."""
        self.servers = bootstrap_servers
        self.refusal: KafkaError | None = None
        self._settings: dict[str, Any] = (
            _DEFAULTS
            | connection_options(options)
            | {"bootstrap.servers": bootstrap_servers, "error_cb": self._complained}
        )
        login = iam_login(bootstrap_servers, options)
        if login is not None:
            self._settings["oauth_cb"] = token_source(login)

    def consumer(self, settings: Mapping[str, Any]) -> Consumer:
        """Open a consumer; raises ConfigurationError for a setting that cannot be."""
        with self._opening():
            return Consumer({**self._settings, **settings})

    def admin(self) -> AdminClient:
        """Open a client that asks about topics; raises ConfigurationError for a setting that cannot be."""
        with self._opening():
            return AdminClient(self._settings)

    def refused(self, error: KafkaError) -> ConfigurationError:
        """Say that this user, or this certificate, is not let in."""
        return ConfigurationError(
            f"Kafka at {self.servers} refuses this user, or is not what it should be ({_reason(error)}).",
            condition="SOURCE_KAFKA_REFUSED",
            hint="Correct `options` under `source` (kafka.sasl.*, kafka.ssl.*), or grant the user the right to describe and"
            " read the topics.",
        )

    def unreachable(self, error: KafkaError) -> UnavailableError:
        """Say that no broker answers."""
        return UnavailableError(
            f"Kafka at {self.servers} does not answer ({error.name()}).",
            condition="SOURCE_KAFKA_UNREACHABLE",
            hint="Check `bootstrap_servers` under `source`, the brokers and the network between (`ragstream stack status`).",
        )

    @contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            yield
        except (KafkaException, ValueError, TypeError) as error:
            detail = error.args[0] if error.args else error
            text = detail.str() if isinstance(detail, KafkaError) else type(error).__name__
            raise ConfigurationError(
                f"Kafka's client cannot be opened with these options: {text}.",
                condition="SOURCE_KAFKA_OPTIONS",
                hint="Correct `options` under `source`; librdkafka's names in this message are explained in docs.",
            ) from None

    def _complained(self, error: KafkaError) -> None:
        if is_refusal(error):
            self.refusal = error


def is_refusal(error: KafkaError) -> bool:
    """Whether an error will not go away by waiting."""
    return error.code() in _REFUSALS


def _reason(error: KafkaError) -> str:
    """The broker's or OpenSSL's reason; of an address and the client's state, which librdkafka adds, nothing."""
    return f"{error.name()}: {error.str()}"
