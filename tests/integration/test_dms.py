"""The DMS stand-in publishes what DMS does: load, then changes from the real log, at least once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from local_stack.servers.aws import Ministack
from local_stack.servers.mariadb import MariaDB as MariaDBServer
from local_stack.standins.dms.mariadb import MariaDB
from local_stack.standins.dms.postgresql import PostgreSQL
from local_stack.standins.dms.source import Database
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
from transforms.positions.dms import source_position

NAME = "public.Mixed Case"
MARIADB_TABLE = """CREATE TABLE "Mixed Case" (id bigint unsigned PRIMARY KEY, title varchar(20), body longtext, n decimal(30,10),
  flag bit(1), bits bit(12), small tinyint unsigned, born date, at datetime(6), seen time(3), y year, kind enum('a','b'),
  tags set('x','y','z'), ratio float, raw binary(4)) CHARACTER SET utf8mb4"""


@dataclass
class Source:
    """A table in one engine."""

    name: str
    execute: Callable[..., Sequence[Any]]
    """Runs statements, each in a transaction of its own; the rows of the last one."""
    database: Callable[[str], Database]
    """By the task's name."""

    def rows(self) -> dict[int, str]:
        return dict(self.execute('SELECT id, title FROM "Mixed Case"'))


@pytest.fixture
def postgresql(source_dsn: str) -> Source:
    def execute(*statements: str) -> Sequence[Any]:
        with psycopg.connect(source_dsn, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    execute(
        'CREATE TABLE "Mixed Case" (id bigint PRIMARY KEY, title text, body text, n numeric, ok boolean, at timestamptz)'
    )
    return Source(NAME, execute, lambda task: PostgreSQL(source_dsn, [NAME], task))


@pytest.fixture
def binlog(mariadb: MariaDBServer, mariadb_database: str, tmp_path: Path) -> Source:
    def execute(*statements: str) -> Sequence[Any]:
        return mariadb.execute("SET sql_mode = 'ANSI_QUOTES'", *statements, database=mariadb_database)

    execute(MARIADB_TABLE)
    name, dsn = f"{mariadb_database}.Mixed Case", mariadb.dsn("")
    return Source(name, execute, lambda task: MariaDB(dsn, [name], tmp_path / f"{task}.json"))


@pytest.fixture(params=["postgresql", "binlog"])
def source(request: pytest.FixtureRequest) -> Source:
    chosen: Source = request.getfixturevalue(request.param)
    return chosen


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


def task(source: Source, aws: Ministack, stream: str, name: str = "dms", **settings: bool) -> DmsStandIn:
    own = f"{name}_{stream}"[:60].lower()
    return DmsStandIn(source.database(own), stream, aws.client("kinesis"), **settings)


@pytest.mark.covers("postgresql", "dms", ("type", "snapshot", "delete", "key change", "truncate"), "live")
def test_load_then_every_kind_of_change(postgresql: Source, aws: Ministack, new_stream: Callable[..., str]) -> None:
    source = postgresql
    source.execute("INSERT INTO \"Mixed Case\" VALUES (1, 'a', '', 1.10, true, '2026-01-02 03:04:05.6+02')")
    stream = new_stream(1)
    with running(task(source, aws, stream)):
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


BINLOG_ROW = """1, 'é😀', '', -12.3, b'1', b'101', 255, '0044-03-15', '9999-12-31 23:59:59.999999', '-838:59:59.4', 2155, 'b',
  'z,x', 1.5, x'0100'"""
BINLOG_DATA = {
    "id": 1, "title": "é😀", "body": "", "n": -12.3, "flag": True, "bits": "0x0005", "small": 255, "born": "0044-03-15",
    "at": "9999-12-31T23:59:59.999999Z", "seen": "-838:59:59.400000", "y": 2155, "kind": "b", "tags": "x,z", "ratio": 1.5,
    "raw": "0x01000000",
}  # fmt: skip


@pytest.mark.covers("mariadb", "dms", ("type", "snapshot", "delete", "key change"), "live")
def test_a_binary_log_comes_in_the_form_of_mysqls_samples(
    binlog: Source, aws: Ministack, new_stream: Callable[..., str]
) -> None:
    binlog.execute(f'INSERT INTO "Mixed Case" VALUES ({BINLOG_ROW.replace("-12.3", "5")})')
    stream = new_stream(1)
    with running(task(binlog, aws, stream)):
        published(aws, stream, 2)
        binlog.execute(
            f'REPLACE INTO "Mixed Case" VALUES ({BINLOG_ROW})',
            "INSERT INTO \"Mixed Case\" (id, born, at, tags) VALUES (18446744073709551615, 0, 0, ''), (3, NULL, NULL, NULL)",
            "FLUSH LOGS",
            'UPDATE "Mixed Case" SET id = id + 10 WHERE id < 10 ORDER BY id',
            'DELETE FROM "Mixed Case" WHERE id = 11',
        )
        control, load, replaced, *changes = published(aws, stream, 8)
    types = {name: column["type"] for name, column in control["control"]["table-def"]["columns"].items()}
    wanted = "UINT8 WSTRING NCLOB NUMERIC BOOLEAN BYTES UINT1 DATE DATETIME STRING INT2 STRING STRING REAL8 BYTES"
    assert list(types.values()) == wanted.split()
    assert (load["data"], replaced["data"]) == (BINLOG_DATA | {"n": 5}, BINLOG_DATA)
    largest, nulls, first, second, gone = (change["data"] for change in changes)
    assert largest == dict.fromkeys(BINLOG_DATA) | {"id": 2**64 - 1, "tags": ""}
    assert (nulls, second) == (dict.fromkeys(BINLOG_DATA) | {"id": 3}, dict.fromkeys(BINLOG_DATA) | {"id": 13})
    assert first == gone == BINLOG_DATA | {"id": 11}, "a delete has the whole row"
    assert [change.get("before-image") for change in changes] == [None, None, {"id": 1}, {"id": 3}, None]
    metadata = [replaced["metadata"], *(change["metadata"] for change in changes)]
    assert [fields["transaction-record-id"] for fields in metadata] == [1, 1, 2, 1, 2, 1]
    assert len({fields["transaction-id"] for fields in metadata}) == 4
    places = [fields["stream-position"].split(":") for fields in metadata]
    for fields, (file, at, _, following, transaction, begin_file, begin) in zip(metadata, places, strict=True):
        assert (file, int(transaction)) == (begin_file, fields["transaction-id"])
        assert int(file.rpartition(".")[2]) == fields["transaction-id"] >> 32
        assert fields["transaction-id"] % 2**32 < int(begin) < int(at) < int(following)
    assert [row for _, _, row, *_ in places] == ["0", "0", "1", "0", "1", "0"]
    assert len({file for file, *_ in places}) == 2
    order = [source_position(fields["stream-position"]) for fields in metadata]
    assert order == sorted(set(order))


@pytest.mark.covers("mariadb", "dms", "truncate", "live")
def test_a_truncate_in_a_binary_log_needs_a_reload(
    binlog: Source, aws: Ministack, new_stream: Callable[..., str]
) -> None:
    binlog.execute("INSERT INTO \"Mixed Case\" (id, title) VALUES (1, 'first'), (2, 'first')")
    stream = new_stream(1)
    with running(task(binlog, aws, stream)):
        published(aws, stream, 3)
        binlog.execute('TRUNCATE "Mixed Case"', "INSERT INTO \"Mixed Case\" (id, title) VALUES (2, 'after')")
        records = published(aws, stream, 4)
    assert [record["metadata"]["operation"] for record in records] == ["create-table", "load", "load", "insert"]
    start = int(time.time()) + 1
    eventually(lambda: time.time() > start)
    with running(task(binlog, aws, stream, name="again")):
        records = published(aws, stream, 6)
    assert rows_after_epoch(binlog, records, start) == binlog.rows() == {2: "after"}


@pytest.mark.covers("postgresql", "dms", "large value", "live")
def test_an_unchanged_large_column_is_absent_and_null_may_be(
    postgresql: Source, aws: Ministack, new_stream: Callable[..., str]
) -> None:
    source, stream = postgresql, new_stream(1)
    with running(task(source, aws, stream, null_and_empty=False)):
        published(aws, stream, 1)
        source.execute(
            "INSERT INTO \"Mixed Case\" SELECT 1, '', string_agg(md5(g::text), '') FROM generate_series(1, 900) g"
        )
        source.execute("UPDATE \"Mixed Case\" SET title = 'b', n = NULL WHERE id = 1")
        _, insert, update = published(aws, stream, 3)
    assert set(insert["data"]) == {"id", "body"}
    assert update["data"] == {"id": 1, "title": "b"}


def test_a_stopped_task_goes_on_without_a_loss(source: Source, aws: Ministack, new_stream: Callable[..., str]) -> None:
    stream = new_stream(1)
    with running(task(source, aws, stream)):
        published(aws, stream, 1)
    source.execute('INSERT INTO "Mixed Case" (id) VALUES (1)')
    source.execute('ALTER TABLE "Mixed Case" ADD COLUMN extra int')
    source.execute('INSERT INTO "Mixed Case" (id, extra) VALUES (2, 3)')
    with running(task(source, aws, stream)):
        records = published(aws, stream, 3)
    assert [r["data"]["id"] for r in records if "data" in r] == [1, 2]
    assert records[-1]["data"]["extra"] == 3


@pytest.mark.covers(("postgresql", "mariadb"), "dms", "drift", "live")
def test_a_new_column_is_announced(source: Source, aws: Ministack, new_stream: Callable[..., str]) -> None:
    stream = new_stream(1)
    with running(task(source, aws, stream)):
        published(aws, stream, 1)
        source.execute('ALTER TABLE "Mixed Case" ADD COLUMN extra int')
        source.execute('INSERT INTO "Mixed Case" (id, extra) VALUES (2, 3)')
        _, announced, insert = published(aws, stream, 3)
    assert announced["metadata"]["operation"] == "add-column"
    assert announced["control"]["table-def"]["columns"]["extra"]["type"] == "INT4"
    assert insert["data"]["extra"] == 3


@pytest.mark.covers(("postgresql", "mariadb"), "dms", "reload", "live")
@pytest.mark.parametrize("details", [True, False], ids=["details", "stream order"])
def test_a_reload_after_lost_changes_ends_as_the_source(
    source: Source, aws: Ministack, new_stream: Callable[..., str], *, details: bool
) -> None:
    table = '"Mixed Case"'
    source.execute(f"INSERT INTO {table} (id, title) VALUES {', '.join(f"({n}, 'first')" for n in range(1, 5))}")
    stream = new_stream(1)
    with running(task(source, aws, stream, details=details)):
        published(aws, stream, 5)
        source.execute(f"UPDATE {table} SET title = 'seen' WHERE id = 1")
        source.execute(f"UPDATE {table} SET id = 5 WHERE id = 2")
        published(aws, stream, 7)
    source.execute(f"DELETE FROM {table} WHERE id = 3")  # nobody reads this, nor the next two
    source.execute(f"UPDATE {table} SET title = 'unseen' WHERE id = 1")
    source.execute(f"INSERT INTO {table} (id, title) VALUES (6, 'unseen')")
    start = int(time.time()) + 1
    eventually(lambda: time.time() > start)
    with running(task(source, aws, stream, name="again", details=details)):
        published(aws, stream, 12)
        source.execute(f"UPDATE {table} SET title = 'seen again' WHERE id = 6")
        source.execute(f"DELETE FROM {table} WHERE id = 5")
        records = published(aws, stream, 14)
    assert rows_after_epoch(source, records, start) == source.rows()


def rows_after_epoch(source: Source, records: Sequence[dict[str, Any]], start: int) -> dict[int, str]:
    """What records leave where an epoch began at a second, and was ended."""
    name = source.name
    context = DecodeContext("dms", {name: TableContext(name, ("id",))}, epoch_starts_us=(start * 1_000_000,))
    stored = [Record("s", "0", str(at), None, json.dumps(record).encode()) for at, record in enumerate(records)]
    read = [decode(record, context) for record in [*stored, record_of_epoch("kinesis", name, start * 1_000_000)]]
    states = folded([change for meaning in read if isinstance(meaning, Changes) for change in meaning.changes])
    return {int(str(row["id"])): str(row["title"]) for row in contents(states).values()}


def test_a_partitioned_table_comes_under_the_names_of_its_partitions(
    source_dsn: str, aws: Ministack, new_stream: Callable[..., str]
) -> None:
    with psycopg.connect(source_dsn, autocommit=True) as source:
        source.execute("CREATE TABLE visits (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)")
        source.execute("CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')")
        source.execute("INSERT INTO visits VALUES (1, '2026-01-02')")
        stream = new_stream(1)
        client = aws.client("kinesis")
        with running(DmsStandIn(PostgreSQL(source_dsn, ["public.visits"], stream.lower()), stream, client)):
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
