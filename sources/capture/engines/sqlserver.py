"""SQL Server: change tables that its own change data capture (CDC) fills, as the SQL Server Agent runs.

Statements are those of Microsoft's documentation of CDC and of Debezium's of its connector; they have run on no server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from schemas.errors import ConfigurationError
from sources.capture.engines.history import history_settings
from sources.capture.engines.protocol import Connector, Statements, weak_uri
from sources.capture.target import Database, Scheme, Table, database_at, literal

_SETTINGS = {
    "connector.class": "io.debezium.connector.sqlserver.SqlServerConnector",
    # A snapshot that is one moment of the database, and locks no table.
    "snapshot.isolation.mode": "snapshot",
    "time.precision.mode": "adaptive",
    "event.processing.failure.handling.mode": "fail",
}
_VERIFIED = {"encrypt": "true", "trustServerCertificate": "false"}
"""The driver's defaults."""


class QualifiedName(NamedTuple):
    """A table's name with its database and schema."""

    database: str
    schema: str
    table: str


class SQLServer:
    """SQL Server through its change tables."""

    scheme = Scheme("SQL Server", ("sqlserver",), 1433)
    poll_interval_ms = 500  # each time it asks the server

    def weaknesses(self, dsn: str) -> Iterator[str]:
        """`encrypt=false` and `trustServerCertificate=true`; by default the driver encrypts and verifies."""
        mend = "leave encrypt and trustServerCertificate out"
        return weak_uri(self, dsn, lambda address: _driver(address) != _VERIFIED, mend)

    def address(self, dsn: str) -> Database:
        """Read a URI; it may leave the database out, since tables are named with theirs."""
        return database_at(dsn, self.scheme, names_database=False)

    def listed(self, table: Table) -> str:
        """`schema.table`."""
        return ".".join(_qualified(table)[1:])

    def settings(self, connector: Connector) -> Mapping[str, str]:
        """The databases, the driver's encryption, and the history of the tables."""
        databases = dict.fromkeys(table.schema for table in connector.tables)
        settings = {"database.names": ",".join(databases)}
        settings |= {f"driver.{name}": value for name, value in _driver(connector.database).items()}
        if beat := connector.heartbeat:
            settings["heartbeat.action.query"] = f"UPDATE {quoted(beat)} SET beat = SYSUTCDATETIME() WHERE id = 1"
        return _SETTINGS | settings | history_settings(connector)

    def statements(self, connector: Connector) -> Statements:
        """CDC switched on for each database and table, and queries that name what is not as it should be."""
        user = connector.database.user
        captured = [*connector.tables, *([connector.signals] if connector.signals else [])]
        administrator: list[str] = []
        for database in dict.fromkeys(table.schema for table in connector.tables):
            at = f"USE {quoted_name(database)};"
            administrator += [
                f"ALTER DATABASE {quoted_name(database)} SET ALLOW_SNAPSHOT_ISOLATION ON",
                f"{at} IF EXISTS ({_database(database)} AND is_cdc_enabled = 0) EXEC sys.sp_cdc_enable_db",
            ]
            administrator += [f"{at} {_enable(_qualified(table))}" for table in captured if table.schema == database]
            administrator += [
                f"{at} ALTER ROLE db_datareader ADD MEMBER {quoted_name(user)}",
                f"{at} GRANT SELECT ON SCHEMA::cdc TO {quoted_name(user)}",
            ]
        administrator.append(f"USE master; GRANT VIEW SERVER STATE TO {quoted_name(user)}")
        return Statements(
            list(_own_tables(connector)), administrator, list(_checks([*map(_qualified, connector.tables)]))
        )


def _qualified(table: Table) -> QualifiedName:
    """Split `database.schema.table`; raises ConfigurationError for a name of two parts."""
    schema, _, name = table.name.partition(".")
    if not (schema and name):
        raise ConfigurationError(
            f"table {table.schema}.{table.name} does not name its database.",
            condition="CAPTURE_TABLE_NAME",
            hint="Name tables of SQL Server as database.schema.table: shop.dbo.tickets.",
        )
    return QualifiedName(table.schema, schema, name)


def quoted(table: Table) -> str:
    """A table as SQL Server names it."""
    return ".".join(map(quoted_name, _qualified(table)))


def _driver(address: Database) -> dict[str, str]:
    return {name: address.options.get(name, default) for name, default in _VERIFIED.items()}


def _own_tables(connector: Connector) -> Iterator[str]:
    own = connector.own_tables(
        "id varchar(42) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(2048)",
        "id int PRIMARY KEY, beat datetime2 NOT NULL",
    )
    for table, columns in own:
        missing = f"IF OBJECT_ID({unicode_literal(quoted(table))}) IS NULL"
        row = f"; INSERT INTO {quoted(table)} VALUES (1, SYSUTCDATETIME())" if table == connector.heartbeat else ""
        yield f"{missing} BEGIN CREATE TABLE {quoted(table)} ({columns}){row} END"


def _enable(table: QualifiedName) -> str:
    """No role of its own: who may read the change tables is granted by schema. Net changes would leave steps out."""
    tracked = (
        "SELECT t.is_tracked_by_cdc FROM sys.tables t JOIN sys.schemas s ON s.schema_id = t.schema_id "
        f"WHERE s.name = {unicode_literal(table.schema)} AND t.name = {unicode_literal(table.table)}"
    )
    return (
        f"IF ({tracked}) = 0 EXEC sys.sp_cdc_enable_table @source_schema = {unicode_literal(table.schema)}, "
        f"@source_name = {unicode_literal(table.table)}, @role_name = NULL, @supports_net_changes = 0"
    )


def _checks(tables: Sequence[QualifiedName]) -> Iterator[str]:
    yield (
        "SELECT 'the SQL Server Agent does not run: no change reaches the change tables' AS wrong FROM sys.dm_server_services "
        "WHERE servicename LIKE N'SQL Server Agent%' AND status_desc <> N'Running'"
    )
    for database in dict.fromkeys(table.database for table in tables):
        for setting, wrong in (
            ("is_cdc_enabled", "CDC is off, sys.sp_cdc_enable_db"),
            ("snapshot_isolation_state", "snapshot isolation is off, ALTER DATABASE … SET ALLOW_SNAPSHOT_ISOLATION ON"),
        ):
            missing = f"NOT EXISTS ({_database(database)} AND {setting} = 1)"
            yield f"SELECT {literal(f'{database}: {wrong}')} AS wrong WHERE {missing}"
    for table in tables:
        yield from _table_checks(table)


def _database(name: str) -> str:
    return f"SELECT 1 FROM sys.databases WHERE name = {unicode_literal(name)}"


def _table_checks(table: QualifiedName) -> Iterator[str]:
    where = f"object_id = OBJECT_ID({unicode_literal('.'.join(map(quoted_name, table)))})"
    name, catalogue = ".".join(table), f"{quoted_name(table.database)}.sys"
    yield (
        f"SELECT {literal(f'{name} is not captured: sys.sp_cdc_enable_table')} AS wrong "
        f"WHERE NOT EXISTS (SELECT 1 FROM {catalogue}.tables WHERE {where} AND is_tracked_by_cdc = 1)"
    )
    yield (
        f"SELECT {literal(f'{name} has no primary key')} AS wrong "
        f"WHERE NOT EXISTS (SELECT 1 FROM {catalogue}.indexes WHERE {where} AND is_primary_key = 1)"
    )
    yield (
        f"SELECT CONCAT({literal(f'{name}: no capture instance has the column ')}, c.name, ': it was added later') AS wrong "
        f"FROM {catalogue}.columns c WHERE c.{where} AND c.is_computed = 0 AND NOT EXISTS (SELECT 1 "
        f"FROM {quoted_name(table.database)}.cdc.captured_columns k JOIN {quoted_name(table.database)}.cdc.change_tables i "
        f"ON i.object_id = k.object_id WHERE i.source_object_id = c.object_id AND k.column_name = c.name)"
    )


def quoted_name(identifier: str) -> str:
    """Quote an identifier as SQL Server does in every setting."""
    return "[" + identifier.replace("]", "]]") + "]"


def unicode_literal(text: str) -> str:
    """Write a text as a literal of Unicode."""
    return f"N{literal(text)}"
