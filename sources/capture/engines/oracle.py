"""Oracle through LogMiner: archived redo logs that have whole rows (supplemental logging).

Statements are those of Oracle's documentation and of Debezium's of its connector; no server could be had to run them. The
JDBC driver (ojdbc11.jar) is Oracle's own and no part of the connector: it goes into the connector's folder on the worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from schemas.errors import ConfigurationError
from schemas.transport import is_this_machine, weakness
from sources.capture.engines.history import history_settings
from sources.capture.engines.protocol import Connector, Statements
from sources.capture.target import Database, Scheme, Table, database_at, literal, quoted, tables_named

_SETTINGS = {
    "connector.class": "io.debezium.connector.oracle.OracleConnector",
    # By default CLOB, NCLOB and BLOB columns come as NULL.
    "lob.enabled": "true",
    # What was written before a column was added, and is read after it, is told by the log's own dictionary; that of the
    # database has the new columns alone, and `hybrid` cannot be had with LOBs.
    "log.mining.strategy": "redo_log_catalog",
    "interval.handling.mode": "string",
    "time.precision.mode": "adaptive",
    "event.processing.failure.handling.mode": "fail",
}
_RIGHTS = (
    "CREATE SESSION", "SET CONTAINER", "SELECT ANY TABLE", "FLASHBACK ANY TABLE", "SELECT_CATALOG_ROLE",
    "EXECUTE_CATALOG_ROLE", "SELECT ANY TRANSACTION", "LOGMINING", "CREATE TABLE", "LOCK ANY TABLE", "CREATE SEQUENCE",
)  # fmt: skip


class Named(NamedTuple):
    """A table's owner and name, as the catalogue has them."""

    owner: str
    table: str


class Oracle:
    """Oracle through LogMiner."""

    scheme = Scheme("Oracle", ("oracle",), 1521)
    poll_interval_ms = 500  # what is mined is asked for by `log.mining.sleep.time.*`

    def weaknesses(self, dsn: str) -> Iterator[str]:
        """Any URI without `protocol=tcps`: Oracle's driver encrypts nothing by itself."""
        try:
            address = self.address(dsn)
        except ConfigurationError:
            yield weakness("dsn", "write it as oracle://USER:PASSWORD@HOST:PORT/SERVICE")
            return
        if not is_this_machine(address.host) and address.options.get("protocol") != "tcps":
            yield weakness("dsn", "say protocol=tcps")

    def address(self, dsn: str) -> Database:
        """Read a URI: the service is that of the container database, and `pdb=NAME` names a pluggable one."""
        return database_at(dsn, self.scheme)

    def listed(self, table: Table) -> str:
        """`SCHEMA.TABLE`."""
        return ".".join(named(table))

    def settings(self, connector: Connector) -> Mapping[str, str]:
        """The container and the pluggable database, and the history of the tables."""
        address = connector.database
        settings = {"database.dbname": address.name}
        if pluggable := address.options.get("pdb"):
            settings["database.pdb.name"] = pluggable
        if address.options.get("protocol") == "tcps":
            place = f"{address.host}:{address.port}/{address.name}"
            settings["database.url"] = f"jdbc:oracle:thin:@tcps://{place}?ssl_server_dn_match=true"
        if connector.capture.signal_table:
            (signals,) = tables_named([connector.capture.signal_table])
            inside = pluggable or address.name
            settings["signal.data.collection"] = ".".join((inside.upper(), *named(signals)))
        if connector.capture.heartbeat_table:
            beat = _quoted(connector.capture.heartbeat_table)
            settings["heartbeat.action.query"] = f"UPDATE {beat} SET BEAT = SYSTIMESTAMP WHERE ID = 1"
        return _SETTINGS | settings | history_settings(connector)

    def statements(self, connector: Connector) -> Statements:
        """Supplemental logging, the user's rights, and queries that name what is not as it should be."""
        tables = [named(table) for table in connector.tables]
        pluggable = connector.database.options.get("pdb")
        user, everywhere = connector.database.user, " CONTAINER = ALL" if pluggable else ""
        inside = [f"ALTER SESSION SET CONTAINER = {quoted(pluggable.upper())}"] if pluggable else []
        administrator = [
            "-- the database must archive its redo logs: STARTUP MOUNT; ALTER DATABASE ARCHIVELOG; ALTER DATABASE OPEN",
            "ALTER DATABASE ADD SUPPLEMENTAL LOG DATA",
            f"GRANT {', '.join(_RIGHTS)} TO {user}{everywhere}",
            f"GRANT EXECUTE ON DBMS_LOGMNR TO {user}{everywhere}",
            f"GRANT EXECUTE ON DBMS_LOGMNR_D TO {user}{everywhere}",
        ]
        source = [
            *inside,
            *(f"ALTER TABLE {_quoted('.'.join(t))} ADD SUPPLEMENTAL LOG DATA (ALL) COLUMNS" for t in tables),
        ]
        return Statements([*source, *_own_tables(connector)], administrator, [*inside, *_checks(tables)])


def named(table: Table) -> Named:
    """The last two parts of `SCHEMA.TABLE` or `DB.SCHEMA.TABLE`."""
    owner, dot, name = table.name.partition(".")
    return Named(owner, name) if dot else Named(table.schema, table.name)


def _quoted(name: str) -> str:
    (table,) = tables_named([name])
    return ".".join(map(quoted, named(table)))


def _own_tables(connector: Connector) -> Iterator[str]:
    capture = connector.capture
    if capture.signal_table:
        columns = "ID VARCHAR2(42) PRIMARY KEY, TYPE VARCHAR2(32) NOT NULL, DATA VARCHAR2(2048)"
        yield f"CREATE TABLE {_quoted(capture.signal_table)} ({columns})"
        yield f"ALTER TABLE {_quoted(capture.signal_table)} ADD SUPPLEMENTAL LOG DATA (ALL) COLUMNS"
    if capture.heartbeat_table:
        beat = _quoted(capture.heartbeat_table)
        yield f"CREATE TABLE {beat} (ID NUMBER(9) PRIMARY KEY, BEAT TIMESTAMP NOT NULL)"
        yield f"INSERT INTO {beat} VALUES (1, SYSTIMESTAMP)"


def _checks(tables: Sequence[Named]) -> Iterator[str]:
    yield (
        "SELECT 'the redo logs are not archived: ALTER DATABASE ARCHIVELOG' AS wrong FROM V$DATABASE "
        "WHERE LOG_MODE <> 'ARCHIVELOG'"
    )
    yield (
        "SELECT 'minimal supplemental logging is off: ALTER DATABASE ADD SUPPLEMENTAL LOG DATA' AS wrong FROM V$DATABASE "
        "WHERE SUPPLEMENTAL_LOG_DATA_MIN = 'NO'"
    )
    for table in tables:
        where = f"OWNER = {literal(table.owner)} AND TABLE_NAME = {literal(table.table)}"
        name = literal(".".join(table))[1:-1]
        yield (
            f"SELECT '{name} is not in the database' AS wrong FROM DUAL "
            f"WHERE NOT EXISTS (SELECT 1 FROM ALL_TABLES WHERE {where})"
        )
        yield (
            f"SELECT '{name}: changes lack columns: ALTER TABLE … ADD SUPPLEMENTAL LOG DATA (ALL) COLUMNS' AS wrong FROM DUAL "
            f"WHERE NOT EXISTS (SELECT 1 FROM ALL_LOG_GROUPS WHERE {where} AND LOG_GROUP_TYPE = 'ALL COLUMN LOGGING')"
        )
        yield (
            f"SELECT '{name} has no primary key' AS wrong FROM DUAL "
            f"WHERE NOT EXISTS (SELECT 1 FROM ALL_CONSTRAINTS WHERE {where} AND CONSTRAINT_TYPE = 'P')"
        )
