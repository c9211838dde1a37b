"""A source in MariaDB or MySQL with what breaks pipelines in it, its rows in one form, and its pipeline."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_stack.servers.binlog import BinlogDatabase
from schemas.tables import TableConfig
from tests.e2e.pipeline import VIEW, embedding
from tests.e2e.rows import Kinds, Rows, in_one_form

CREATE = """
CREATE TABLE things (id bigint unsigned PRIMARY KEY, status varchar(20), body longtext, price decimal(12,2), big bigint unsigned,
  y year, born date, span time(6), at datetime(6), seen timestamp(6) NULL, kind enum('a','b ''c'), tags set('x','y','z'),
  flag bit(1), bits bit(12), raw varbinary(20), data json, place point, own {own}) CHARACTER SET utf8mb4;
CREATE TABLE `Mixed Case` (`Id` int PRIMARY KEY, `Some Col` text, body text) CHARACTER SET utf8mb4
"""
ROW = """
INSERT INTO things VALUES (%s, %s, %s, 12.30, 18446744073709551615, 2155, '0044-03-15', '-838:59:59',
  '9999-12-31 23:59:59.999999', '2024-02-29 12:34:56.789012', 'b ''c', 'x,z', b'1', b'101', x'00FF',
  '{{"n": 1.10, "é": [null, 12345678901234567890]}}', ST_GeomFromText('POINT(1.5 -2.5)', 4326), {own})
"""
EDGES = """
INSERT INTO things (id, born, at, seen, span) VALUES (4, '0000-00-00', '0000-00-00', NULL, '-00:00:00.000001');
INSERT INTO things (id, kind, tags, flag, bits, y) VALUES
  (18446744073709551615, 'a', '', b'0', b'0', 1901), (5, NULL, 'y', NULL, NULL, 2000);
UPDATE things SET status = 'held' WHERE id = 1;
UPDATE things SET id = 1001 WHERE id = 1;
UPDATE things SET status = NULL, price = NULL, data = NULL WHERE id = 3;
REPLACE INTO things (id, status) VALUES (5, 'replaced');
INSERT INTO things (id, status) VALUES (5, 'again') ON DUPLICATE KEY UPDATE status = 'updated', id = 55;
INSERT INTO `Mixed Case` VALUES (1, 'x', 'mixed one'), (2, NULL, 'mixed two');
FLUSH LOGS;
UPDATE `Mixed Case` SET `Some Col` = 'ö' WHERE `Id` = 2;
TRUNCATE `Mixed Case`;
INSERT INTO `Mixed Case` VALUES (2, 'after', 'mixed after'), (3, 'after', 'mixed three')
"""
KINDS: dict[str, Kinds] = {
    "things": {
        "id": "numeric", "status": "text", "body": "text", "price": "numeric", "big": "numeric", "y": "integer",
        "born": "text", "span": "text", "at": "timestamp without time zone", "seen": "timestamp with time zone",
        "kind": "text", "tags": "text", "flag": "boolean", "bits": "text", "raw": "bytea", "data": "json", "place": "json",
    },
    "Mixed Case": {"Id": "integer", "Some Col": "text", "body": "text"},
}  # fmt: skip
_EXPRESSIONS = {
    "born": "NULLIF(CAST(born AS CHAR), '0000-00-00')",
    "span": "TRIM(TRAILING '.000000' FROM CAST(span AS CHAR))",
    "at": "NULLIF(CAST(at AS CHAR), '0000-00-00 00:00:00.000000')",
    "seen": "CONCAT(CAST(seen AS CHAR), '+00:00')",
    "flag": "flag + 0",
    "bits": "LPAD(BIN(bits), 12, '0')",
    "data": "CAST(data AS CHAR)",
}
"""How a value is read as the pipeline has it: a zero date is NULL."""
_POINT = """CONCAT('{{"x":', {x}, ',"y":', {y}, ',"wkb":"', TO_BASE64({wkb}), '","srid":', ST_SRID(place), '}}')"""


@dataclass(frozen=True)
class Kind:
    """What a kind of server, or a way in, alone has: a type, how values are read as the pipeline has them."""

    type: str
    literal: str
    kinds: Kinds
    expressions: dict[str, str]
    empty: str = "TRUNCATE"
    """How a table is emptied."""


SERVER_KINDS = {
    "mariadb": Kind(
        "uuid",
        "'6f9619ff-8b86-d011-b42d-00c04fc964ff'",
        {"own": "uuid"},
        {
            "own": "CAST(own AS CHAR)",
            "place": _POINT.format(x="ST_X(place)", y="ST_Y(place)", wkb="ST_AsWKB(place)"),
        },
    ),
    "mysql": Kind(
        "vector(3)",
        "STRING_TO_VECTOR('[1.5, -0.1, 3e-7]')",
        {"own": "real[]"},
        {
            "own": "VECTOR_TO_STRING(own)",
            # Of SRID 4326 it writes the latitude first, and keeps the longitude first.
            "place": _POINT.format(
                x="ST_Longitude(place)", y="ST_Latitude(place)", wkb="ST_AsWKB(place, 'axis-order=long-lat')"
            ),
        },
    ),
}

DMS = Kind(
    "varchar(9)",
    "'own'",
    {"own": "text", "place": "bytea", "bits": "bytea"},
    {"bits": "bits"},
    "DELETE FROM",
)
"""MariaDB by DMS, whose guide has neither a uuid nor a record for TRUNCATE."""

KEEP_ALIVE_MS = "5000"
"""`connect.keep.alive.interval.ms`: a connector sees so late that its server was restarted; by default after a minute or two."""


class BinlogSource:
    """The source."""

    def __init__(self, server: BinlogDatabase, database: str, kind: Kind | None = None) -> None:
        self.server, self.database, self.kind = server, database, kind or SERVER_KINDS[server.part]
        self.row = ROW.format(own=self.kind.literal)
        self.execute(*CREATE.format(own=self.kind.type).split(";\n"))

    @property
    def tables(self) -> list[str]:
        return [f"{self.database}.things", f"{self.database}.Mixed Case"]

    def execute(self, *statements: str) -> None:
        """Each in a transaction of its own; zero dates are let in."""
        self.server.execute("SET sql_mode = ''", *statements, database=self.database)

    def insert(self, number: int, body: str | None) -> None:
        """A row with a value in every column."""
        with self.server.connect(self.database) as connection, connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00'")
            cursor.execute(self.row, (number, "new", body))

    def before_the_capture(self) -> None:
        """Rows that its first snapshot tells."""
        for number in range(10, 40):
            self.insert(number, f"row {number} before the capture " * 4)
        self.execute("UPDATE things SET y = 1901, born = '0000-00-00', span = '838:59:59' WHERE id = 11")

    def edges(self) -> None:
        """What breaks pipelines, over two files of the log."""
        self.insert(1, "a large body, in many words. " * 3000)
        self.insert(2, None)
        self.insert(3, "ünïcödé ☃ 😀 'quotes' \"double\" \\ {braces}\n\ttab")
        self.execute(*EDGES.replace("TRUNCATE", self.kind.empty).split(";\n"))
        with self.server.connect(self.database, autocommit=False) as connection, connection.cursor() as cursor:
            cursor.execute(self.row, (6, "new", "six"))
            cursor.execute("DELETE FROM things WHERE id = 6")
            cursor.execute(self.row, (6, "again", "six again"))
            cursor.execute("UPDATE things SET id = 7 WHERE id = 6")
            connection.commit()

    def source(self, table: TableConfig) -> tuple[Rows, Kinds]:
        """The rows that a table has now."""
        name = table.table.removeprefix(f"{self.database}.")
        kinds, expressions = KINDS[name], _EXPRESSIONS | self.kind.expressions
        if name == "things":
            kinds = kinds | self.kind.kinds
        columns = ", ".join(expressions.get(column, f"`{column}`") for column in kinds)
        query = f"SELECT {columns} FROM `{name}`"
        read = self.server.execute("SET time_zone = '+00:00'", query, database=self.database)
        rows = [dict(zip(kinds, row, strict=True)) for row in read]
        for row in rows:
            if kinds.get("own") == "real[]" and row["own"]:
                row["own"] = json.loads(row["own"])
        return in_one_form(rows, table, kinds), kinds


def document(source: dict[str, Any], database: str, dsn: str, model_url: str, folder: Path) -> dict[str, Any]:
    """The pipeline that reads it."""
    things = {"template": "{body}", "metadata": ["status", "price", "big", "kind"], "chunk": {"max_tokens": 200}}
    mixed = {"template": "{body}", "metadata": ["Some Col"]}
    return {
        "name": "binlog",
        "source": source,
        "tables": [
            {"table": f"{database}.things", "keys": ["id"], "document": things},
            {"table": f"{database}.Mixed Case", "keys": ["Id"], "document": mixed},
        ],
        "lake": {"path": str(folder / "lake"), "land_every": "1s", "merge_every": "3s"},
        "embedding": embedding(model_url, model="cohere.embed-v4:0"),
        "sinks": [{"type": "pgvector", "dsn": dsn, "table": VIEW}],
        "checkpoint": str(folder / "checkpoint"),
    }
