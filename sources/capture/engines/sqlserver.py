"""SQL Server: change tables that its own change data capture (CDC) fills, as the SQL Server Agent runs.

Statements are those of Microsoft's documentation of CDC and of Debezium's of its connector; no server could be had to run them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from schemas.errors import ConfigurationError
from schemas.transport import is_this_machine, weakness
from sources.capture.engines.history import history_settings
from sources.capture.engines.protocol import Connector, Statements
from sources.capture.target import Database, Scheme, Table, database_at, tables_named

_SETTINGS = {
    "connector.class": "io.debezium.connector.sqlserver.SqlServerConnector",
    # A snapshot that is one moment of the database, and locks no table.
    "snapshot.isolation.mode": "snapshot",
    "time.precision.mode": "adaptive",
    "event.processing.failure.handling.mode": "fail",
}


class Named(NamedTuple):
    """A table's three names."""

    database: str
    schema: str
    table: str


class SQLServer:
    """SQL Server through its change tables."""

    scheme = Scheme("SQL Server", ("sqlserver",), 1433)
    poll_interval_ms = 500  # each time it asks the server

    def weaknesses(self, dsn: str) -> Iterator[str]:
        """`encrypt=false` and `trustServerCertificate=true`; by default the driver encrypts and verifies."""
        try:
            address = self.address(dsn)
        except ConfigurationError:
            yield weakness("dsn", "write it as sqlserver://USER:PASSWORD@HOST:PORT/DATABASE")
            return
        if not is_this_machine(address.host) and _driver(address) != {
            "encrypt": "true",
            "trustServerCertificate": "false",
        }:
            yield weakness("dsn", "leave encrypt and trustServerCertificate out")

    def address(self, dsn: str) -> Database:
        """Read a URI; it may leave the database out, since tables are named with theirs."""
        return database_at(dsn, self.scheme, named=False)

    def listed(self, table: Table) -> str:
        """`schema.table`."""
        return f"{named(table).schema}.{named(table).table}"

    def settings(self, connector: Connector) -> Mapping[str, str]:
        """The databases, the driver's encryption, and the history of the tables."""
        databases = dict.fromkeys(table.schema for table in connector.tables)
        settings = {"database.names": ",".join(databases)}
        settings |= {f"driver.{name}": value for name, value in _driver(connector.database).items()}
        if connector.capture.heartbeat_table:
            (beat,) = tables_named([connector.capture.heartbeat_table])
            settings["heartbeat.action.query"] = f"UPDATE {quoted(beat)} SET beat = SYSUTCDATETIME() WHERE id = 1"
        return _SETTINGS | settings | history_settings(connector)

    def statements(self, connector: Connector) -> Statements:
        """CDC switched on for each database and table, and queries that name what is not as it should be."""
        user = connector.database.user
        source = [*_own_tables(connector)]
        administrator: list[str] = []
        for database in dict.fromkeys(table.schema for table in connector.tables):
            at = f"USE {_name(database)};"
            administrator += [
                f"ALTER DATABASE {_name(database)} SET ALLOW_SNAPSHOT_ISOLATION ON",
                f"{at} IF EXISTS ({_database(database)} AND is_cdc_enabled = 0) EXEC sys.sp_cdc_enable_db",
            ]
            signals = [connector.capture.signal_table] if connector.capture.signal_table else []
            captured = [*connector.tables, *tables_named(signals)]
            own = [named(table) for table in captured if table.schema == database]
            administrator += [f"{at} {_enable(table)}" for table in own]
            administrator += [
                f"{at} ALTER ROLE db_datareader ADD MEMBER {_name(user)}",
                f"{at} GRANT SELECT ON SCHEMA::cdc TO {_name(user)}",
            ]
        administrator.append(f"USE master; GRANT VIEW SERVER STATE TO {_name(user)}")
        return Statements(source, administrator, list(_checks([named(table) for table in connector.tables])))


def named(table: Table) -> Named:
    """Split `database.schema.table`; raises ConfigurationError for a name of two parts."""
    schema, dot, name = table.name.partition(".")
    if not (schema and dot and name):
        raise ConfigurationError(
            f"table {table.schema}.{table.name} does not name its database.",
            condition="CAPTURE_TABLE_NAME",
            hint="Name tables of SQL Server as database.schema.table: shop.dbo.tickets.",
        )
    return Named(table.schema, schema, name)


def quoted(table: Table) -> str:
    """A table as SQL Server names it."""
    return ".".join(map(_name, named(table)))


def _driver(address: Database) -> dict[str, str]:
    return {
        "encrypt": address.options.get("encrypt", "true"),
        "trustServerCertificate": address.options.get("trustServerCertificate", "false"),
    }


def _own_tables(connector: Connector) -> Iterator[str]:
    capture = connector.capture
    tables = (
        (capture.signal_table, "id varchar(42) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(2048)", ""),
        (capture.heartbeat_table, "id int PRIMARY KEY, beat datetime2 NOT NULL", "(1, SYSUTCDATETIME())"),
    )
    for name, columns, row in tables:
        for table in tables_named([name]) if name else ():
            missing = f"IF OBJECT_ID({_text(quoted(table))}) IS NULL"
            first = f"; INSERT INTO {quoted(table)} VALUES {row}" if row else ""
            yield f"{missing} BEGIN CREATE TABLE {quoted(table)} ({columns}){first} END"


def _enable(table: Named) -> str:
    """No role of its own: who may read the change tables is granted by schema. Net changes would leave steps out."""
    tracked = (
        "SELECT t.is_tracked_by_cdc FROM sys.tables t JOIN sys.schemas s ON s.schema_id = t.schema_id "
        f"WHERE s.name = {_text(table.schema)} AND t.name = {_text(table.table)}"
    )
    return (
        f"IF ({tracked}) = 0 EXEC sys.sp_cdc_enable_table @source_schema = {_text(table.schema)}, "
        f"@source_name = {_text(table.table)}, @role_name = NULL, @supports_net_changes = 0"
    )


def _checks(tables: Sequence[Named]) -> Iterator[str]:
    yield (
        "SELECT 'the SQL Server Agent does not run: no change reaches the change tables' AS wrong FROM sys.dm_server_services "
        "WHERE servicename LIKE N'SQL Server Agent%' AND status_desc <> N'Running'"
    )
    for database in dict.fromkeys(table.database for table in tables):
        for setting, said in (
            ("is_cdc_enabled", "CDC is off, sys.sp_cdc_enable_db"),
            ("snapshot_isolation_state", "snapshot isolation is off, ALTER DATABASE … SET ALLOW_SNAPSHOT_ISOLATION ON"),
        ):
            missing = f"NOT EXISTS ({_database(database)} AND {setting} = 1)"
            yield f"SELECT '{_inside(database)}: {said}' AS wrong WHERE {missing}"
    for table in tables:
        yield from _table_checks(table)


def _database(name: str) -> str:
    return f"SELECT 1 FROM sys.databases WHERE name = {_text(name)}"


def _table_checks(table: Named) -> Iterator[str]:
    where = f"object_id = OBJECT_ID({_text('.'.join(map(_name, table)))})"
    name, catalogue = _inside(".".join(table)), f"{_name(table.database)}.sys"
    yield (
        f"SELECT '{name} is not captured: sys.sp_cdc_enable_table' AS wrong "
        f"WHERE NOT EXISTS (SELECT 1 FROM {catalogue}.tables WHERE {where} AND is_tracked_by_cdc = 1)"
    )
    yield (
        f"SELECT '{name} has no primary key' AS wrong "
        f"WHERE NOT EXISTS (SELECT 1 FROM {catalogue}.indexes WHERE {where} AND is_primary_key = 1)"
    )
    yield (
        f"SELECT CONCAT('{name}: no capture instance has the column ', c.name, ': it was added later') AS wrong "
        f"FROM {catalogue}.columns c WHERE c.{where} AND c.is_computed = 0 AND NOT EXISTS (SELECT 1 "
        f"FROM {_name(table.database)}.cdc.captured_columns k JOIN {_name(table.database)}.cdc.change_tables i "
        f"ON i.object_id = k.object_id WHERE i.source_object_id = c.object_id AND k.column_name = c.name)"
    )


def _name(identifier: str) -> str:
    return "[" + identifier.replace("]", "]]") + "]"


def _inside(text: str) -> str:
    """A text inside of a literal."""
    return text.replace("'", "''")


def _text(text: str) -> str:
    return f"N'{_inside(text)}'"
