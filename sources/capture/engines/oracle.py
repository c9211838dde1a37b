"""Oracle through LogMiner: archived redo logs that have whole rows (supplemental logging).

Statements are those of Oracle's documentation and of Debezium's of its connector; they have run on no server. The
JDBC driver (ojdbc11.jar) is Oracle's own and no part of the connector: it goes into the connector's folder on the worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from sources.capture.engines.history import history_settings
from sources.capture.engines.protocol import Connector, Statements, weak_uri
from sources.capture.target import Database, Scheme, Table, database_at, literal, quoted

_SETTINGS = {
    "connector.class": "io.debezium.connector.oracle.OracleConnector",
    # By default CLOB, NCLOB and BLOB columns come as NULL.
    "lob.enabled": "true",
    # Rows from before a column was added are decoded by the log's own dictionary; that of the database has the new columns
    # alone, and `hybrid` excludes LOBs.
    "log.mining.strategy": "redo_log_catalog",
    "interval.handling.mode": "string",
    "time.precision.mode": "adaptive",
    "event.processing.failure.handling.mode": "fail",
}
_RIGHTS = (
    "CREATE SESSION", "SET CONTAINER", "SELECT ANY TABLE", "FLASHBACK ANY TABLE", "SELECT_CATALOG_ROLE",
    "EXECUTE_CATALOG_ROLE", "SELECT ANY TRANSACTION", "LOGMINING", "CREATE TABLE", "LOCK ANY TABLE", "CREATE SEQUENCE",
)  # fmt: skip


class QualifiedName(NamedTuple):
    """A table's owner and name, as the catalogue has them."""

    owner: str
    table: str


class Oracle:
    """Oracle through LogMiner."""

    scheme = Scheme("Oracle", ("oracle",), 1521)
    poll_interval_ms = 500  # what is mined is asked for by `log.mining.sleep.time.*`

    def weaknesses(self, dsn: str) -> Iterator[str]:
        """Any URI without `protocol=tcps`: Oracle's driver encrypts nothing by itself."""
        return weak_uri(
            self, dsn, lambda address: address.options.get("protocol") != "tcps", "say protocol=tcps", path="SERVICE"
        )

    def address(self, dsn: str) -> Database:
        """Read a URI: the service is that of the container database, and `pdb=NAME` names a pluggable one."""
        return database_at(dsn, self.scheme)

    def listed(self, table: Table) -> str:
        """`SCHEMA.TABLE`."""
        return ".".join(_qualified(table))

    def settings(self, connector: Connector) -> Mapping[str, str]:
        """The container and the pluggable database, and the history of the tables."""
        address = connector.database
        settings = {"database.dbname": address.name}
        if pluggable := address.options.get("pdb"):
            settings["database.pdb.name"] = pluggable
        if address.options.get("protocol") == "tcps":
            place = f"{address.host}:{address.port}/{address.name}"
            settings["database.url"] = f"jdbc:oracle:thin:@tcps://{place}?ssl_server_dn_match=true"
        if connector.signals:
            container = (pluggable or address.name).upper()
            settings["signal.data.collection"] = ".".join((container, *_qualified(connector.signals)))
        if connector.heartbeat:
            settings["heartbeat.action.query"] = (
                f"UPDATE {_quoted(connector.heartbeat)} SET BEAT = SYSTIMESTAMP WHERE ID = 1"
            )
        return _SETTINGS | settings | history_settings(connector)

    def statements(self, connector: Connector) -> Statements:
        """Supplemental logging, the user's rights, and queries that name what is not as it should be."""
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
            *map(_whole_rows, connector.tables),
            *_own_tables(connector),
        ]
        return Statements(source, administrator, [*inside, *_checks(map(_qualified, connector.tables))])


def _qualified(table: Table) -> QualifiedName:
    """The last two parts of `SCHEMA.TABLE` or `DB.SCHEMA.TABLE`."""
    owner, dot, name = table.name.partition(".")
    return QualifiedName(owner, name) if dot else QualifiedName(table.schema, table.name)


def _quoted(table: Table) -> str:
    return ".".join(map(quoted, _qualified(table)))


def _whole_rows(table: Table) -> str:
    return f"ALTER TABLE {_quoted(table)} ADD SUPPLEMENTAL LOG DATA (ALL) COLUMNS"


def _own_tables(connector: Connector) -> Iterator[str]:
    if connector.signals:
        columns = "ID VARCHAR2(42) PRIMARY KEY, TYPE VARCHAR2(32) NOT NULL, DATA VARCHAR2(2048)"
        yield f"CREATE TABLE {_quoted(connector.signals)} ({columns})"
        yield _whole_rows(connector.signals)
    if connector.heartbeat:
        yield f"CREATE TABLE {_quoted(connector.heartbeat)} (ID NUMBER(9) PRIMARY KEY, BEAT TIMESTAMP NOT NULL)"
        yield f"INSERT INTO {_quoted(connector.heartbeat)} VALUES (1, SYSTIMESTAMP)"


def _checks(tables: Iterable[QualifiedName]) -> Iterator[str]:
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
        for wrong, rows in (
            (" is not in the database", f"ALL_TABLES WHERE {where}"),
            (
                ": changes lack columns: ALTER TABLE … ADD SUPPLEMENTAL LOG DATA (ALL) COLUMNS",
                f"ALL_LOG_GROUPS WHERE {where} AND LOG_GROUP_TYPE = 'ALL COLUMN LOGGING'",
            ),
            (" has no primary key", f"ALL_CONSTRAINTS WHERE {where} AND CONSTRAINT_TYPE = 'P'"),
        ):
            text = literal(".".join(table) + wrong)
            yield f"SELECT {text} AS wrong FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM {rows})"
