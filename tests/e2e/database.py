"""A source database with what breaks pipelines in it, and the configuration that reads it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import psycopg

from schemas.tables import TableConfig
from tests.e2e.pipeline import VIEW, embedding
from tests.e2e.rows import source_rows

CANARY = "kanarie-9b04"
"""The value of a column that must not travel, in each row."""
LARGE = "a large body that is stored out of line, in many words. " * 18_000  # 1 MB
CREATE = """
CREATE TABLE {t} (
    id bigint PRIMARY KEY, status text, body text, price numeric(12,2), anything numeric, ratio double precision,
    seen timestamptz, local timestamp, born date, ok boolean, tags text[], data jsonb, raw bytea, u uuid,
    secret text NOT NULL DEFAULT '{canary}');
CREATE TABLE {mixed} ("Id" int PRIMARY KEY, "Some Col" text, body text);
"""
ROW = """INSERT INTO {t} VALUES (%s, %s, %s, 12.30, '1.10', 'NaN', '2026-02-03 04:05:06.789+01', '2026-02-03 04:05:06',
         '2024-02-29', true, ARRAY['a', 'b,c', NULL, 'ü☃'], '{{"n": 1.10, "é": [null, 12345678901234567890]}}',
         '\\x00ff', '6f9619ff-8b86-d011-b42d-00c04fc964ff')"""


class Database:
    """The source, and a random workload on it."""

    def __init__(self, dsn: str) -> None:
        self.dsn, self.random = dsn, random.Random(7)
        self.next = 100
        self.t, self.mixed = "public.everything", 'public."Mixed Case"'
        self.execute(CREATE)

    def execute(self, statement: str, *values: object) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            statement = statement.format(t=self.t, mixed=self.mixed, canary=CANARY)
            connection.execute(statement.encode(), values or None)

    def insert(self, number: int, body: str | None) -> None:
        self.execute(ROW, number, "new", body)

    def some_changes(self) -> None:
        """A few of everything, small."""
        for _ in range(3):
            self.next += 1
            self.insert(self.next, f"body {self.next} " + "word " * self.random.randint(5, 60))
        self.execute("UPDATE {t} SET status = %s WHERE id %% 3 = %s", f"s{self.next}", self.next % 3)
        self.execute("UPDATE {t} SET body = body || ' edited' WHERE id = %s", self.next - 1)
        self.execute("UPDATE {t} SET id = id + 100000 WHERE id = %s", self.next - 2)
        self.execute("DELETE FROM {t} WHERE id = %s", self.next - 4)

    def edges(self) -> None:
        """What breaks pipelines."""
        self.insert(1, LARGE)
        self.insert(2, None)
        self.insert(3, "ünïcödé ☃ 😀 'quotes' \"double\" \\ {braces}\n\ttab")
        self.execute("INSERT INTO {t} (id, ratio, anything) VALUES (4, 'Infinity', 'NaN'), (5, '-Infinity', 1e300)")
        self.execute("UPDATE {t} SET status = 'held' WHERE id = 1")  # the body is left out of the log
        self.execute("UPDATE {t} SET id = 1001 WHERE id = 1")  # and so it is here
        self.execute("UPDATE {t} SET status = NULL, price = NULL WHERE id = 3")
        self.execute("INSERT INTO {mixed} VALUES (1, 'x', 'mixed one'), (2, NULL, 'mixed two')")
        self.execute('UPDATE {mixed} SET "Some Col" = \'ö\' WHERE "Id" = 2')
        self.execute("TRUNCATE {mixed}")
        self.execute("INSERT INTO {mixed} VALUES (2, 'after', 'mixed after'), (3, 'after', 'mixed three')")
        with psycopg.connect(self.dsn) as connection:  # one transaction
            connection.execute(ROW.format(t=self.t).encode(), (6, "new", "six"))
            connection.execute(f"DELETE FROM {self.t} WHERE id = 6".encode())
            connection.execute(ROW.format(t=self.t).encode(), (6, "again", "six again"))

    def source(self, table: TableConfig) -> Any:
        return source_rows(self.dsn, table)


def document(source: dict[str, Any], dsn: str, model_url: str, folder: Path) -> dict[str, Any]:
    dms = source["envelope"] == "dms"  # which says neither that a text is an array nor that a time is in UTC
    declared = {"tags": "array<text>", "seen": "timestamptz"} if dms else {}
    everything = {"template": "{body}", "metadata": ["status", "price"], "chunk": {"max_tokens": 200}}
    return {
        "name": "e2e",
        "source": source,
        "tables": [
            {
                "table": "public.everything",
                "keys": ["id"],
                "columns": declared | {"secret": "drop"},
                "document": everything,
            },
            {
                "table": "public.Mixed Case",
                "keys": ["Id"],
                "document": {"template": "{body}", "metadata": ["Some Col"]},
            },
        ],
        "lake": {"path": str(folder / "lake"), "land_every": "1s", "merge_every": "3s"},
        "embedding": embedding(model_url, model="cohere.embed-v4:0"),
        "sinks": [{"type": "pgvector", "dsn": dsn, "table": VIEW}],
        "checkpoint": str(folder / "checkpoint"),
    }
