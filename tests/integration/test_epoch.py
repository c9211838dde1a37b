"""A table that DMS loads once more: rows that changed, went and came meanwhile, in the lake and in the stores."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from glue_jobs import load_warehouse
from glue_jobs.cli.epoch import epoch as command
from glue_jobs.operations.epoch import end_older_rows, loaded_since
from lake.history.current import current_rows
from lake.landing.batch import Landing
from lake.layout import LakeLayout
from lake.tables.merge import TableMerger
from local_stack.models.embeddings import resized
from local_stack.models.instant import instant_vector
from local_stack.servers.aws import Ministack
from local_stack.servers.opensearch import OpenSearch
from local_stack.standins.documentdb.server import DocumentDB
from schemas.errors import ConfigurationError, StoppedError
from schemas.records import Record
from tests.drifting import DriftingTable
from tests.history import TABLE
from tests.lake_fixtures import frame, transaction
from tests.lake_to_store import Lake
from tests.stores import Store, documentdb_store, opensearch_store
from tests.warehouse_fixtures import warehouse_config

AT = "2026-03-01T10:00:00Z"
BEGIN = dt.datetime.fromisoformat(AT)


def row(number: int, a: str) -> dict[str, Any]:
    return {"id": number, "a": a, "body": f"body of {number}, {a}"}


class Task:
    """A DMS task: each record it sends goes to the end of its stream."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def send(self, operation: str, data: dict[str, Any], at: str) -> None:
        owner, _, table = TABLE.partition(".")
        metadata = {"record-type": "data", "operation": operation, "schema-name": owner, "table-name": table}
        metadata["timestamp"] = f"2026-03-01T{at}.500000Z"
        place = len(self.records)
        if operation != "load":
            log = f"00000001/{place:08X}"
            metadata |= {"commit-timestamp": f"2026-03-01T{at}Z", "stream-position": f"{log}.1.{log}"}
        value = {"data": data, "metadata": metadata} | ({"before-image": {}} if operation == "update" else {})
        self.records.append(Record("desk", "0", str(place), None, json.dumps(value).encode()))


def history() -> tuple[list[Record], list[Record]]:
    """What came before the reload, and since: changes were lost between the two."""
    task = Task()
    for number in range(1, 5):
        task.send("load", row(number, "first"), "09:00:00")
    task.send("update", row(1, "edited"), "09:30:00")
    task.send("insert", row(5, "new"), "09:30:01")
    task.send("delete", {"id": 2}, "09:30:02")
    before = len(task.records)
    # Lost: 3 is deleted, 1 is edited, 6 is inserted.
    task.send("insert", row(7, "while it loads"), "10:00:03")
    for number, text in ((1, "edited unseen"), (4, "first"), (5, "new"), (6, "inserted unseen")):
        task.send("load", row(number, text), "10:00:04")
    task.send("update", row(4, "edited while it loads"), "10:00:03")
    task.send("delete", {"id": 5}, "10:00:05")
    return task.records[:before], task.records[before:]


EXPECTED = {1: "edited unseen", 4: "edited while it loads", 6: "inserted unseen", 7: "while it loads"}


class World:
    """A lake and its stores, fed as the jobs do."""

    def __init__(self, spark: SparkSession, lake: Lake) -> None:
        self.spark, self.lake, self.batches, self.key = spark, lake, 0, "id"
        self.others: dict[str, Store] = {}
        """Stores of other kinds, by name."""
        lake.read(format="kinesis", envelope="dms")
        self.layout = LakeLayout(lake.config.lake.path)

    def feed(self, records: Sequence[Record]) -> None:
        self.batches += 1
        Landing(self.layout, "files", self.lake.context).land(
            frame(self.spark, records), transaction("land", self.batches)
        )
        for name in ("live", *self.others):
            self.lake.index_records(name, records)

    def merged(self) -> dict[int, str]:
        changes = self.spark.read.format("delta").load(self.layout.path("changes"))
        self.batches += 1
        merger = TableMerger(self.layout, list(self.lake.config.tables), {"files": self.lake.context})
        merger.merge(changes, transaction("merge", self.batches))
        rows = DeltaTable(self.layout.table(TABLE)).to_pyarrow_table(columns=[self.key, "a"]).to_pylist()
        return {int(row[self.key]): row["a"] for row in rows}

    def current(self) -> dict[int, str]:
        (table,) = self.lake.config.tables
        rows = current_rows(self.layout, table, {"files": self.lake.context})
        return {row[self.key]: row["a"] for row in rows}

    def stored(self, name: str = "live") -> dict[int, str]:
        contents = self.lake.contents(name)
        return {json.loads(key)[self.key]: json.loads(metadata)["a"] for key, metadata, *_ in contents}

    def in_others(self) -> dict[str, dict[int, str]]:
        """The rows of each store of another kind, whose one chunk has its row's text and that text's vector."""
        rows: dict[str, dict[int, str]] = {name: {} for name in self.others}
        for name, store in self.others.items():
            for key, (metadata, ((_, text, vector),)) in store.contents().items():
                number = json.loads(key)["id"]
                assert text == row(number, metadata["a"])["body"]
                assert vector == pytest.approx(resized(instant_vector(text), 512).tolist(), abs=1e-6)
                rows[name][number] = metadata["a"]
        return rows

    def loaded(self, dsn: str) -> dict[int, str]:
        """What readers of the warehouse see once its job has loaded all that has landed."""
        self.lake.drain(self.spark, load_warehouse)
        with psycopg.connect(dsn) as connection:
            rows = connection.execute("SELECT id, a, body FROM desk.t").fetchall()
        assert [body for *_, body in rows] == [row(int(number), a)["body"] for number, a, _ in rows]
        return {int(number): a for number, a, _ in rows}

    def ops(self) -> Counter[str]:
        column = DeltaTable(self.layout.path("changes")).to_pyarrow_table(columns=["_op"]).column(0)
        return Counter(map(str, column.to_pylist()))

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(command, [str(self.lake.path), "--source", "files", "--at", AT, *arguments])


@pytest.fixture
def world(spark: SparkSession, lake: Lake) -> World:
    return World(spark, lake)


@pytest.mark.covers("postgresql", "dms", "reload", "documented")
def test_a_reloaded_table_ends_as_its_source_in_lake_and_stores(world: World) -> None:
    before, since = history()
    world.feed(before)
    assert world.stored() == {1: "edited", 3: "first", 4: "first", 5: "new"}
    world.lake.epoch(AT)
    random.Random(7).shuffle(since)
    world.feed(since)
    assert world.current() == world.stored() == EXPECTED | {3: "first"}, "what the load did not bring is still there"
    planned = world.run("--plan")
    assert (planned.exit_code, world.ops()["t"], planned.output) == (
        0, 0, f"{TABLE}: 4 rows loaded since {BEGIN.isoformat()}; older rows would end\n",
    )  # fmt: skip
    for _ in range(2):
        done = world.run()
        assert (done.exit_code, world.ops()["t"]) == (0, 1), done.output
    world.lake.rebuild(world.spark, "lost")
    for rows in (world.stored(), world.stored("lost"), world.current(), world.merged()):
        assert rows == EXPECTED
    world.feed([*before, *since])  # all of it once more
    assert world.stored() == world.current() == EXPECTED


@pytest.fixture
def with_others(
    world: World, opensearch: OpenSearch, search_index: str, documentdb: DocumentDB, document_database: str
) -> World:
    """It has stores of every kind."""
    uri = documentdb.endpoint["uri"]
    world.lake.only(
        {"type": "pgvector", "name": "live", "dsn": world.lake.dsn, "table": "live"},
        {"type": "opensearch", "url": opensearch.endpoint["url"], "index": search_index, "replicas": 0},
        {"type": "documentdb", "uri": uri, "database": document_database, "collection": "kb"},
    )
    world.others = {
        "opensearch": opensearch_store(opensearch, search_index, "script"),
        "documentdb": documentdb_store(documentdb, document_database),
    }
    return world


@pytest.mark.covers("postgresql", "dms", "reload", "documented")
def test_a_reload_ends_as_its_source_in_opensearch_documentdb_and_warehouse(
    with_others: World, warehouse_dsn: str, aws: Ministack
) -> None:
    world, (before, since) = with_others, history()
    world.lake.change(warehouse=warehouse_config(warehouse_dsn, aws))
    late = [before[at] for at in (2, 4, 5, 6)]

    def are(rows: dict[int, str]) -> None:
        """Every store has these rows, and so has the warehouse, which loads in batches of its own."""
        assert world.in_others() == {"opensearch": rows, "documentdb": rows}
        assert world.stored() == rows
        assert world.loaded(warehouse_dsn) == rows

    world.feed([record for record in before if record not in late])
    are({1: "first", 2: "first", 4: "first"})
    world.lake.epoch(AT)
    world.feed(since[::2])
    assert world.run().exit_code == 0
    are({4: "first", 6: "inserted unseen", 7: "while it loads"})
    world.feed(since[1::2])  # rows that have ended come again
    assert world.run().exit_code == 0
    are(EXPECTED)
    world.feed(late)  # of the epoch before: an edit, a row that is gone, one that was loaded, one that is deleted since
    world.feed([*before, *since])
    assert (world.run().exit_code, world.ops()["t"]) == (0, 1)
    are(EXPECTED)


@pytest.mark.covers("postgresql", "debezium", ("drift", "reload"), "documented")
def test_a_table_with_another_key_goes_on_in_an_epoch(world: World) -> None:
    """The error of the key names the way: on the same lake and checkpoint, and nothing that landed before names a row."""
    world.lake.read()
    table = DriftingTable(dict.fromkeys(("id", "code"), "int32") | dict.fromkeys(("a", "body"), "string"), TABLE)

    def send(op: str, number: int, code: int, a: str = "", key: str = "code") -> None:
        body = {} if op == "d" else {"a": a, "body": f"{number} and {code}, {a}"}
        table.write(op, {"id": number, "code": code} | body, key)

    def feed() -> None:
        world.feed(table.records[len(sent) :])
        sent.extend(table.records[len(sent) :])

    sent: list[Record] = []
    for number in (1, 2, 3):
        send("c", number, number + 10, "first", "id")
    send("d", 3, 13, key="id")
    feed()
    assert world.merged() == world.stored() == world.current() == {1: "first", 2: "first"}
    send("u", 1, 11, "edited")
    send("c", 1, 14, "of the same id")
    feed()
    with pytest.raises(
        StoppedError, match=r"its key was id, as `keys` say, and is code now.*\n.*ragstream epoch CONFIG"
    ):
        world.merged()

    world.lake.keys("code")
    world.lake.epoch(AT)
    world.key, table.began_us = "code", round(BEGIN.timestamp() * 1_000_000)
    for number, code, a in ((1, 11, "edited"), (2, 12, "first"), (1, 14, "of the same id")):
        send("r", number, code, a)
    send("u", 2, 12, "edited since")
    send("d", 1, 14)
    feed()
    done = world.run()
    assert (done.exit_code, world.ops()["t"]) == (0, 1), done.output
    world.lake.rebuild(world.spark, "lost")
    for rows in (world.stored(), world.stored("lost"), world.current(), world.merged()):
        assert rows == {11: "edited", 12: "edited since"}


def test_what_loads_after_the_older_rows_have_ended_is_there_again(world: World) -> None:
    before, since = history()
    world.feed(before)
    world.lake.epoch(AT)
    loads = [record for record in since if b'"load"' in (record.value or b"")]
    world.feed(loads[:1])
    assert world.run().exit_code == 0
    assert world.stored() == world.current() == {1: "edited unseen"}
    world.feed([record for record in since if record is not loads[0]])
    assert world.stored() == world.current() == EXPECTED


def test_an_epoch_unknown_to_a_job_or_without_a_load_ends_nothing(world: World) -> None:
    before, since = history()
    world.feed(before)
    config = world.lake.config
    with pytest.raises(ConfigurationError, match="is not configured"):
        loaded_since(config, "other", BEGIN)
    with pytest.raises(ConfigurationError, match="no epoch of files begins"):
        loaded_since(config, "files", BEGIN)
    knows_no_epoch = world.lake.context
    world.lake.epoch(AT)
    config = world.lake.config
    with pytest.raises(ConfigurationError, match="has landed from files"):
        loaded_since(config, "files", BEGIN)
    known, world.lake.context = world.lake.context, knows_no_epoch
    world.feed(since[:1])
    world.lake.context = known
    world.feed(since)
    with pytest.raises(ConfigurationError, match=f"did not know the epoch .{TABLE}: 1."):
        loaded_since(config, "files", BEGIN)
    assert world.run("--plan").exit_code != 0
    assert world.ops()["t"] == 0


def test_a_table_that_was_loaded_empty_ends_by_its_name(world: World) -> None:
    before, _ = history()
    world.feed(before)
    world.lake.epoch(AT)
    end_older_rows(world.lake.config, loaded_since(world.lake.config, "files", BEGIN, [TABLE]))
    assert world.stored() == world.current() == {}


def test_a_time_without_a_zone_or_with_a_fraction_is_refused() -> None:
    for moment in ("2026-03-01T10:00:00", "2026-03-01T10:00:00.5Z", "soon"):
        result = CliRunner().invoke(command, ["pipeline.yaml", "--source", "s", "--at", moment])
        assert result.exit_code == 2, result.output
