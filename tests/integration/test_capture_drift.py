"""A table whose columns and name change under a connector as `ragstream capture` renders it, folded as its policies say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from pymysql.cursors import DictCursor

from glue_jobs.cli.main import cli
from glue_jobs.config.pipeline import load_config
from local_stack.servers.binlog import BinlogDatabase
from local_stack.servers.connect import Connect
from local_stack.servers.kafka import Broker
from tests.captured import captured_by, configured, wrong_with_capture
from tests.drifting import MemoryTable, shuffled
from tests.servers import new_binlog_database

SNAPSHOT = 3
ALTERS = """
ALTER TABLE items ADD late text, ADD noise text
UPDATE items SET late = 'l', noise = 'x' WHERE id = 1
{retype}
UPDATE items SET n = 3000000000, code = 'A-2' WHERE id = 2
UPDATE items SET id = 20 WHERE id = 2
ALTER TABLE items DROP old
ALTER TABLE items RENAME COLUMN tag TO label
INSERT INTO items (id, n, code, label) VALUES (3, 3, '3', 'third')
DELETE FROM items WHERE id = 9
ALTER TABLE items RENAME TO goods
UPDATE goods SET label = 'second' WHERE id = 20
INSERT INTO goods (id, n, code) VALUES (4, 4, '4')
""".strip().splitlines()
RETYPE = {
    "postgresql": "ALTER TABLE items ALTER n TYPE bigint, ALTER big TYPE int, ALTER code TYPE text USING code::text",
    "mariadb": "ALTER TABLE items MODIFY n bigint, MODIFY big int, MODIFY code text",
}
RETYPE["mysql"] = RETYPE["mariadb"]
GONE = {"postgresql": "partitions: [NEW NAME]", "mariadb": "is not in the database", "mysql": "is not in the database"}
"""What check says of a table whose new name is not configured."""


CREATE = (
    "CREATE TABLE items (id int PRIMARY KEY, n int, big bigint, code int, old text, tag text)",
    *(f"INSERT INTO items VALUES ({i}, {i}, {i}, {i}, 'o{i}', 't{i}')" for i in (1, 2, 9)),
)


@dataclass
class Source:
    """A database of some kind with the table."""

    kind: str
    dsn: str
    schema: str
    """What its tables' names begin with."""
    connection: Any

    def execute(self, statement: str) -> list[dict[str, Any]]:
        """Run a statement; its rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement.encode())
            return list(cursor.fetchall()) if cursor.description else []


@pytest.fixture(params=["postgresql", "mariadb", pytest.param("mysql", marks=pytest.mark.mysql)])
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    for made in opened(request):
        for statement in CREATE:
            made.execute(statement)
        yield made


def opened(request: pytest.FixtureRequest) -> Iterator[Source]:
    if request.param == "postgresql":
        dsn = request.getfixturevalue("source_dsn")
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
            yield Source("postgresql", dsn, "public", connection)
    else:
        server: BinlogDatabase = request.getfixturevalue(request.param)
        for name in new_binlog_database(server):
            with server.connect(name, cursorclass=DictCursor) as client:
                yield Source(server.part, server.dsn(name), name, client)


@pytest.mark.covers(("postgresql", "mariadb", "mysql"), "debezium", "drift", "live")
def test_columns_and_a_name_that_change_lose_no_change(
    source: Source, kafka: Broker, connect: Connect, tmp_path: Path
) -> None:
    items = {"table": f"{source.schema}.items", "keys": ["id"]}
    policies = {"drift_exceptions": {"noise": "ignore", "code": "ignore"}, "partitions": [f"{source.schema}.goods"]}
    path = configured(tmp_path, source.dsn, connect, kafka, [items | policies], source.kind)
    (table,) = load_config(path).tables
    with captured_by(path, connect, kafka) as topics:
        topics.changes(SNAPSHOT)  # what is committed before it ends is in it, and no record of its own
        for statement in ALTERS:
            source.execute(statement.format(retype=RETYPE[source.kind]))
        # A key change is two records, or one without a key: the connector asks the catalogue for a table's key when it comes to
        # a change, and then the table may have another name already.
        for last in (b'"before":{"id":9,', b'"after":{"id":4,'):
            topics.changes_until(last)
        assert wrong_with_capture(path) == []
        cli.main(["capture", str(path), "--apply"], standalone_mode=False)
        old_name_alone = configured(tmp_path, source.dsn, connect, kafka, [items], source.kind)
        assert GONE[source.kind] in "\n".join(wrong_with_capture(old_name_alone))

    lake = MemoryTable(table)
    for batch in shuffled(topics.records, 3):
        lake.merge(batch)
    there = {f'{{"id":{row["id"]}}}': row for row in source.execute("SELECT * FROM goods")}
    older = {"old": {1: "o1", 20: "o2"}, "tag": {1: "t1", 20: "t2"}}
    assert lake.contents == {
        key: {
            "id": row["id"], "n": row["n"], "big": row["big"], "late": row["late"],
            "code": 1 if row["id"] == 1 else None,  # the others were written since, and a text is no integer
            "label": None if row["id"] == 1 else row["label"],  # nobody wrote it since
            **{name: values.get(row["id"]) for name, values in older.items()},
        }
        for key, row in there.items()
    }  # fmt: skip
    lake.configure(table.model_copy(update={"drift_exceptions": {}, "renamed": {"label": "tag"}}))
    old = [row.pop("old") for row in lake.contents.values()]
    assert sorted(filter(None, old)) == ["o1", "o2"]
    contents = {key: {n: v for n, v in row.items() if n != "old"} for key, row in lake.contents.items()}
    assert contents == {key: {"tag" if n == "label" else n: v for n, v in row.items()} for key, row in there.items()}
