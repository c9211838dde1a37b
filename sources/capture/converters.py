"""The converters by which a connector writes keys and values: JSON, or those of its source's schema registry. Pure.

Classes and settings are those of Confluent's converters (AvroConverter, JsonSchemaConverter, AbstractDataConfig,
SchemaRegistryClientConfig) and of AWS Glue's (AWSKafkaAvroConverter, JsonSchemaConverter, AWSSchemaRegistryConstants).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, assert_never

from schemas.errors import ConfigurationError
from sources.capture.target import WITHHELD
from sources.registry.config import ConfluentRegistryConfig, GlueRegistryConfig, RegistryConfig

if TYPE_CHECKING:
    from sources.capture.engines.protocol import Connector

Converter = Literal["avro", "json_schema", "worker"]

JSON = "org.apache.kafka.connect.json.JsonConverter"
_AWS = "com.amazonaws.services.schemaregistry.kafkaconnect"
_CLASSES = {
    ("glue", "avro"): f"{_AWS}.AWSKafkaAvroConverter",
    ("glue", "json_schema"): f"{_AWS}.jsonschema.JsonSchemaConverter",
    ("confluent", "avro"): "io.confluent.connect.avro.AvroConverter",
    ("confluent", "json_schema"): "io.confluent.connect.json.JsonSchemaConverter",
}
_PLAIN = {
    "key.converter": JSON,
    "key.converter.schemas.enable": "false",
    "value.converter": JSON,
    "value.converter.schemas.enable": "true",
    # By default the converter writes a column's default value where the row has NULL.
    "value.converter.replace.null.with.default": "false",
    "key.converter.replace.null.with.default": "false",
}
_VALID_NAMES = {"schema.name.adjustment.mode": "avro", "field.name.adjustment.mode": "avro"}
"""Avro refuses names such as `first name` and `my-topic.public.t.Value`, and the connector would stop."""


def chosen(converter: Converter | None, registry: RegistryConfig | None) -> Converter | None:
    """The converter as configured, else Avro's where the source has a registry; None for plain JSON.

    Raises ConfigurationError for one that needs a registry where there is none.
    """
    if registry is None and converter in {"avro", "json_schema"}:
        raise ConfigurationError(
            f"capture: the converter {converter} needs a schema registry, and the source has none.",
            condition="CAPTURE_CONVERTER",
            hint="Add `registry` to the source, or leave `converter` out.",
        )
    return converter or ("avro" if registry else None)


def loses_nulls(converter: Converter | None, registry: RegistryConfig | None) -> bool:
    """Whether a NULL in a column that has a default arrives as the default: AWS Glue's converters have no setting against it."""
    return isinstance(registry, GlueRegistryConfig) and chosen(converter, registry) != "worker"


def converter_settings(connector: Connector, *, reveal: bool) -> dict[str, str]:
    """The settings of both converters, and of the names that Avro takes."""
    registry = connector.registry
    kind = chosen(connector.capture.converter, registry)
    if kind is None:
        return dict(_PLAIN)
    if kind == "worker" or registry is None:
        return {}
    settings = dict(_VALID_NAMES) if kind == "avro" else {}
    for part in ("key", "value"):
        settings[f"{part}.converter"] = _CLASSES[registry.type, kind]
        if isinstance(registry, GlueRegistryConfig):
            own = dict(_of_glue(registry, kind))
            if part == "key":  # whose schema would have the name of the value's, the topic's
                own["schemaName"] = f"{connector.name}-key"
        elif isinstance(registry, ConfluentRegistryConfig):
            own = dict(_of_confluent(registry, connector.capture.registry_password_reference, reveal=reveal))
        else:
            assert_never(registry)
        settings |= {f"{part}.converter.{name}": value for name, value in own.items()}
    return settings


def _of_confluent(
    registry: ConfluentRegistryConfig, reference: str | None, *, reveal: bool
) -> Iterator[tuple[str, str]]:
    yield "schema.registry.url", registry.url
    # By default a NULL in a column that has a default arrives as the default.
    yield "ignore.default.for.nullables", "true"
    if registry.username is not None and registry.password is not None:
        password = reference or (registry.password.get_secret_value() if reveal else WITHHELD)
        yield "basic.auth.credentials.source", "USER_INFO"
        yield "basic.auth.user.info", f"{registry.username}:{password}"


def _of_glue(registry: GlueRegistryConfig, kind: Converter) -> Iterator[tuple[str, str]]:
    """The worker signs by its own role, whatever keys the readers have."""
    yield "registry.name", registry.name
    if registry.region is not None:
        yield "region", registry.region
    if registry.endpoint_url is not None:
        yield "endpoint", registry.endpoint_url
    yield "schemaAutoRegistrationEnabled", "true"
    # Each record is read by the schema that wrote it: a table may change in any way, and no change stops the connector.
    yield "compatibility", "NONE"
    yield ("avroRecordType", "GENERIC_RECORD") if kind == "avro" else ("dataFormat", "JSON")
