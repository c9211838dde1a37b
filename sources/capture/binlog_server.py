"""A captured MySQL or MariaDB, asked by `ragstream check` and `ragstream capture`, never by a job; every query reads alone."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigurationError, UnavailableError
from sources.capture.engines import ENGINES
from sources.capture.engines.binlog import quoted, ssl_mode
from sources.capture.target import Table, tables_named

if TYPE_CHECKING:
    import pymysql

    from sources.capture.part import CapturePart

_VARIABLES = (
    "binlog_expire_logs_seconds", "binlog_format", "binlog_row_image", "binlog_row_value_options", "gtid_mode",
    "innodb_native_foreign_keys", "log_bin", "version",
)  # fmt: skip
_REFUSED = frozenset({1044, 1142, 1143, 1227})
"""Errors of a right that is missing: of a database, a table, a column, any other (`ER_…ACCESS_DENIED…`)."""
_CLIENT_ERRORS = range(2000, 3000)
"""The client's own errors (`CR_…`): the server did not answer. It numbers its refusals otherwise."""
_LOG_STATUS = ("SHOW BINARY LOG STATUS", "SHOW MASTER STATUS")
"""MySQL 8.4 knows the first alone, MariaDB and earlier ones the second; MariaDB 11 both by other names of the right."""
_CASCADE = re.compile(
    r"CONSTRAINT `((?:[^`]|``)+)` FOREIGN KEY .* ON (?:DELETE|UPDATE) (?:CASCADE|SET NULL|SET DEFAULT)"
)
"""In a line of SHOW CREATE TABLE: to a user who may only read, information_schema shows no foreign keys."""


@dataclass(frozen=True, slots=True)
class BinlogColumn:
    """A column of a source table."""

    name: str
    defaulted: bool = False
    """Whether it may be NULL and its default is another value."""


@dataclass(frozen=True, slots=True)
class BinlogTable:
    """A source table."""

    name: str
    kind: str
    """`TABLES.TABLE_TYPE`: BASE TABLE, VIEW, SYSTEM VERSIONED, SEQUENCE."""
    keys: tuple[str, ...]
    """Columns of the primary key, in its order."""
    columns: tuple[BinlogColumn, ...]
    cascades: tuple[str, ...] = ()
    """Foreign keys by which the server itself changes its rows."""
    readable: bool = True
    unique: frozenset[frozenset[str]] = frozenset()
    """Columns of each index, the primary key too, that are unique together and never NULL."""


@dataclass(frozen=True, slots=True)
class BinlogServer:
    """The server; a table that is not in `tables` does not exist, or this user may not see it."""

    variables: Mapping[str, str]
    """System variables by name; one that the server does not have is missing."""
    user: str
    """As it signed in: `'name'@'host'`."""
    grants: tuple[str, ...]
    """As SHOW GRANTS writes them."""
    log_filters: tuple[tuple[str, ...], tuple[str, ...]] | None
    """Databases that alone are in the log, and databases that are not; None where this user may not ask."""
    tables: Mapping[str, BinlogTable] = field(default_factory=dict)
    unparsed: tuple[str, ...] = ()
    """Columns of the tables' databases, `database.table.column`, with a type that Debezium's parser does not know."""

    @property
    def is_mariadb(self) -> bool:
        """Whether it is MariaDB."""
        return "MariaDB" in self.variables.get("version", "")


def ask(capture: CapturePart, tables: Sequence[str]) -> BinlogServer:
    """Ask the server for its log, this user's rights and tables (`database.table`).

    Raises UnavailableError when it does not answer, or refuses.
    """
    named = tables_named(tables)
    with opened(capture) as connection:
        variables = _rows(
            connection,
            f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({', '.join(['%s'] * len(_VARIABLES))})",
            _VARIABLES,
        )
        ((user,),) = _rows(connection, "SELECT CURRENT_USER()")
        databases = sorted({table.schema for table in named})
        existing = [table for name in named if (table := _table(connection, name))]
        return BinlogServer(
            {name: value for name, value in variables if value},
            "@".join(f"'{part}'" for part in user.rsplit("@", 1)),
            tuple(grant for (grant,) in _rows(connection, "SHOW GRANTS")),
            _log_filters(connection),
            {table.name: table for table in existing},
            tuple(".".join(row) for row in _rows(connection, _UNPARSED, (databases,))),
        )


def run(capture: CapturePart, statements: Sequence[str]) -> None:
    """Run statements; raises ConfigurationError when the server refuses one, UnavailableError when it does not answer."""
    import pymysql

    with opened(capture) as connection:
        try:
            for statement in statements:
                _rows(connection, statement)
        except pymysql.MySQLError as error:
            if _code(error) in _CLIENT_ERRORS:
                raise
            raise ConfigurationError(
                f"capture: the source refuses a statement ({_code(error)}).",
                hint="Run what `ragstream capture` prints as its owner.",
            ) from None


@contextmanager
def opened(capture: CapturePart) -> Iterator[pymysql.Connection[Any]]:
    """Open a connection; what fails in it is UnavailableError, without the server's message."""
    import pymysql

    address = capture.address
    mode = ssl_mode(address, allow_plaintext=capture.allow_plaintext)
    try:
        with pymysql.connect(
            host=address.host, port=address.port, user=address.user, password=address.password, connect_timeout=5,
            autocommit=True, charset="utf8mb4", **_encryption(mode, address.options.get("ssl-ca")),
        ) as connection:  # fmt: skip
            yield connection
    except pymysql.MySQLError as error:
        title = ENGINES[capture.database].scheme.title
        raise UnavailableError(
            f"capture: the source's {title} does not answer, or refuses ({_code(error)}), so nothing could be compared with it",
            hint="check `capture.dsn`, and the network route from here to the database",
        ) from None


def _code(error: pymysql.MySQLError) -> int | str:
    """The server's number of an error; a client's own error has none."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else type(error).__name__


def _encryption(mode: str | None, authority: str | None) -> dict[str, Any]:
    if mode in {None, "PREFERRED"}:
        return {}  # encrypted where the server can
    if mode == "DISABLED":
        return {"ssl_disabled": True}
    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = mode == "VERIFY_IDENTITY"
    if mode == "REQUIRED":
        context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}


def _rows(connection: pymysql.Connection[Any], query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values or None)
        return list(cursor.fetchall())


def _log_filters(connection: pymysql.Connection[Any]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    import pymysql

    for query in _LOG_STATUS:
        try:
            rows = _rows(connection, query)
        except pymysql.MySQLError:
            continue
        listed = [tuple(name for name in str(text or "").split(",") if name) for text in (rows[0][2:4] if rows else ())]
        return (listed[0], listed[1]) if listed else ((), ())
    return None


def _table(connection: pymysql.Connection[Any], table: Table) -> BinlogTable | None:
    names = (table.schema, table.name)
    kinds = _rows(connection, _KIND, names)
    if not kinds:
        return None
    columns = tuple(BinlogColumn(name, bool(defaulted)) for name, defaulted in _rows(connection, _COLUMNS, names))
    indexes: dict[str, list[str]] = {}
    for index, column in _rows(connection, _UNIQUE, names):
        indexes.setdefault(index, []).append(column)
    definition = "" if kinds[0][0] == "VIEW" else _definition(connection, table)
    cascades = tuple(
        match[1].replace("``", "`") for line in (definition or "").splitlines() if (match := _CASCADE.search(line))
    )
    unique = frozenset(map(frozenset, indexes.values()))
    keys = tuple(indexes.get("PRIMARY", ()))
    return BinlogTable(".".join(names), kinds[0][0], keys, columns, cascades, definition is not None, unique)


def _definition(connection: pymysql.Connection[Any], table: Table) -> str | None:
    """The CREATE TABLE statement of a table; None where this user may not read it."""
    import pymysql

    try:
        return str(_rows(connection, f"SHOW CREATE TABLE {quoted(table)}")[0][1])
    except pymysql.MySQLError as error:
        if _code(error) in _REFUSED:
            return None
        raise


_KIND = "SELECT TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
_COLUMNS = """
SELECT COLUMN_NAME, IS_NULLABLE = 'YES' AND coalesce(COLUMN_DEFAULT, 'NULL') <> 'NULL' AND EXTRA NOT LIKE '%% GENERATED%%'
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION
"""
_UNIQUE = """
SELECT INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS s
WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND NON_UNIQUE = 0 AND NOT EXISTS (
    SELECT 1 FROM information_schema.STATISTICS part WHERE part.TABLE_SCHEMA = s.TABLE_SCHEMA
    AND part.TABLE_NAME = s.TABLE_NAME AND part.INDEX_NAME = s.INDEX_NAME
    AND (part.NULLABLE = 'YES' OR part.SUB_PART IS NOT NULL OR part.COLUMN_NAME IS NULL)
) ORDER BY INDEX_NAME, SEQ_IN_INDEX
"""
_UNPARSED = """
SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS
WHERE TABLE_SCHEMA IN %s AND lower(DATA_TYPE) IN ('inet4', 'inet6') ORDER BY 1, 2, ORDINAL_POSITION
"""
