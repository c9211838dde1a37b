"""A source in PostgreSQL whose table changes while it is written, and the rows that the policies leave of it."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from schemas.tables import TableConfig
from tests.e2e.pipeline import VIEW, embedding
from tests.e2e.rows import Kinds, Rows, source_rows
from transforms.context import under_names

TABLE, LATER = "public.items", "public.goods"
"""The name that the table has first, and in the pipeline, and the one that it is given at the end."""
ROWS = 30
"""Rows from before the capture."""
QUIET = (1, 2, 3)
"""Rows that nobody writes after the connector's snapshot."""
_CREATE = """
CREATE TABLE public.items (id bigint PRIMARY KEY, title text NOT NULL, body text, n int, price numeric(8,2), big bigint,
  kind int, code int, name varchar(12), tag text, old text)
"""
_INSERT = f"""
INSERT INTO items (id, title, body, n, price, big, kind, code, name, tag, old)
SELECT i, 'title ' || i, 'body of ' || i, i, i * 1.25, i, i % 4, i, 'name ' || i, 'tag ' || i, 'old ' || i
FROM generate_series(1, {ROWS}) i
"""
ALTERS = (
    # a column comes, alone and in the middle of a transaction that writes before and after
    "ALTER TABLE items ADD late text, ADD noise text",
    "UPDATE items SET late = 'late ' || id, noise = 'noise ' || id WHERE id > 3 AND id % 2 = 0",
    (
        "UPDATE items SET n = 1 WHERE id = 4; ALTER TABLE items ADD flag boolean NOT NULL DEFAULT true; "
        "UPDATE items SET flag = id % 3 = 0 WHERE id > 3"
    ),
    # wider
    "ALTER TABLE items ALTER n TYPE bigint, ALTER price TYPE numeric(20,2), ALTER name TYPE text",
    "UPDATE items SET n = n + 3000000000, price = price + 1234567890.12, name = repeat(name, 4) WHERE id > 3 AND id % 3 = 0",
    # narrower: no value is lost
    "ALTER TABLE items ALTER big TYPE smallint",
    "UPDATE items SET big = big + 1 WHERE id > 3 AND id % 5 = 0",
    # another type, with a policy that takes it in (kind) and one that does not (code)
    "ALTER TABLE items ALTER kind TYPE text USING kind::text, ALTER code TYPE text USING code::text",
    "UPDATE items SET kind = 'k' || kind WHERE id > 3 AND id % 2 = 1",
    "UPDATE items SET code = CASE WHEN id % 2 = 0 THEN 'A-' || id ELSE (id + 1)::text END WHERE id > 3",
    # a column goes, and one gets another name
    "ALTER TABLE items DROP old",
    "ALTER TABLE items RENAME tag TO label",
    "UPDATE items SET label = 'label ' || id WHERE id > 3",
)
"""Each a transaction. The rows of QUIET are left alone, so what they keep is what the policies say of rows from before."""


class DriftingSource:
    """The table, and a trickle of changes of it beside whoever alters it."""

    def __init__(self, dsn: str) -> None:
        self.dsn, self.next = dsn, 100
        self.old: dict[int, str | None] = {}
        """What rows had in the column that is dropped."""
        self.execute(_CREATE)
        self.execute(_INSERT)

    def execute(self, statement: str, *values: object) -> None:
        """Statements in one transaction."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute(statement.encode(), values or None)

    def alter(self) -> None:
        """Every change of the table's columns but the one that the template needs."""
        for statement in ALTERS:
            if "DROP old" in statement:
                with psycopg.connect(self.dsn) as connection:
                    self.old = dict(connection.execute("SELECT id, old FROM items").fetchall())
            self.execute(statement)

    @contextmanager
    def trickle(self, table: str = "items", body: str = "body") -> Iterator[None]:
        """Small changes of any rows, one a transaction, while the block runs, and at least twenty."""
        ends, enough = threading.Event(), threading.Event()
        errors: list[BaseException] = []

        def write() -> None:
            r = random.Random(self.next)
            try:
                with psycopg.connect(self.dsn, autocommit=True) as connection:
                    done = 0
                    while not (ends.is_set() and enough.is_set()):
                        self._change(connection, r, table, body)
                        done += 1
                        if done >= 20:
                            enough.set()
                        ends.wait(0.02)
            except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
                errors.append(error)
                enough.set()

        thread = threading.Thread(target=write)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join(60)
        assert errors == []

    def _change(self, connection: psycopg.Connection[Any], r: random.Random, table: str, body: str) -> None:
        number = r.randint(5, self.next)  # row 4 is locked while the table is altered
        match r.randint(0, 5):
            case 0:
                self.next += 1
                insert = f"INSERT INTO {table} (id, title, {body}) VALUES (%s, %s, %s)"
                connection.execute(insert.encode(), (self.next, f"title {self.next}", f"text {self.next}"))
            case 1 if number > 100:
                connection.execute(f"DELETE FROM {table} WHERE id = %s".encode(), (number,))
            case 2:
                text = f"edited {r.randint(0, 99)}"
                connection.execute(f"UPDATE {table} SET {body} = %s WHERE id = %s".encode(), (text, number))
            case _:
                connection.execute(f"UPDATE {table} SET n = n + 1 WHERE id = %s".encode(), (number,))

    def rows(self, table: TableConfig, name: str = TABLE) -> tuple[Rows, Kinds]:
        """What the source has now, under the pipeline's names of the columns."""
        there = TableConfig(table=name, keys=table.keys)
        rows, kinds = source_rows(self.dsn, there)
        return {key: under_names(row, table.renamed) for key, row in rows.items()}, under_names(kinds, table.renamed)


def left_out(source: DriftingSource, table: TableConfig) -> tuple[Rows, Kinds]:
    """Rows of the lake before columns are accepted.

    `noise` is left out, `label` is another column than `tag`, and nobody sent the default of the rows from before `flag`.
    """
    rows, kinds = source.rows(table)
    kinds = {name: kind for name, kind in kinds.items() if name != "noise"}
    for number in QUIET:
        row = rows[f'{{"id":{number}}}']
        row["label"] = None
        del row["flag"]
    return {key: {name: row[name] for name in kinds if name in row} for key, row in rows.items()}, kinds


def left_out_of_the_table(source: DriftingSource, table: TableConfig) -> tuple[Rows, Kinds]:
    """The same of the current table: `code` is an integer still, and no text is one; `old` and `tag` keep what rows had."""
    rows, kinds = left_out(source, table)
    kinds |= {"code": "integer", "old": "text", "tag": "text"}
    for row in rows.values():
        number = row["id"]
        row["code"] = number if number in QUIET else None
        row["old"], row["tag"] = source.old.get(number), f"tag {number}" if number <= ROWS else None
    return with_nulls(rows, kinds), kinds


def accepted(source: DriftingSource, table: TableConfig) -> tuple[Rows, Kinds]:
    """Rows of the lake after: all that the source has, but the default of rows from before it."""
    rows, kinds = source.rows(table, LATER)
    for number in QUIET:
        del rows[f'{{"id":{number}}}']["flag"]
    return rows, kinds


def with_nulls(rows: Rows, kinds: Kinds) -> Rows:
    """Rows as a table with these columns has them: NULL where a column is pending."""
    return {key: {name: row.get(name) for name in kinds} for key, row in rows.items()}


def document(source: dict[str, Any], dsn: str, model_url: str, folder: Path, **table: Any) -> dict[str, Any]:
    """The pipeline, with these keys of its table's section."""
    text = {"template": "{title}\n\n{body}", "metadata": ["n", "kind", "price"], "chunk": {"max_tokens": 100}}
    return {
        "name": "drift",
        "source": source,
        "tables": [{"table": TABLE, "keys": ["id"], "document": text, **table}],
        "lake": {"path": str(folder / "lake"), "land_every": "1s", "merge_every": "2s"},
        "embedding": embedding(model_url, model="cohere.embed-v4:0"),
        "sinks": [{"type": "pgvector", "dsn": dsn, "table": VIEW}],
        "checkpoint": str(folder / "checkpoint"),
    }
