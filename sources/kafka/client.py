"""Clients of Kafka's brokers (confluent-kafka over librdkafka), and the translation of their errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from schemas.errors import ConfigurationError, UnavailableError
from sources.kafka.iam import token_source
from sources.kafka.options import connection_options, fetch_options, iam_login

_DEFAULTS: dict[str, Any] = {
    "client.id": "ragstream",
    "reconnect.backoff.max.ms": 1_000,  # a broker that is back is connected to within a second
    "socket.keepalive.enable": True,
    "socket.timeout.ms": 30_000,  # Kafka's own `request.timeout.ms`
    "log_level": 0,  # errors reach us by callbacks; its own lines on stderr would reach no log
}
_WITHOUT_RIGHT = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})
_REFUSALS = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        *_WITHOUT_RIGHT,
    }
)
_UNVERIFIED = "certificate verify failed"
_TLS_ALERT = re.compile(r"alert (?:[\w ]*certificate|unknown ca|access denied|handshake failure)")
"""A broker's TLS alert about a client's certificate (OpenSSL's texts for RFC 8446, 6.2): to librdkafka a lost connection."""
_ADVICE = re.compile(r", verify that .*| \(after \d+ms in state \w+\)")


class Brokers:
    """The brokers of one cluster for one user, and their last refusal, which no answer to a request carries."""

    def __init__(self, bootstrap_servers: str, options: Mapping[str, str]) -> None:
        """Keep how to reach them; nothing is connected. Raises ConfigurationError when a token cannot be signed."""
        self.servers = bootstrap_servers
        self.refusal: KafkaError | None = None
        self.is_known = False
        """Whether this user has been accepted before."""
        self._settings: dict[str, Any] = (
            _DEFAULTS
            | connection_options(options)
            | {"bootstrap.servers": bootstrap_servers, "error_cb": self._note_refusal}
        )
        login = iam_login(bootstrap_servers, options)
        self._sign = None if login is None else token_source(login)
        if self._sign is not None:
            self._settings["oauth_cb"] = self._sign

    def consumer(self, settings: Mapping[str, Any]) -> Consumer:
        """Open a consumer; raises ConfigurationError for a setting that cannot be, UnavailableError without a token."""
        with self._opening():
            return Consumer({**self._settings, **settings})

    def admin(self) -> AdminClient:
        """Open a client that asks about topics; raises as `consumer` does."""
        with self._opening():
            return AdminClient(self._settings)

    def refused(self, error: KafkaError) -> ConfigurationError:
        """The error for a user or a certificate that is not accepted, with the option that mends it."""
        return ConfigurationError(
            f"Kafka at {self.servers} refuses this user, or is not what it should be ({_reason(error)}).",
            condition="SOURCE_KAFKA_REFUSED",
            hint=_mend(error),
        )

    def unreachable(self, error: KafkaError) -> UnavailableError:
        """The error for brokers that do not answer."""
        return UnavailableError(
            f"Kafka at {self.servers} does not answer ({error.name()}).",
            condition="SOURCE_KAFKA_UNREACHABLE",
            hint="Check `bootstrap_servers` under `source`, that `kafka.security.protocol` is the one of this port, the brokers"
            " and the network between (`ragstream stack status`).",
        )

    @contextmanager
    def _opening(self) -> Iterator[None]:
        if self._sign is not None:
            self._sign(None)  # without a first token the client waits for ten seconds, without a reason
        try:
            yield
        except (KafkaException, ValueError, TypeError) as error:
            detail = error.args[0] if error.args else error
            text = detail.str() if isinstance(detail, KafkaError) else type(error).__name__
            raise ConfigurationError(
                f"Kafka's client cannot be opened with these options: {text}.",
                condition="SOURCE_KAFKA_OPTIONS",
                hint="Correct `options` under `source`. In librdkafka's words `ssl.ca` is `kafka.ssl.truststore.*`;"
                " `ssl.certificate` and `ssl.key` are `kafka.ssl.keystore.*`, which must be readable PEM, with"
                " `kafka.ssl.key.password`.",
            ) from None

    def _note_refusal(self, error: KafkaError) -> None:
        if is_refusal(error):
            self.refusal = error


def isolation_of(options: Mapping[str, str]) -> IsolationLevel:
    """The isolation level of the options; committed records alone by default."""
    level = fetch_options(options).get("isolation.level", "read_committed")
    return IsolationLevel.READ_UNCOMMITTED if level.lower() == "read_uncommitted" else IsolationLevel.READ_COMMITTED


def is_refusal(error: KafkaError) -> bool:
    """Whether waiting does not mend an error."""
    return error.code() in _REFUSALS or _TLS_ALERT.search(error.str()) is not None


def _mend(error: KafkaError) -> str:
    if error.code() in _WITHOUT_RIGHT:
        return (
            "Grant the user READ (which holds DESCRIBE) on the topics; where IAM lets in, grant the role"
            " kafka-cluster:DescribeTopic and kafka-cluster:ReadData."
        )
    if _UNVERIFIED in error.str():
        return (
            "Set `kafka.ssl.truststore.location` (with `kafka.ssl.truststore.type: PEM`) to the authority that signed the"
            " brokers' certificate, and name the brokers in `bootstrap_servers` as their certificate does."
        )
    if _TLS_ALERT.search(error.str()) is not None:
        return (
            "Set `kafka.ssl.keystore.location` (with `kafka.ssl.keystore.type: PEM`) to a key and a certificate that an"
            " authority known to the brokers has signed."
        )
    return (
        "Correct `kafka.security.protocol`, `kafka.sasl.mechanism` and `kafka.sasl.jaas.config` (or `kafka.ssl.*`) in `options`"
        " under `source`; where IAM lets in, grant the job's role kafka-cluster:Connect."
    )


def _reason(error: KafkaError) -> str:
    """The broker's or OpenSSL's reason, without what librdkafka adds of its state and its own options."""
    return f"{error.name()}: {_ADVICE.sub('', error.str())}"
