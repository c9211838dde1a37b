"""The Debezium connector that captures a pipeline's tables, with the settings its correctness needs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field

from schemas.transport import weak_url
from sources.capture.target import WITHHELD, CapturePart, Table, database_at, literal, quoted
from transforms.envelopes.placeholders import NULL_TYPES, PLACEHOLDER_ARRAYS, SMALL_BITS

MAX_RECORD_BYTES = 32 * 1024 * 1024
"""Largest change a topic accepts: a row's largest text twice (before and after), escaped."""

_JSON = "org.apache.kafka.connect.json.JsonConverter"

_SETTINGS = {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "tasks.max": "1",
    "plugin.name": "pgoutput",
    "publication.autocreate.mode": "filtered",
    # Changes of partitions come under the name of their table, not under their own.
    "publish.via.partition.root": "true",
    "slot.drop.on.stop": "false",
    # Debezium leaves truncates out by default ("t"); without them truncated rows live on in every store.
    "skipped.operations": "none",
    "tombstones.on.delete": "true",
    # Exact, and NaN stays NaN: the default sends it as null.
    "decimal.handling.mode": "string",
    "time.precision.mode": "adaptive",
    # As text (base64) an unchanged large value would come as null; as bytes it comes as a placeholder.
    "binary.handling.mode": "bytes",
    "interval.handling.mode": "string",
    "hstore.handling.mode": "json",
    # A column of a type that Debezium does not know arrives as bytes; by default it would be missing.
    "include.unknown.datatypes": "true",
    # The column's type at the source, beside Connect's.
    "column.propagate.source.type": ".*",
    "key.converter": _JSON,
    "key.converter.schemas.enable": "false",
    "value.converter": _JSON,
    "value.converter.schemas.enable": "true",
    # By default the converter writes a column's default value where the row has NULL.
    "value.converter.replace.null.with.default": "false",
    "key.converter.replace.null.with.default": "false",
    # Headers have the old and new key of a key change; the default converter does not write JSON.
    "header.converter": _JSON,
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
    database: Literal["postgresql"] = "postgresql"
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
    slot: str | None = Field(default=None, pattern=r"^[a-z0-9_]{1,63}$")
    """Replication slot and publication; made from the connector's name when absent."""
    snapshot_mode: Literal["initial", "no_data", "always", "initial_only", "when_needed"] = "initial"
    """Whether rows that are already there are read first."""
    signal_table: str | None = None
    """Table for signals such as `execute-snapshot`, `schema.table`; `capture` prints the SQL that makes it."""
    heartbeat_interval_ms: int = Field(default=10_000, ge=0)
    """How often a record is sent while nothing changes, so that the slot is let go of; 0 for never."""
    heartbeat_table: str | None = None
    """Table the heartbeat writes to, `schema.table`: needed when other databases of the server write more than this one."""
    poll_interval_ms: int = Field(default=10, ge=1)
    """How long the connector waits for changes before it looks again."""
    topic_partitions: int = Field(default=1, ge=1)
    """Partitions of topics that Connect creates."""
    replication_factor: int = Field(default=-1, ge=-1)
    """Replicas of topics that Connect creates; -1 for the brokers' default."""

    def weaknesses(self) -> Iterator[str]:
        """Also a worker that would get the password over http://."""
        yield from super().weaknesses()
        yield from weak_url("connect_url", self.connect_url)


def connector_name(config: DebeziumCaptureConfig, pipeline: str) -> str:
    """Name the connector."""
    return config.connector or pipeline


def slot_name(config: DebeziumCaptureConfig, pipeline: str) -> str:
    """Name the replication slot, and the publication."""
    return config.slot or re.sub(r"[^a-z0-9_]", "_", f"ragstream_{connector_name(config, pipeline)}".lower())[:63]


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


def debezium_postgres(
    config: DebeziumCaptureConfig,
    pipeline: str,
    tables: Sequence[Table],
    topics: Sequence[str] = (),
    *,
    reveal: bool = False,
) -> dict[str, str]:
    """Render the connector's configuration.

    The password is a reference that Connect resolves when one is configured; otherwise it is withheld unless `reveal`.
    """
    database = database_at(config.dsn.get_secret_value())
    slot = slot_name(config, pipeline)
    settings = _SETTINGS | {
        "database.hostname": database.host,
        "database.port": str(database.port),
        "database.dbname": database.name,
        "database.user": database.user,
        "database.password": config.password_reference or (database.password if reveal else WITHHELD),
        "topic.prefix": topic_prefix(config, pipeline, tables, topics),
        "slot.name": slot,
        "publication.name": slot,
        "table.include.list": ",".join(_pattern(table) for table in tables),
        "snapshot.mode": config.snapshot_mode,
        "poll.interval.ms": str(config.poll_interval_ms),
        "heartbeat.interval.ms": str(config.heartbeat_interval_ms),
        "topic.creation.default.partitions": str(config.topic_partitions),
        "topic.creation.default.replication.factor": str(config.replication_factor),
    }
    if database.ssl_mode:
        settings["database.sslmode"] = database.ssl_mode
    if config.signal_table:
        settings |= {"signal.enabled.channels": "source", "signal.data.collection": config.signal_table}
    if config.heartbeat_table:
        beat = _split(config.heartbeat_table).quoted
        settings["heartbeat.action.query"] = (
            f"INSERT INTO {beat} (id, beat) VALUES (1, now()) ON CONFLICT (id) DO UPDATE SET beat = now()"  # noqa: S608 - quoted
        )
    return settings


def source_sql(config: DebeziumCaptureConfig, pipeline: str, tables: Sequence[Table]) -> list[str]:
    """The statements that the source's owner runs once before the connector starts; running them again changes nothing.

    Most tables need none: the log lacks an unchanged large value, Debezium sends a placeholder, and the column keeps its
    value in every store. For types without a placeholder the log must have the old row (REPLICA IDENTITY FULL).
    """
    statements: list[str] = []
    if config.signal_table:
        table = _split(config.signal_table)
        statements += [
            f"CREATE SCHEMA IF NOT EXISTS {quoted(table.schema)}",
            f"CREATE TABLE IF NOT EXISTS {table.quoted} (id varchar(42) PRIMARY KEY, type varchar(32) NOT NULL, data text)",
        ]
    if config.heartbeat_table:
        table = _split(config.heartbeat_table)
        statements += [
            f"CREATE SCHEMA IF NOT EXISTS {quoted(table.schema)}",
            f"CREATE TABLE IF NOT EXISTS {table.quoted} (id int PRIMARY KEY, beat timestamptz NOT NULL)",
        ]
    names = {
        "TABLES": ", ".join(literal(table.quoted) for table in tables),
        "LIST": ", ".join(table.quoted for table in tables),
        "PUBLICATION": quoted(slot_name(config, pipeline)),
        "NAME": literal(slot_name(config, pipeline)),
        "ARRAYS": ", ".join(sorted(map(literal, PLACEHOLDER_ARRAYS))),
        "SMALL_BITS": str(SMALL_BITS),
        "OTHERS": ", ".join(sorted(map(literal, NULL_TYPES))),
    }
    return [*statements, *(_filled(statement, names) for statement in (_PUBLISH, _LOG_OLD_ROWS))]


def _filled(statement: str, names: Mapping[str, str]) -> str:
    return re.sub(r"<(\w+)>", lambda match: names[match[1]], statement)


_PUBLISH = """\
DO $ragstream$
DECLARE tables regclass[] := ARRAY[<TABLES>]::regclass[];
BEGIN
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = <NAME>) THEN
        CREATE PUBLICATION <PUBLICATION> FOR TABLE <LIST> WITH (publish_via_partition_root = true);
    ELSIF EXISTS (SELECT FROM pg_publication WHERE pubname = <NAME> AND NOT pubviaroot)
        AND EXISTS (SELECT FROM pg_class WHERE oid = ANY (tables) AND relkind = 'p') THEN
        ALTER PUBLICATION <PUBLICATION> SET (publish_via_partition_root = true);
    END IF;
    IF current_setting('server_version_num')::int >= 180000
        AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = ANY (tables) AND attgenerated = 's' AND NOT attisdropped) THEN
        EXECUTE 'ALTER PUBLICATION <PUBLICATION> SET (publish_generated_columns = stored)';
    END IF;
END $ragstream$"""
_LOG_OLD_ROWS = """\
DO $ragstream$
DECLARE stored regclass;
BEGIN
    FOR stored IN
        WITH RECURSIVE types AS (
            SELECT oid, oid AS base FROM pg_type WHERE typtype <> 'd'
            UNION ALL SELECT t.oid, types.base FROM pg_type t JOIN types ON t.typbasetype = types.oid AND t.typtype = 'd'
        )
        SELECT DISTINCT c.oid::regclass
        FROM unnest(ARRAY[<TABLES>]::regclass[]) AS wanted
        JOIN LATERAL (SELECT wanted AS relid UNION SELECT relid FROM pg_partition_tree(wanted)) part ON true
        JOIN pg_class c ON c.oid = part.relid AND c.relkind = 'r' AND c.relreplident <> 'f'
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            AND a.attlen = -1 AND a.attstorage <> 'p' AND a.attgenerated = ''
        JOIN types ON types.oid = a.atttypid
        JOIN pg_type base ON base.oid = types.base
        WHERE CASE WHEN base.typcategory = 'A' THEN base.typname NOT IN (<ARRAYS>) OR base.oid <> a.atttypid
                ELSE base.typname IN (<OTHERS>) END
            AND NOT (base.typname IN ('bit', 'varbit') AND a.atttypmod BETWEEN 0 AND <SMALL_BITS>)
    LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', stored);
    END LOOP;
END $ragstream$"""


def _split(name: str) -> Table:
    schema, _, table = name.partition(".")
    return Table(schema, table)


def _pattern(table: Table) -> str:
    """A table as an entry of Debezium's list of regular expressions; a comma would end the entry."""
    return re.escape(f"{table.schema}.{table.name}").replace("\\ ", " ").replace(",", r"\x2c")
