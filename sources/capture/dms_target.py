"""The target endpoint of a DMS task: a Kinesis stream, or a topic of Kafka. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SecretStr, model_validator

from schemas.model import StrictModel
from schemas.transport import weakness
from sources.capture.target import WITHHELD

if TYPE_CHECKING:
    from sources.capture.dms import DmsCaptureConfig

_LEAST_MESSAGE_BYTES = 1_000_000
"""The default of MessageMaxBytes."""


class DmsKafkaConfig(StrictModel):
    """The topic that DMS writes to, and how it signs in: by SCRAM or a client certificate; DMS has no IAM for MSK."""

    broker: str = Field(min_length=1)
    """`host:port`, several separated by commas."""
    topic: str = Field(min_length=1)
    """The topic of all tables of the task."""
    security_protocol: Literal["sasl-ssl", "ssl-authentication", "ssl-encryption", "plaintext"] = "sasl-ssl"
    """How the brokers are reached."""
    sasl_username: str | None = None
    """User, with `sasl-ssl` (SCRAM-SHA-512)."""
    sasl_password: SecretStr | None = None
    """Its password."""
    ca_certificate_arn: str | None = None
    """An authority in DMS that signed the brokers' certificates, where it is not a public one."""
    client_certificate_arn: str | None = None
    """The client's certificate in DMS, with `ssl-authentication`."""
    client_key_arn: str | None = None
    """Its private key."""

    @model_validator(mode="after")
    def _can_sign_in(self) -> DmsKafkaConfig:
        needed: dict[str, dict[str, object]] = {
            "sasl-ssl": {"sasl_username": self.sasl_username, "sasl_password": self.sasl_password},
            "ssl-authentication": {
                "client_certificate_arn": self.client_certificate_arn,
                "client_key_arn": self.client_key_arn,
            },
        }
        if missing := [name for name, value in needed.get(self.security_protocol, {}).items() if not value]:
            raise ValueError(f"{self.security_protocol} needs {' and '.join(missing)}")
        return self

    def weaknesses(self) -> Iterator[str]:
        """Brokers that are reached without encryption."""
        if self.security_protocol == "plaintext":
            yield weakness("kafka.security_protocol", "say sasl-ssl, ssl-authentication or ssl-encryption")


def target_settings(config: DmsCaptureConfig, *, reveal: bool = False) -> dict[str, Any]:
    """The target's members of CreateEndpoint; a password is withheld unless `reveal`.

    The settings that a row's order and types depend on are all off by default. Where the engine's stream position has no known
    form, transaction details stay off: with them each change would be a reject.
    """
    common = {
        "MessageFormat": "json-unformatted",
        "IncludeTransactionDetails": config.has_details,
        "IncludePartitionValue": True,
        "PartitionIncludeSchemaTable": True,
        "IncludeTableAlterOperations": True,
        "IncludeControlDetails": True,
        "IncludeNullAndEmpty": config.include_null_and_empty,
        "UseLargeIntegerValue": True,
    }
    if config.kafka is None:
        place = {"StreamArn": config.stream_arn, "ServiceAccessRoleArn": config.service_access_role_arn}
        return {"EngineName": "kinesis", "KinesisSettings": place | common}
    return {"EngineName": "kafka", "KafkaSettings": _kafka(config, config.kafka, reveal=reveal) | common}


def _kafka(config: DmsCaptureConfig, kafka: DmsKafkaConfig, *, reveal: bool) -> dict[str, Any]:
    password = kafka.sasl_password.get_secret_value() if kafka.sasl_password and reveal else WITHHELD
    settings = {
        "Broker": kafka.broker,
        "Topic": kafka.topic,
        # A row's largest text, escaped, beside its others.
        "MessageMaxBytes": max(_LEAST_MESSAGE_BYTES, 2 * 1024 * config.max_lob_kb),
        "SslCaCertificateArn": kafka.ca_certificate_arn,
        "SslClientCertificateArn": kafka.client_certificate_arn,
        "SslClientKeyArn": kafka.client_key_arn,
    }
    if kafka.security_protocol != "plaintext":
        settings |= {"SecurityProtocol": kafka.security_protocol, "SslEndpointIdentificationAlgorithm": "https"}
    if kafka.security_protocol == "sasl-ssl":
        settings |= {"SaslMechanism": "scram-sha-512", "SaslUsername": kafka.sasl_username, "SaslPassword": password}
    return {name: value for name, value in settings.items() if value is not None}
