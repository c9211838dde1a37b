"""What a DMS task needs of each kind of database: its endpoint's settings, and what its owner and administrator run. Pure.

Settings are those of botocore's dms model. Statements and queries of SQL Server and Oracle are those of AWS's guide and of the
vendors' documentation; they have run on no such server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigurationError
from sources.capture.dms_postgresql import postgresql_settings, postgresql_statements
from sources.capture.engines import binlog
from sources.capture.engines.protocol import Statements
from sources.capture.engines.sqlserver import quoted_name, unicode_literal
from sources.capture.target import Database, Table, literal, quoted

if TYPE_CHECKING:
    from sources.capture.dms import DmsCaptureConfig, Parts

type Settings = Callable[[DmsCaptureConfig, Database], Mapping[str, Any]]
type Prepare = Callable[[DmsCaptureConfig, Database, Parts], Statements]


@dataclass(frozen=True)
class DmsEngine:
    """One kind of database as DMS captures it."""

    names: tuple[str, ...]
    """DMS's names of the engine, the usual one first."""
    member: str
    """The member of CreateEndpoint that has its settings."""
    settings: Settings
    prepare: Prepare
    has_position: bool
    """Whether the form of its stream position is known (`transforms/positions/dms.py`)."""
    ssl_modes: tuple[str, str]
    """CreateEndpoint's `SslMode` without a certificate, and with one (AWS's guide, "Using SSL with AWS DMS")."""
    attributes: str = ""
    """Extra connection attributes."""


def _sqlserver_settings(_config: DmsCaptureConfig, database: Database) -> Mapping[str, Any]:
    """An endpoint has one database; raises ConfigurationError for a URI without one."""
    if not database.name:
        raise ConfigurationError(
            "`capture.dsn` names no database, and DMS captures one.",
            condition="CAPTURE_DSN",
            hint="Write it as sqlserver://USER:PASSWORD@HOST:PORT/DATABASE, and tables as dbo.tickets.",
        )
    return {"DatabaseName": database.name}


def _binlog_settings(_config: DmsCaptureConfig, _database: Database) -> Mapping[str, Any]:
    """The database is no setting: tables are named with theirs. An idle log is looked at each second, by default every five."""
    return {"EventsPollInterval": 1, "CleanSourceMetadataOnMismatch": True}


def _binlog_statements(_config: DmsCaptureConfig, database: Database, tables: Parts) -> Statements:
    user = f"{literal(database.user)}@'%'"
    schemas = dict.fromkeys(table.schema for table in tables)
    rights = [f"GRANT SELECT ON {binlog.quoted_name(schema)}.* TO {user}" for schema in schemas]
    return Statements(administrator=[f"GRANT REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO {user}", *rights])


def _oracle_settings(_config: DmsCaptureConfig, database: Database) -> Mapping[str, Any]:
    return {
        "DatabaseName": database.name,
        "AddSupplementalLogging": True,
        "ConvertTimestampWithZoneToUTC": True,
        # By default a value above the limit is cut, without a word in the record.
        "FailTasksOnLobTruncation": True,
    }


def _oracle_statements(_config: DmsCaptureConfig, database: Database, tables: Parts) -> Statements:
    """Whole rows in the redo log: a column that it lacks cannot be told from one that is NULL."""
    user = quoted(database.user.upper())
    logged = [f"ALTER TABLE {table.quoted} ADD SUPPLEMENTAL LOG DATA (ALL) COLUMNS" for table in tables]
    administrator = [
        "ALTER DATABASE ADD SUPPLEMENTAL LOG DATA",
        *(f"GRANT {right} TO {user}" for right in _ORACLE_RIGHTS),
        *(f"GRANT SELECT ON {table.quoted} TO {user}" for table in tables),
    ]
    return Statements(logged, administrator, list(_oracle_checks(list(tables))))


_ORACLE_RIGHTS = (
    "CREATE SESSION", "SELECT ANY TRANSACTION", "LOGMINING", "EXECUTE_CATALOG_ROLE", "SELECT_CATALOG_ROLE",
)  # fmt: skip


def _oracle_checks(tables: Sequence[Table]) -> Iterator[str]:
    yield "SELECT 'the database is not in ARCHIVELOG mode' AS wrong FROM v$database WHERE log_mode <> 'ARCHIVELOG'"
    yield (
        "SELECT 'minimal supplemental logging is off: ALTER DATABASE ADD SUPPLEMENTAL LOG DATA' AS wrong FROM v$database "
        "WHERE supplemental_log_data_min = 'NO'"
    )
    for table in tables:
        where = f"owner = {literal(table.schema)} AND table_name = {literal(table.name)}"
        wrong = literal(f"{'.'.join(table)} has no whole rows in the log: ADD SUPPLEMENTAL LOG DATA (ALL) COLUMNS")
        yield (
            f"SELECT {wrong} AS wrong "  # noqa: S608 - quoted
            f"FROM dual WHERE NOT EXISTS (SELECT 1 FROM all_log_groups WHERE {where} AND log_group_type = 'ALL COLUMN LOGGING')"
        )


def _sqlserver_statements(_config: DmsCaptureConfig, database: Database, tables: Parts) -> Statements:
    """CDC for the database and each table; without it DMS sets up replication by a distributor, where it may."""
    at = f"USE {quoted_name(database.name)};"
    known = f"SELECT 1 FROM sys.databases WHERE name = {unicode_literal(database.name)}"  # noqa: S608 - quoted
    enable = [
        f"{at} IF NOT EXISTS (SELECT 1 FROM sys.tables WHERE object_id = OBJECT_ID({unicode_literal(_quoted(table))}) "  # noqa: S608 - quoted
        f"AND is_tracked_by_cdc = 1) EXEC sys.sp_cdc_enable_table @source_schema = {unicode_literal(table.schema)}, "
        f"@source_name = {unicode_literal(table.name)}, @role_name = NULL, @supports_net_changes = 1"
        for table in tables
    ]
    administrator = [
        f"ALTER DATABASE {quoted_name(database.name)} SET RECOVERY FULL",
        f"{at} IF EXISTS ({known} AND is_cdc_enabled = 0) EXEC sys.sp_cdc_enable_db",
        *enable,
        f"{at} ALTER ROLE db_owner ADD MEMBER {quoted_name(database.user)}",
        f"USE master; GRANT VIEW SERVER STATE TO {quoted_name(database.user)}",
    ]
    return Statements(administrator=administrator, check=list(_sqlserver_checks(database.name, list(tables))))


def _sqlserver_checks(database: str, tables: Sequence[Table]) -> Iterator[str]:
    known = f"FROM sys.databases WHERE name = {unicode_literal(database)}"
    yield f"SELECT 'recovery model SIMPLE keeps no log' AS wrong {known} AND recovery_model_desc = N'SIMPLE'"
    yield f"SELECT 'CDC is off: sys.sp_cdc_enable_db' AS wrong {known} AND is_cdc_enabled = 0"
    for table in tables:
        name = ".".join(table)
        where = f"object_id = OBJECT_ID({unicode_literal(_quoted(table))})"
        yield (
            f"SELECT {unicode_literal(name + ' is not captured: sys.sp_cdc_enable_table')} AS wrong WHERE NOT EXISTS "  # noqa: S608 - quoted
            f"(SELECT 1 FROM {quoted_name(database)}.sys.tables WHERE {where} AND is_tracked_by_cdc = 1)"
        )


def _quoted(table: Table) -> str:
    return f"{quoted_name(table.schema)}.{quoted_name(table.name)}"


_BINLOG = ("none", "verify-full")
DMS_ENGINES: Mapping[str, DmsEngine] = {
    "postgresql": DmsEngine(
        ("postgres", "aurora-postgresql"), "PostgreSQLSettings", postgresql_settings, postgresql_statements,
        has_position=True, ssl_modes=("require", "verify-full"),
    ),
    "mysql": DmsEngine(
        ("mysql", "aurora"), "MySQLSettings", _binlog_settings, _binlog_statements, has_position=True, ssl_modes=_BINLOG
    ),
    "mariadb": DmsEngine(
        ("mariadb",), "MySQLSettings", _binlog_settings, _binlog_statements, has_position=True, ssl_modes=_BINLOG
    ),
    "sqlserver": DmsEngine(
        ("sqlserver",), "MicrosoftSQLServerSettings", _sqlserver_settings, _sqlserver_statements, has_position=False,
        ssl_modes=("require", "verify-full"), attributes="SetUpMsCdcForTables=true",
    ),
    "oracle": DmsEngine(
        ("oracle",), "OracleSettings", _oracle_settings, _oracle_statements, has_position=False,
        ssl_modes=("none", "verify-ca"),
    ),
}  # fmt: skip
"""By `database` of the configuration."""
