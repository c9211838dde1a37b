"""A table of a real database that a `Load` changes: what it sends is one transaction, committed once whoever dies meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

import psycopg
import pymysql

from local_stack.servers.binlog import BinlogDatabase
from schemas.changes import Change
from schemas.tables import TableConfig
from tests.e2e.load import STORE, Acknowledged, Load
from tests.e2e.rows import Kinds, Rows, differences, in_one_form
from tests.waiting import eventually
from transforms.values import exact_json

KINDS: Kinds = {"id": "bigint", "a": "text", "body": "text"}
PROBE = 0
"""The row by which a test sees how far a store has come; a `Load` numbers its rows from 1."""
OTHERS = 1_000_000_000
"""From here on are rows that a test makes beside its load."""
AWAY_SECONDS = 180.0
"""How long a server may be away, or a capture may take to go on after it."""
_CREATE = (
    "CREATE TABLE t (id bigint PRIMARY KEY, a text, body text)",
    "CREATE TABLE done (number bigint)",
    "INSERT INTO done VALUES (0)",
)
_OUT_OF_LINE = ("ALTER TABLE t ALTER body SET STORAGE EXTERNAL", "ALTER TABLE t SET (toast_tuple_target = 128)")
"""PostgreSQL: the log leaves out a body that an update does not change."""
_AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    pymysql.OperationalError,
    pymysql.InterfaceError,
    OSError,
)


class Transactions:
    """A stream of changes that a database takes as statements, and the table that they leave."""

    def __init__(self, table: str, connect: Callable[[], Any], *create: str) -> None:
        """Create the table; `table` is its name as the pipeline has it, and `connect` opens a connection without autocommit."""
        self.table, self.connect = table, connect
        self.committed = 0
        """Changes of the load that were committed; of the two halves of a key change one is counted."""
        self._number, self._probed = 0, 0
        self._connection: Any = None
        self.execute(*_CREATE, *create, f"INSERT INTO t VALUES ({PROBE}, '', 'probe of {table}')")

    def execute(self, *statements: str) -> list[Any]:
        """Run statements in one transaction, on a connection of their own; the rows of the last one."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            read = list(cursor.fetchall()) if cursor.description else []
            connection.commit()
        return read

    def send(self, changes: Sequence[Change], acknowledged: Acknowledged) -> None:
        """Commit changes; returns when they are, however long the server is away."""
        if changes:
            run = list(as_statements(changes))
            self._number += 1
            eventually(lambda: self._is_committed(run), AWAY_SECONDS)
            self.committed += len(run)

    def close(self) -> None:
        """Leave the server."""
        self._disconnect()

    def probe(self) -> str:
        """Commit another value of the probe's row, once its server is there."""
        self._probed += 1
        statement = f"UPDATE t SET a = '{self._probed}' WHERE id = {PROBE}"

        def is_committed() -> bool:
            with suppress(*_AWAY):
                self.execute(statement)
                return True
            return False

        eventually(is_committed, AWAY_SECONDS)
        return str(self._probed)

    def rows(self, config: TableConfig) -> tuple[Rows, Kinds]:
        """The rows that the table has now."""
        read = self.execute("SELECT id, a, body FROM t")
        return in_one_form([dict(zip(KINDS, row, strict=True)) for row in read], config, KINDS), KINDS

    def wrong(self, load: Load, config: TableConfig) -> list[str]:
        """Where the table differs from what a load has made of it."""
        model = in_one_form(list(load.table.rows.values()), config, KINDS)
        rows = {key: row for key, row in self.rows(config)[0].items() if PROBE < row["id"] < OTHERS}
        return differences(model, rows, f"source {self.table}")

    def _is_committed(self, statements: Sequence[tuple[str, tuple[object, ...]]]) -> bool:
        """Commit statements under their number, unless they were committed before their connection broke."""
        try:
            if self._connection is None:
                self._connection = self.connect()
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT number FROM done")
                if cursor.fetchone()[0] < self._number:
                    for statement, values in statements:
                        cursor.execute(statement, values)
                    cursor.execute("UPDATE done SET number = %s", (self._number,))
            self._connection.commit()
        except _AWAY:
            self._disconnect()
            return False
        return True

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*_AWAY):
                connection.close()


def as_statements(changes: Sequence[Change]) -> Iterator[tuple[str, tuple[object, ...]]]:
    """What makes a database emit these changes; of a key change the first half says all."""
    for change in changes:
        key = exact_json.loads(change.key)["id"]
        columns = {name: value for name, value in change.columns.items() if name != "id"}
        if change.new_key:
            yield "UPDATE t SET id = %s WHERE id = %s", (exact_json.loads(change.new_key)["id"], key)
        elif change.op == "d":
            yield "DELETE FROM t WHERE id = %s", (key,)
        elif change.op == "u":
            yield (
                f"UPDATE t SET {', '.join(f'{name} = %s' for name in columns)} WHERE id = %s",
                (*columns.values(), key),
            )
        elif not change.old_key:
            yield "INSERT INTO t (id, a, body) VALUES (%s, %s, %s)", (key, columns["a"], columns["body"])


def in_postgres(dsn: str, schema: str = "public") -> Transactions:
    """A table of a schema of a database of PostgreSQL."""
    with psycopg.connect(dsn) as connection:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}".encode())
    options = f"-c search_path={schema}"
    return Transactions(f"{schema}.t", lambda: psycopg.connect(dsn, options=options), *_OUT_OF_LINE)


def in_binlog_server(server: BinlogDatabase, database: str) -> Transactions:
    """A table of a database of MariaDB or MySQL."""
    return Transactions(f"{database}.t", lambda: server.connect(database, autocommit=False))


def await_shown(
    tables: Sequence[Transactions],
    dsn: str,
    seconds: float = AWAY_SECONDS,
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Wait until the store shows of each table what is committed now: the capture, the stream and the pipeline go on."""
    wanted = {table.table: table.probe() for table in tables}
    query = f"SELECT table_name, metadata->>'a' FROM {STORE} WHERE key->>'id' = '{PROBE}'"

    def is_shown() -> bool:
        meanwhile()
        with suppress(psycopg.OperationalError, psycopg.errors.UndefinedTable), psycopg.connect(dsn) as connection:
            return wanted.items() <= dict(connection.execute(query.encode()).fetchall()).items()
        return False

    eventually(is_shown, seconds)
