"""A table whose columns and name change under a connector as `ragstream capture` renders it, folded as its policies say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from glue_jobs.cli.main import cli
from glue_jobs.config.pipeline import load_config
from local_stack.servers.connect import Connect
from local_stack.servers.kafka import Broker
from tests.captured import captured_by, configured, wrong_with_capture
from tests.drifting import MemoryTable, shuffled

ITEMS, GOODS = "public.items", "public.goods"
SNAPSHOT = 3
ALTERS = """
ALTER TABLE items ADD late text, ADD noise text
UPDATE items SET late = 'l', noise = 'x' WHERE id = 1
ALTER TABLE items ALTER n TYPE bigint, ALTER big TYPE int, ALTER code TYPE text USING code::text
UPDATE items SET n = 3000000000, code = 'A-2' WHERE id = 2
UPDATE items SET id = 20 WHERE id = 2
ALTER TABLE items DROP old
ALTER TABLE items RENAME tag TO label
INSERT INTO items (id, n, code, label) VALUES (3, 3, '3', 'third')
DELETE FROM items WHERE id = 9
ALTER TABLE items RENAME TO goods
UPDATE goods SET label = 'second' WHERE id = 20
INSERT INTO goods (id, n, code) VALUES (4, 4, '4')
""".strip().splitlines()
TABLE = {
    "table": ITEMS, "keys": ["id"], "drift_exceptions": {"noise": "ignore", "code": "ignore"}, "partitions": [GOODS],
}  # fmt: skip


@pytest.fixture
def source(source_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(source_dsn, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY, n int, big bigint, code int, old text, tag text)")
        connection.execute("INSERT INTO items SELECT i, i, i, i, 'o' || i, 't' || i FROM unnest(ARRAY[1, 2, 9]) i")
        yield connection


@pytest.mark.covers("postgresql", "debezium", "drift", "live")
def test_columns_and_a_name_that_change_lose_no_change(
    source: psycopg.Connection[Any], source_dsn: str, kafka: Broker, connect: Connect, tmp_path: Path
) -> None:
    path = configured(tmp_path, source_dsn, connect, kafka, [TABLE])
    (table,) = load_config(path).tables
    with captured_by(path, connect, kafka) as topics:
        topics.changes(SNAPSHOT)  # what is committed before it ends is in it, and no record of its own
        for statement in ALTERS:
            source.execute(statement.encode())
        # A key change is two records, or one without a key: the connector asks the catalogue for a table's key when it comes to
        # a change, and then the table may have another name already.
        for last in (b'"before":{"id":9,', b'"after":{"id":4,'):
            topics.changes_until(last)
        assert wrong_with_capture(path) == []
        cli.main(["capture", str(path), "--apply"], standalone_mode=False)
        old_name_alone = configured(tmp_path, source_dsn, connect, kafka, [{"table": ITEMS, "keys": ["id"]}])
        assert "partitions: [NEW NAME]" in "\n".join(wrong_with_capture(old_name_alone))

    lake = MemoryTable(table)
    for batch in shuffled(topics.records, 3):
        lake.merge(batch)
    there = {f'{{"id":{row["id"]}}}': row for row in source.execute("SELECT * FROM goods").fetchall()}
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
