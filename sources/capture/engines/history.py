"""The topic in which a connector keeps its tables' history, for engines whose log does not describe the rows it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from sources.capture.debezium import DebeziumCaptureConfig
    from sources.capture.engines.protocol import Connector

_HISTORY = "schema.history.internal"


def history_settings(connector: Connector) -> dict[str, str]:
    """Where the history is kept, and by which client it is written and read.

    It has every table of the databases, so that one can be captured later. Raises ConfigurationError without brokers.
    """
    capture = connector.capture
    if not capture.bootstrap_servers:
        raise ConfigurationError(
            f"capture: a connector of {capture.database} keeps its tables' history in Kafka, and no brokers are known.",
            condition="CAPTURE_BROKERS",
            hint="Set `bootstrap_servers` of the capture.",
        )
    return {
        f"{_HISTORY}.kafka.bootstrap.servers": capture.bootstrap_servers,
        f"{_HISTORY}.kafka.topic": f"{connector.topic_prefix}.schema-history",
        f"{_HISTORY}.store.only.captured.tables.ddl": "false",
        "include.schema.changes": "false",
        **client_settings(capture, f"{_HISTORY}.producer.", f"{_HISTORY}.consumer."),
    }


def client_settings(capture: DebeziumCaptureConfig, *prefixes: str) -> Mapping[str, str]:
    """The settings of the connector's own Kafka clients."""
    options = {name: value.get_secret_value() for name, value in capture.kafka_options.items()}
    return {f"{prefix}{name}": value for prefix in prefixes for name, value in options.items()}
