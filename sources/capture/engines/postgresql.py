"""PostgreSQL: a replication slot, a publication, and which tables must log whole rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from schemas.transport import weak_postgres
from sources.capture.engines.protocol import Connector, Statements
from sources.capture.target import Database, Scheme, Table, database_at, literal, quoted
from transforms.envelopes.placeholders import NULL_TYPES, PLACEHOLDER_ARRAYS, SMALL_BITS

if TYPE_CHECKING:
    from sources.capture.debezium import DebeziumCaptureConfig

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:,@\[\]]*)(?::\d*)?")
_SETTINGS = {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "plugin.name": "pgoutput",
    "publication.autocreate.mode": "filtered",
    # Changes of partitions come under the name of their table, not under their own.
    "publish.via.partition.root": "true",
    "slot.drop.on.stop": "false",
    "time.precision.mode": "adaptive",
    "interval.handling.mode": "string",
    "hstore.handling.mode": "json",
    # A column of a type that Debezium does not know arrives as bytes; by default it would be missing.
    "include.unknown.datatypes": "true",
}


class PostgreSQL:
    """PostgreSQL through pgoutput."""

    scheme = Scheme("PostgreSQL", ("postgresql", "postgres"), 5432)
    poll_interval_ms = 10

    def weaknesses(self, dsn: str) -> Iterator[str]:
        """A URI that turns off encryption or verification; one that says nothing is completed (`conninfo`)."""
        return weak_postgres("dsn", host_and_options(dsn), {})

    def address(self, dsn: str) -> Database:
        """Read a libpq URI."""
        return database_at(dsn, self.scheme)

    def listed(self, table: Table) -> str:
        """`schema.table`."""
        return f"{table.schema}.{table.name}"

    def settings(self, connector: Connector) -> Mapping[str, str]:
        """Slot, publication, and what the log's values are sent as."""
        slot, database = slot_name(connector.capture, connector.name), connector.database
        settings = {"database.dbname": database.name, "slot.name": slot, "publication.name": slot}
        if "sslmode" in database.options:
            settings["database.sslmode"] = database.options["sslmode"]
        if connector.capture.signals_by_topic_alone:
            settings["read.only"] = "true"  # windows of an incremental snapshot by transaction numbers
        if connector.heartbeat:
            settings["heartbeat.action.query"] = (
                f"INSERT INTO {connector.heartbeat.quoted} (id, beat) VALUES (1, now()) "
                "ON CONFLICT (id) DO UPDATE SET beat = now()"
            )
        return _SETTINGS | settings

    def statements(self, connector: Connector) -> Statements:
        """The publication, and the old rows in the log where the connector would send null for an unchanged value.

        Most tables need none of the latter: the log lacks an unchanged large value, Debezium sends a placeholder, and the
        column keeps its value in every store. For types without a placeholder the log must have the old row.
        """
        statements = list[str]()
        own = connector.own_tables(
            "id varchar(42) PRIMARY KEY, type varchar(32) NOT NULL, data text",
            "id int PRIMARY KEY, beat timestamptz NOT NULL",
        )
        for table, columns in own:
            statements.append(f"CREATE SCHEMA IF NOT EXISTS {quoted(table.schema)}")
            statements.append(f"CREATE TABLE IF NOT EXISTS {table.quoted} ({columns})")
        slot = slot_name(connector.capture, connector.name)
        names = {
            "TABLES": ", ".join(literal(table.quoted) for table in connector.tables),
            "LIST": ", ".join(table.quoted for table in connector.tables),
            "PUBLICATION": quoted(slot),
            "NAME": literal(slot),
            "ARRAYS": ", ".join(sorted(map(literal, PLACEHOLDER_ARRAYS))),
            "SMALL_BITS": str(SMALL_BITS),
            "OTHERS": ", ".join(sorted(map(literal, NULL_TYPES))),
        }
        return Statements([*statements, *(_filled(statement, names) for statement in (_PUBLISH, _LOG_OLD_ROWS))])


def slot_name(capture: DebeziumCaptureConfig, connector: str) -> str:
    """Name the replication slot, and the publication."""
    return capture.slot or re.sub(r"[^a-z0-9_]", "_", f"ragstream_{capture.connector or connector}".lower())[:63]


def host_and_options(dsn: str) -> dict[str, str]:
    """A URI's host and options, and no defaults of an environment; a connector takes no URI with several hosts."""
    _, is_uri, rest = dsn.partition("://")
    place, _, query = rest.partition("?")
    place = place.partition("/")[0]
    host = _HOST.fullmatch(place.partition("@")[2] if "@" in place else place) if is_uri and "@" not in query else None
    return {"host": host[1] if host else "?"} | dict(parse_qsl(query))


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
