"""The Debezium connector that captures a pipeline's tables, with the settings its correctness needs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from schemas.transport import weak_brokers, weak_url
from sources.capture.converters import JSON, Converter, converter_settings
from sources.capture.engines import ENGINES
from sources.capture.engines.history import client_settings
from sources.capture.engines.protocol import Connector, Statements
from sources.capture.part import CapturePart
from sources.capture.target import WITHHELD, Table, listed_pattern

MAX_RECORD_BYTES = 32 * 1024 * 1024
"""Largest change a topic accepts: a row's largest text twice (before and after), escaped."""

PLACEHOLDER = "unavailable.value.placeholder"
"""The setting that no connector may have: the placeholder of a value that is not sent is Debezium's own."""
_OWN_KEYS = {"slot": ("postgresql",), "server_id": ("mysql", "mariadb")}
"""Keys that mean something to some engines alone."""
_SECRET = re.compile(r"jaas|password|secret|\.key$", re.IGNORECASE)

_SETTINGS = {
    "tasks.max": "1",
    # Debezium leaves truncates out by default ("t"); without them truncated rows live on in every store.
    "skipped.operations": "none",
    "tombstones.on.delete": "true",
    # Exact, and NaN stays NaN: the default sends it as null.
    "decimal.handling.mode": "string",
    # As text (base64) an unchanged large value would come as null; as bytes it comes as a placeholder.
    "binary.handling.mode": "bytes",
    # The column's type at the source, beside Connect's.
    "column.propagate.source.type": ".*",
    # Headers have the old and new key of a key change; the default converter does not write JSON.
    "header.converter": JSON,
    "header.converter.schemas.enable": "false",
    # The schema repeats in each record: it compresses to almost nothing.
    "producer.override.compression.type": "lz4",
    "producer.override.linger.ms": "0",
    "producer.override.max.request.size": str(MAX_RECORD_BYTES),
    "topic.creation.default.max.message.bytes": str(MAX_RECORD_BYTES),
}


class DebeziumCaptureConfig(CapturePart):
    """Debezium on Kafka Connect or MSK Connect."""

    type: Literal["debezium"]
    database: Literal["postgresql", "mysql", "mariadb", "sqlserver", "oracle"] = "postgresql"
    """The source's kind."""
    source: str | None = None
    """Name of the source this capture feeds, when the pipeline has several."""
    connect_url: str | None = None
    """REST interface of the Connect worker, for `--apply`."""
    connector: str | None = None
    """Name of the connector; the pipeline's when absent."""
    topic_prefix: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]+$")
    """First part of the topics' names; taken from the source's topics when absent."""
    password_reference: str | None = None
    """What the worker resolves to the password, such as `${secretsManager:rds:password}`; the password itself otherwise."""
    converter: Converter | None = None
    """How keys and values are written: `avro` (where the source has a `registry`, also when absent), `json_schema`, or `worker`:
    by the Connect worker's own converters, of which nothing is rendered and nothing compared. JSON without a `registry`."""
    registry_password_reference: str | None = None
    """What the worker resolves to the password of Confluent's registry; the password itself otherwise."""
    slot: str | None = Field(default=None, pattern=r"^[a-z0-9_]{1,63}$")
    """PostgreSQL: replication slot and publication; made from the connector's name when absent."""
    server_id: int | None = Field(default=None, ge=1, lt=2**32)
    """MySQL and MariaDB: the number that the connector has among the server's replicas; made from its name when absent."""
    snapshot_mode: Literal["initial", "no_data", "always", "initial_only", "when_needed"] = "initial"
    """Whether rows that are already there are read first."""
    signal_table: str | None = None
    """Table for signals such as `execute-snapshot`, named as the source's tables are; `capture` prints the SQL that makes it."""
    signal_topic: str | None = None
    """Topic for signals. Without a `signal_table`, incremental snapshots then write nothing to the database (PostgreSQL, MySQL,
    MariaDB)."""
    bootstrap_servers: str | None = None
    """Brokers of the connector's own topics, all engines' but PostgreSQL's: its tables' history, its signals. Those of the
    Kafka source when absent."""
    kafka_options: dict[str, SecretStr] = Field(default_factory=dict)
    """Kafka's settings of the clients that reach those brokers, such as `security.protocol`. The Kafka source's when neither
    is set."""
    heartbeat_interval_ms: int = Field(default=10_000, ge=0)
    """How often a record is sent while nothing changes, so that the log is let go of; 0 for never."""
    heartbeat_table: str | None = None
    """Table the heartbeat writes to, named as the source's tables are: needed when other databases of the server write more
    than this one."""
    poll_interval_ms: int | None = Field(default=None, ge=1)
    """How long the connector waits for changes before it looks again; 10 when absent, of SQL Server and Oracle 500."""
    topic_partitions: int = Field(default=1, ge=1)
    """Partitions of topics that Connect creates."""
    replication_factor: int = Field(default=-1, ge=-1)
    """Replicas of topics that Connect creates; -1 for the brokers' default."""

    @model_validator(mode="after")
    def _has_its_own_keys(self) -> DebeziumCaptureConfig:
        for key, engines in _OWN_KEYS.items():
            if getattr(self, key) is not None and self.database not in engines:
                raise ValueError(f"{key} is a key of {' and '.join(engines)}, not of {self.database}")
        return self

    @property
    def signals_by_topic_alone(self) -> bool:
        """Whether incremental snapshots are asked for without a table in the database."""
        return bool(self.signal_topic) and not self.signal_table

    def weaknesses(self) -> Iterator[str]:
        """Also a worker that would get the password over http://, and brokers that would get rows' tables in plain text."""
        yield from super().weaknesses()
        yield from weak_url("connect_url", self.connect_url)
        if self.bootstrap_servers:
            options = {f"kafka.{name}": value.get_secret_value() for name, value in self.kafka_options.items()}
            yield from weak_brokers("bootstrap_servers", self.bootstrap_servers, options)


def with_brokers(
    config: DebeziumCaptureConfig, bootstrap_servers: str, options: Mapping[str, str]
) -> DebeziumCaptureConfig:
    """The capture with the brokers of its source, and Kafka's settings to reach them (`kafka.…`), unless it names its own."""
    if config.bootstrap_servers:
        return config
    of_source = {
        name.removeprefix("kafka."): SecretStr(value) for name, value in options.items() if name.startswith("kafka.")
    }
    kafka_options = config.kafka_options or of_source
    return config.model_copy(update={"bootstrap_servers": bootstrap_servers, "kafka_options": kafka_options})


def connector_name(config: DebeziumCaptureConfig, pipeline: str) -> str:
    """Name the connector."""
    return config.connector or pipeline


def topic_prefix(config: DebeziumCaptureConfig, pipeline: str, tables: Sequence[Table], topics: Sequence[str]) -> str:
    """The topics' first part: as configured, else what the source's topics have before `schema.table`."""
    if config.topic_prefix:
        return config.topic_prefix
    ends = {topic_name("", table) for table in tables}
    prefixes = {topic.removesuffix(end) for topic in topics for end in ends if topic.endswith(end)}
    return prefixes.pop() if len(prefixes) == 1 else pipeline


def topic_name(prefix: str, table: Table) -> str:
    """Name the topic of a table; Debezium replaces what Kafka does not allow."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{prefix}.{table.schema}.{table.name}")


def connector_for(
    config: DebeziumCaptureConfig, pipeline: str, tables: Sequence[Table], topics: Sequence[str] = ()
) -> Connector:
    """The connector that the tables need."""
    prefix = topic_prefix(config, pipeline, tables, topics)
    return Connector(config, connector_name(config, pipeline), prefix, tables, config.address)


def connector_settings(connector: Connector, *, reveal: bool = False) -> dict[str, str]:
    """Render the connector's configuration.

    Passwords are references that Connect resolves when these are configured; otherwise they are withheld unless `reveal`, and so
    are secrets of `kafka_options`.
    """
    config, database = connector.capture, connector.database
    engine = ENGINES[config.database]
    settings = _SETTINGS | {
        "database.hostname": database.host,
        "database.port": str(database.port),
        "database.user": database.user,
        "database.password": config.password_reference or (database.password if reveal else WITHHELD),
        "topic.prefix": connector.topic_prefix,
        "table.include.list": ",".join(
            listed_pattern(engine.listed(table)) for table in [*connector.tables, *connector.also]
        ),
        "snapshot.mode": config.snapshot_mode,
        "poll.interval.ms": str(config.poll_interval_ms or engine.poll_interval_ms),
        "heartbeat.interval.ms": str(config.heartbeat_interval_ms),
        "topic.creation.default.partitions": str(config.topic_partitions),
        "topic.creation.default.replication.factor": str(config.replication_factor),
        **converter_settings(connector, reveal=reveal),
        **_record_keys(connector),
        **_signals(config),
    }
    settings |= engine.settings(connector)
    return settings if reveal else {name: _shown(name, value) for name, value in settings.items()}


def kept_settings(running: Mapping[str, str], rendered: Mapping[str, str]) -> dict[str, str]:
    """What a connector has that is not rendered: somebody has set it, and an update leaves it as it is.

    Not what belongs to a class that becomes another one, the connector's or a converter's, nor what `check` refuses.
    """
    if running.get("connector.class") != rendered["connector.class"]:
        return {}
    gone = tuple(
        f"{name}." for name, value in rendered.items() if name.endswith("converter") and running.get(name) != value
    )
    return {
        name: value
        for name, value in running.items()
        if name not in {"name", PLACEHOLDER, *rendered} and not name.startswith(gone)
    }


def statements(connector: Connector) -> Statements:
    """What the database needs before the connector starts."""
    return ENGINES[connector.capture.database].statements(connector)


def _record_keys(connector: Connector) -> dict[str, str]:
    """Entries `table:column,column`; each pair of a table and a column is a regular expression."""
    engine = ENGINES[connector.capture.database]
    entries = [
        f"{listed_pattern(engine.listed(table))}:{','.join(map(listed_pattern, columns))}"
        for table, columns in connector.keys.items()
    ]
    return {"message.key.columns": ";".join(entries)} if entries else {}


def _signals(config: DebeziumCaptureConfig) -> dict[str, str]:
    settings = {}
    channels = [name for name, where in (("source", config.signal_table), ("kafka", config.signal_topic)) if where]
    if channels:
        settings["signal.enabled.channels"] = ",".join(channels)
    if config.signal_table:
        settings["signal.data.collection"] = config.signal_table
    if config.signal_topic:
        settings["signal.kafka.topic"] = config.signal_topic
        settings["signal.kafka.bootstrap.servers"] = config.bootstrap_servers or ""
        settings |= client_settings(config, "signal.consumer.")
    return settings


def _shown(name: str, value: str) -> str:
    is_reference = value.startswith("${") or name == "database.password"
    return value if is_reference or not _SECRET.search(name) else WITHHELD
