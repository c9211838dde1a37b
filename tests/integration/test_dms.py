"""The DMS stand-in publishes what DMS does: load, then changes from the real log, at least once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from local_stack.servers.aws import Ministack
from local_stack.standins.dms.task import DmsStandIn
from schemas.changes import Changes
from schemas.records import Record
from schemas.tables import TableConfig
from sources.capture.database_tables import ask
from sources.capture.dms import DmsCaptureConfig
from sources.capture.findings import findings
from tests.history import contents, folded
from tests.waiting import eventually
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.decode import decode
from transforms.envelopes.epochs import record_of_epoch

TABLE = (
    'CREATE TABLE "Mixed Case" (id bigint PRIMARY KEY, title text, body text, n numeric, ok boolean, at timestamptz)'
)
NAME = "public.Mixed Case"


@pytest.fixture
def source(source_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(source_dsn, autocommit=True) as connection:
        connection.execute(TABLE)
        yield connection


@contextmanager
def running(task: DmsStandIn) -> Iterator[None]:
    thread = threading.Thread(target=task.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        task.stop.set()
        thread.join(10)
        assert not thread.is_alive()


def published(aws: Ministack, stream: str, count: int) -> list[dict[str, Any]]:
    """Wait for that many records, shard after shard."""
    client = aws.client("kinesis")
    records: list[dict[str, Any]] = []

    def came() -> bool:
        records.clear()
        for shard in client.list_shards(StreamName=stream)["Shards"]:
            at = client.get_shard_iterator(
                StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            page = client.get_records(ShardIterator=at)["Records"]
            records.extend(json.loads(record["Data"]) | {"partition": record["PartitionKey"]} for record in page)
        return len(records) >= count

    eventually(came)
    return records


def task(
    dsn: str, aws: Ministack, stream: str, *, null_and_empty: bool = True, details: bool = True, slot: str = "dms"
) -> DmsStandIn:
    own = f"{slot}_{stream.replace('-', '_')}"[:60].lower()
    client = aws.client("kinesis")
    return DmsStandIn(dsn, [NAME], stream, client, slot=own, null_and_empty=null_and_empty, details=details)


@pytest.mark.covers("postgresql", "dms", ("type", "snapshot", "delete", "key change", "truncate"), "live")
def test_load_then_every_kind_of_change(
    source_dsn: str, source: psycopg.Connection[Any], aws: Ministack, new_stream: Callable[..., str]
) -> None:
    source.execute("INSERT INTO \"Mixed Case\" VALUES (1, 'a', '', 1.10, true, '2026-01-02 03:04:05.6+02')")
    stream = new_stream(1)
    with running(task(source_dsn, aws, stream)):
        published(aws, stream, 2)
        source.execute("INSERT INTO \"Mixed Case\" VALUES (9223372036854775807, NULL, repeat('€', 1), 'NaN')")
        source.execute("UPDATE \"Mixed Case\" SET title = 'b' WHERE id = 1")
        source.execute('UPDATE "Mixed Case" SET id = 2 WHERE id = 1')
        source.execute('DELETE FROM "Mixed Case" WHERE id = 2')
        source.execute('TRUNCATE "Mixed Case"')
        records = published(aws, stream, 7)
    control, load, insert, update, moved, delete, truncated = records
    assert control["metadata"]["operation"] == "create-table"
    assert control["control"]["table-def"]["primary-key"] == ["id"]
    assert load["data"] == {
        "id": 1, "title": "a", "body": "", "n": 1.10, "ok": True, "at": "2026-01-02T01:04:05.6Z"
    }  # fmt: skip
    assert (load["metadata"]["partition-key-type"], load["partition"]) == ("primary-key", f"{NAME}.1")
    assert "stream-position" not in load["metadata"]
    assert insert["data"]["id"] == 9223372036854775807
    assert (insert["data"]["n"], insert["data"]["title"], insert["partition"]) == ("NaN", None, NAME)
    assert "prev-transaction-id" not in insert["metadata"]
    assert (update["data"]["title"], update["before-image"]) == ("b", {})
    assert update["metadata"]["prev-transaction-id"] == insert["metadata"]["transaction-id"]
    assert (moved["metadata"]["operation"], moved["data"]["id"], moved["before-image"]) == ("update", 2, {"id": 1})
    assert delete["data"] == dict.fromkeys(load["data"]) | {"id": 2}
    assert (truncated["metadata"]["operation"], truncated["data"]["id"]) == ("delete", 9223372036854775807)


@pytest.mark.covers("postgresql", "dms", "large value", "live")
def test_an_unchanged_large_column_is_absent_and_null_may_be(
    source_dsn: str, source: psycopg.Connection[Any], aws: Ministack, new_stream: Callable[..., str]
) -> None:
    stream = new_stream(1)
    with running(task(source_dsn, aws, stream, null_and_empty=False)):
        published(aws, stream, 1)
        source.execute(
            "INSERT INTO \"Mixed Case\" SELECT 1, '', string_agg(md5(g::text), '') FROM generate_series(1, 900) g"
        )
        source.execute("UPDATE \"Mixed Case\" SET title = 'b', n = NULL WHERE id = 1")
        _, insert, update = published(aws, stream, 3)
    assert set(insert["data"]) == {"id", "body"}
    assert update["data"] == {"id": 1, "title": "b"}


def test_a_stopped_task_goes_on_without_a_loss(
    source_dsn: str, source: psycopg.Connection[Any], aws: Ministack, new_stream: Callable[..., str]
) -> None:
    stream = new_stream(1)
    with running(task(source_dsn, aws, stream)):
        published(aws, stream, 1)
    source.execute('INSERT INTO "Mixed Case" (id) VALUES (1)')
    source.execute('ALTER TABLE "Mixed Case" ADD COLUMN extra int')
    source.execute('INSERT INTO "Mixed Case" (id, extra) VALUES (2, 3)')
    with running(task(source_dsn, aws, stream)):
        records = published(aws, stream, 3)
    assert [r["data"]["id"] for r in records if "data" in r] == [1, 2]
    assert records[-1]["data"]["extra"] == 3


@pytest.mark.covers("postgresql", "dms", "drift", "live")
def test_a_new_column_is_announced(
    source_dsn: str, source: psycopg.Connection[Any], aws: Ministack, new_stream: Callable[..., str]
) -> None:
    stream = new_stream(1)
    with running(task(source_dsn, aws, stream)):
        published(aws, stream, 1)
        source.execute('ALTER TABLE "Mixed Case" ADD COLUMN extra int')
        source.execute('INSERT INTO "Mixed Case" (id, extra) VALUES (2, 3)')
        _, announced, insert = published(aws, stream, 3)
    assert announced["metadata"]["operation"] == "add-column"
    assert announced["control"]["table-def"]["columns"]["extra"]["type"] == "INT4"
    assert insert["data"]["extra"] == 3


@pytest.mark.covers("postgresql", "dms", "reload", "live")
@pytest.mark.parametrize("details", [True, False], ids=["details", "stream order"])
def test_a_reload_after_lost_changes_ends_as_the_source(
    source_dsn: str, source: psycopg.Connection[Any], aws: Ministack, new_stream: Callable[..., str], *, details: bool
) -> None:
    table = '"Mixed Case"'
    source.execute(f"INSERT INTO {table} SELECT n, 'first' FROM generate_series(1, 4) n")
    stream = new_stream(1)
    with running(task(source_dsn, aws, stream, details=details)):
        published(aws, stream, 5)
        source.execute(f"UPDATE {table} SET title = 'seen' WHERE id = 1")
        source.execute(f"UPDATE {table} SET id = 5 WHERE id = 2")
        published(aws, stream, 7)
    source.execute(f"DELETE FROM {table} WHERE id = 3")  # nobody reads this, nor the next two
    source.execute(f"UPDATE {table} SET title = 'unseen' WHERE id = 1")
    source.execute(f"INSERT INTO {table} VALUES (6, 'unseen')")
    start = int(time.time()) + 1
    eventually(lambda: time.time() > start)
    with running(task(source_dsn, aws, stream, details=details, slot="again")):
        published(aws, stream, 12)
        source.execute(f"UPDATE {table} SET title = 'seen again' WHERE id = 6")
        source.execute(f"DELETE FROM {table} WHERE id = 5")
        records = published(aws, stream, 14)
    context = DecodeContext("dms", {NAME: TableContext(NAME, ("id",))}, epoch_starts_us=(start * 1_000_000,))
    stored = [Record(stream, "0", str(at), None, json.dumps(record).encode()) for at, record in enumerate(records)]
    read = [decode(record, context) for record in [*stored, record_of_epoch("kinesis", NAME, start * 1_000_000)]]
    states = folded([change for meaning in read if isinstance(meaning, Changes) for change in meaning.changes])
    rows = {row["id"]: row["title"] for row in contents(states).values()}
    assert rows == dict(source.execute(f"SELECT id, title FROM {table}").fetchall())


def test_a_partitioned_table_comes_under_the_names_of_its_partitions(
    source_dsn: str, aws: Ministack, new_stream: Callable[..., str]
) -> None:
    with psycopg.connect(source_dsn, autocommit=True) as source:
        source.execute("CREATE TABLE visits (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)")
        source.execute("CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')")
        source.execute("INSERT INTO visits VALUES (1, '2026-01-02')")
        stream = new_stream(1)
        client = aws.client("kinesis")
        with running(
            DmsStandIn(source_dsn, ["public.visits"], stream, client, slot=stream.lower(), null_and_empty=True)
        ):
            published(aws, stream, 2)
            source.execute("CREATE TABLE visits_2 PARTITION OF visits FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')")
            source.execute("INSERT INTO visits VALUES (2, '2026-02-02')")
            source.execute("TRUNCATE visits")
            records = published(aws, stream, 6)
    table = TableConfig(table="public.visits", keys=("id", "day"), partitions=("public.visits_*",))
    context = DecodeContext("dms", {table.table: TableContext(table.table, table.keys, {}, table.partitions)})
    names = {record["metadata"]["table-name"] for record in records}
    assert names == {"visits_1", "visits_2"}
    meanings = [
        decode(Record(stream, "0", str(at), None, json.dumps(record).encode()), context)
        for at, record in enumerate(records)
    ]
    changes = [change for meaning in meanings if isinstance(meaning, Changes) for change in meaning.changes]
    assert [(change.table, change.op) for change in changes] == [("public.visits", op) for op in ("r", "c", "d", "d")]
    assert not contents(folded(changes))


def test_check_says_which_partitions_dms_would_send_unseen(source_dsn: str) -> None:
    with psycopg.connect(source_dsn, autocommit=True) as source:
        source.execute("CREATE TABLE visits (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)")
        source.execute("CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')")
    capture = DmsCaptureConfig(type="dms", dsn=SecretStr(source_dsn))
    for partitions, wrong in (((), 1), (("public.other_*",), 1), (("public.visits_*",), 0)):
        table = TableConfig(table="public.visits", keys=("id", "day"), partitions=partitions)
        result = findings(capture, "desk", [table], ask(capture, [table.table]))
        assert len(result.wrong) == wrong, result
        assert all("not there: public.visits_1" in sentence for sentence in result.wrong)
