"""A store compared with the lake: clean, damaged in every way behind the pipeline's back, mended, and while it is written."""

from __future__ import annotations

import json
import random
import threading
from contextlib import closing
from itertools import batched
from pathlib import Path

import psycopg
import pytest
from pyspark.sql import SparkSession

from glue_jobs.status.report import status
from local_stack.models.service import ModelService
from local_stack.servers.opensearch import OpenSearch
from schemas.errors import ConfigurationError
from schemas.records import Record
from sinks.opensearch.schema import Names
from tests.history import ModelTable, as_record, random_history
from tests.lake_to_store import Lake

CANARY = "canary"


@pytest.fixture
def lake(lake: Lake) -> Lake:
    """One whose source can be asked, and holds nothing: whatever may have been read is landed."""
    lake.read()
    return lake


def recorded(record: Record) -> str:
    """A line of recorded events."""
    value: object = json.loads(record.value or b"")
    event: dict[str, object] = {
        "topic": record.stream,
        "partition": int(record.partition),
        "offset": int(record.position),
    }
    event |= {"key": None, "timestamp": 1, "headers": [], "value": value}
    if record.stream == "dms":
        event = {"stream": record.stream, "shard_id": record.partition, "sequence_number": record.position}
        event |= {"partition_key": "k", "arrival": 1, "data": value}
    return json.dumps(event)


def loaded_by_dms(number: int, *, position: str = "") -> Record:
    """A row of a full load, which has no position in its source and ranks below all that has one; or a change."""
    names = {"schema-name": "public", "table-name": "t", "partition-key-type": "schema-table", "record-type": "data"}
    operation = {"operation": "update", "stream-position": position} if position else {"operation": "load"}
    metadata = names | operation | {"timestamp": "2026-03-01T10:00:01.000000Z"}
    value = {"data": {"id": number, "a": "a", "body": f"body {number}"}, "metadata": metadata}
    return Record("dms", "0", str(number), None, json.dumps(value).encode())


def in_partition(number: int, partition: str) -> Record:
    """The insert of a row, told by a partition."""
    table = ModelTable(position=number)
    table.insert(number, f"row {number}")
    return as_record(table.changes[0])._replace(partition=partition)


HISTORIES = {
    "a load row of DMS": (
        [loaded_by_dms(number, position=f"0000000{number}/7C007328.2.0000000{number}/7C007328") for number in (3, 4)],
        loaded_by_dms(5),
        {"format": "kinesis", "envelope": "dms"},
    ),
    "a row of a lagging partition": ([in_partition(n, "0") for n in (3, 4)], in_partition(1, "1"), {}),
}
"""What was landed, what index has written since, and what its source is."""


def table_of(rows: int) -> ModelTable:
    """Rows of two chunks each, one of which all of them have; some changed, some gone, some under another key."""
    table = ModelTable()
    for number in range(rows):
        table.insert(
            number, f"{number} is what this row says, a {CANARY} among others\n\nand every row ends like this one"
        )
    for number in range(0, rows, 7):
        table.update_a(number, f"a{number}")
    for number in range(3, rows, 9):
        table.delete(number)
    for number in range(4, rows, 9):
        table.move(number, number + 1000)
    return table


def alive(table: ModelTable) -> list[int]:
    """Keys of rows that stand where they were inserted."""
    return [number for number in table.rows if number < 1000]


def run(lake: Lake, statement: str) -> None:
    """Change a store behind the pipeline's back, foreign keys or not."""
    with psycopg.connect(lake.dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        changed = connection.execute(statement.encode())
        assert changed.rowcount > 0, statement


def test_a_store_that_was_fed_and_one_that_was_rebuilt_are_clean(spark: SparkSession, lake: Lake) -> None:
    table = random_history(11, 60)
    for number in range(100, 140):
        table.insert(number, f'kept {number} \u20ac \x00 \\ " 1.50')
    landed = table.changes + random.Random(1).choices(table.changes, k=20)
    random.Random(2).shuffle(landed)
    lake.land(spark, landed)
    lake.index("live", random.Random(3).sample(table.changes, len(table.changes)))
    lake.rebuild(spark, "lost")
    for name, vectors in (("live", True), ("lost", True), ("live", False)):
        compared = lake.reconcile(spark, name, vectors=vectors)
        assert not any(compared.drift.values()), (compared.drift, compared.examples)
        assert compared.rows_read == compared.rows > len(table.rows), "no bucket was read again"


def test_every_kind_of_drift_is_found_and_mended_without_the_model(spark: SparkSession, lake: Lake) -> None:
    table = table_of(60)
    old = len(table.changes)
    for number in (6, 8):
        table.update_body(number, f"{number} newer")
    lake.land(spark, table.changes)
    lake.index("live", table.changes[:old])
    run(lake, "CREATE TABLE old AS SELECT * FROM live_g1_documents")
    lake.index("live", table.changes[old:])
    before, asked = lake.contents("live"), lake.asked()["texts"]
    document = "document_id = (SELECT document_id FROM live_g1_documents WHERE key = '{{\"id\": {}}}')"
    one, two, text, metadata, vector, bare, order, back, grave = *alive(table)[8:16], 3
    for number in (one, two, grave):
        run(lake, f"DELETE FROM live_g1_chunks WHERE {document.format(number)}") if number != grave else None
        run(lake, f"DELETE FROM live_g1_documents WHERE {document.format(number)}")
    run(
        lake,
        f"UPDATE live_g1_chunks SET chunk_text = 'altered {CANARY}' WHERE {document.format(text)} AND chunk_index = 0",
    )
    run(lake, f'UPDATE live_g1_documents SET metadata = \'{{"a": "altered"}}\' WHERE {document.format(metadata)}')
    content = "content_hash = (SELECT content_hash FROM live_g1_chunks WHERE chunk_index = 0 AND {})"
    halves = "array_fill(0.5::real, ARRAY[512])::vector"
    run(lake, f"UPDATE live_g1_vectors SET embedding = {halves} WHERE {content.format(document.format(vector))}")
    run(lake, f"DELETE FROM live_g1_vectors WHERE {content.format(document.format(bare))}")
    run(lake, f"UPDATE live_g1_chunks SET chunk_index = 1 - chunk_index WHERE {document.format(order)}")
    put_back = "UPDATE live_g1_documents d SET (sequence, state, texts) = (o.sequence, o.state, o.texts) FROM old o"
    run(lake, f"{put_back} WHERE o.document_id = d.document_id AND d.{document.format(6)}")
    run(lake, f"INSERT INTO live_g1_documents SELECT 'of nobody', table_name, '{{\"id\": 77}}', sequence, 9, live, metadata,"
        " metadata_terms, state, texts, recipe, pending, commit_time FROM live_g1_documents"
        f" WHERE {document.format(back)}")  # fmt: skip
    run(lake, "INSERT INTO live_g1_chunks (chunk_id, document_id, chunk_index, content_hash, chunk_text) SELECT 'x' || chunk_id,"
        f" 'of nobody', chunk_index, content_hash, chunk_text FROM live_g1_chunks WHERE {document.format(back)}")  # fmt: skip
    mended = lake.reconcile(spark, "live", repair=True)
    assert mended.drift == {"missing": 3, "orphan": 1, "stale": 6, "duplicate": 0, "refused": 0}
    assert mended.left == dict.fromkeys(mended.drift, 0)
    assert (mended.repaired, mended.removed) == (9, 1)
    assert (mended.texts_sent, lake.asked()["texts"]) == (0, asked)
    assert lake.contents("live") == before
    assert not any(lake.reconcile(spark, "live").drift.values())


def test_document_that_model_refuses_is_named_and_no_repair_fights_with_it(spark: SparkSession, lake: Lake) -> None:
    table = table_of(12)
    lake.land(spark, table.changes)
    lake.index("live", table.changes)
    standing, known = lake.contents("live"), len(table.changes)
    table.update_body(2, "a forbidden thing")
    lake.land(spark, table.changes[known:], 1)
    lake.faults(refuse_text="forbidden")
    # As a release left it that kept the older text: what the lake has newer than the store is stale.
    mended = lake.reconcile(spark, "live", repair=True)
    assert (mended.drift["stale"], mended.left) == (1, {**dict.fromkeys(mended.drift, 0), "refused": 1})
    assert [row for row in lake.contents("live") if row[0] == '{"id": 2}'] == []
    assert len(lake.contents("live")) == len(standing) - 2
    asked = lake.asked()
    again = lake.reconcile(spark, "live", repair=True)
    assert (again.drift["refused"], again.repaired, again.removed) == (1, 0, 0)
    assert [example["kind"] for example in again.examples] == ["refused"]
    assert lake.asked() == asked
    assert status(lake.config)["stores"]["live"]["refused"] == 1
    lake.faults()
    lake.rebuild(spark, "live")
    assert any("forbidden" in row[3] for row in lake.contents("live"))
    assert status(lake.config)["stores"]["live"]["refused"] == 0


def test_another_pipelines_store_is_neither_repaired_nor_filled_until_it_is_adopted(
    spark: SparkSession, lake: Lake, tmp_path: Path
) -> None:
    """A pipeline of the same name with another lake: to its repair all rows of the first would be orphans."""
    table = table_of(9)
    lake.land(spark, table.changes)
    lake.rebuild(spark, "live")
    before = lake.contents("live")
    (tmp_path / "other").mkdir()
    other = Lake(tmp_path / "other", lake.dsn, lake.model_url)
    other.land(spark, table.changes[:3])
    for refused in (lambda: other.reconcile(spark, "live", repair=True), lambda: other.rebuild(spark, "live")):
        with pytest.raises(ConfigurationError, match="belongs to another lake of this pipeline's name"):
            refused()
    checked = other.in_session(spark, "check")
    assert (checked.returncode, "sink live: sink live: the store live belongs to" in checked.stderr) == (2, True)
    assert lake.contents("live") == before
    adopted = other.in_session(spark, "adopt", "live")
    assert adopted.returncode == 0, adopted.stderr
    with pytest.raises(ConfigurationError, match="belongs to"):
        lake.reconcile(spark, "live", repair=True)
    assert "belongs to" not in other.in_session(spark, "check").stderr


def test_the_same_in_opensearch_where_a_document_can_also_stand_twice(
    spark: SparkSession,
    tmp_path: Path,
    vectors_dsn: str,
    instant_model: ModelService,
    opensearch: OpenSearch,
    search_index: str,
) -> None:
    store = {"type": "opensearch", "url": opensearch.endpoint["url"], "index": search_index, "replicas": 0}
    lake = Lake(tmp_path, vectors_dsn, instant_model.endpoint["endpoint_url"], store)
    lake.read()
    table = table_of(40)
    lake.land(spark, table.changes)
    lake.index("opensearch", table.changes)
    asked = lake.asked()["texts"]
    clean = lake.reconcile(spark, "opensearch", vectors=False)
    assert (clean.rows_read, *clean.drift.values()) == (clean.rows, 0, 0, 0, 0, 0)
    index = Names(search_index).documents
    with closing(opensearch.client()) as client:
        hits = client.search(index=index, body={"size": 100, "query": {"term": {"live": True}}})["hits"]["hits"]
        gone, text, metadata, vector, bare, twice, again, orphan = ((hit["_id"], hit["_source"]) for hit in hits[:8])

        def put(name: str, source: dict[str, object], **changed: object) -> None:
            client.index(index=index, id=name, body=source | changed)

        def first_chunk(source: dict[str, object], **changed: object) -> list[object]:
            first, *rest = json.loads(json.dumps(source["chunks"]))
            chunk = {name: value for name, value in (first | changed).items() if value is not None}
            return [chunk, *rest]

        client.delete(index=index, id=gone[0])
        put(*text, chunks=first_chunk(text[1], chunk_text=f"altered {CANARY}"))
        put(*metadata, metadata='{"a": "altered"}')
        put(*vector, chunks=first_chunk(vector[1], embedding=[1.0] * 512))
        put(*bare, chunks=first_chunk(bare[1], embedding=None))
        put(*twice, chunks=[*twice[1]["chunks"], twice[1]["chunks"][0]])
        put("again", again[1])
        put("of nobody", orphan[1], document_id="of nobody")
        client.indices.refresh(index=index)
    mended = lake.reconcile(spark, "opensearch", repair=True)
    assert mended.drift == {"missing": 1, "orphan": 1, "stale": 4, "duplicate": 2, "refused": 0}
    assert mended.left == dict.fromkeys(mended.drift, 0)
    assert (mended.repaired, mended.removed, mended.texts_sent, lake.asked()["texts"]) == (6, 2, 0, asked)
    with closing(opensearch.client()) as client:
        after = client.search(index=index, body={"size": 100, "query": {"term": {"live": True}}})["hits"]["hits"]
    contents = [
        {hit["_id"]: (hit["_source"]["metadata"], hit["_source"]["chunks"]) for hit in found_hits}
        for found_hits in (hits, after)
    ]
    assert contents[0] == contents[1]


def test_changes_in_flight_are_no_drift_and_repair_spares_a_writers_rows(spark: SparkSession, lake: Lake) -> None:
    table = table_of(200)
    lake.land(spark, table.changes)
    lake.index("live", table.changes)
    landed = len(table.changes)
    for number in alive(table)[:120]:
        table.update_body(number, f"{number} newer")
    table.insert(5000, "only the store knows of me, and that early")
    newer = table.changes[landed:]
    begun = threading.Event()

    def live() -> None:
        for some in batched(newer, 10):
            lake.index("live", some)
            begun.set()

    writer = threading.Thread(target=live)
    writer.start()
    assert begun.wait(30)
    mended = lake.reconcile(spark, "live", repair=True)
    writer.join()
    assert not any(mended.drift.values()), (mended.drift, mended.examples)
    lake.index("lost", table.changes)
    assert lake.contents("live") == lake.contents("lost")
    lake.land(spark, newer, 1)
    assert not any(lake.reconcile(spark, "live").drift.values())


def indexed_before_landing(spark: SparkSession, lake: Lake, kind: str) -> None:
    """A store with a row whose record has not landed, and one whose record nobody has."""
    landed, late, source = HISTORIES[kind]
    lake.read(*map(recorded, landed), **source)
    lake.drain(spark)
    lake.index_records("live", [*landed, late])
    lake.read(recorded(late), **source)
    run(lake, "INSERT INTO live_g1_documents SELECT 'of nobody', table_name, '{\"id\": 77}', sequence, 9, live, metadata,"
        " metadata_terms, state, texts, recipe, pending, commit_time FROM live_g1_documents"
        " ORDER BY sequence LIMIT 1")  # fmt: skip


def test_no_row_is_removed_while_landing_is_behind(spark: SparkSession, lake: Lake) -> None:
    indexed_before_landing(spark, lake, "a row of a lagging partition")
    waited = list[float]()
    unlanded = lake.reconcile(spark, "live", repair=True, pause=waited.append)
    assert (unlanded.drift["orphan"], unlanded.unproven, unlanded.removed, unlanded.left["orphan"]) == (2, 2, 0, 2)
    assert "landing of files is behind" in unlanded.notes[0]
    assert len(waited) > 2 * lake.config.lake.land_every, "landing was waited for"


@pytest.mark.parametrize("kind", HISTORIES)
def test_a_row_is_not_removed_before_landing_has_passed_its_record(spark: SparkSession, lake: Lake, kind: str) -> None:
    indexed_before_landing(spark, lake, kind)
    before = len(lake.contents("live"))

    def land(seconds: float) -> None:
        """Between the looks that call it an orphan and its removal."""
        if seconds == 1.0:
            lake.drain(spark)

    mended = lake.reconcile(spark, "live", repair=True, pause=land)
    assert (mended.drift["orphan"], mended.removed, mended.unproven) == (1, 1, 0), "only the row of nobody"
    assert mended.left == dict.fromkeys(mended.drift, 0)
    assert len(lake.contents("live")) == before == 3


def test_a_store_that_lacks_much_is_filled_by_the_bulk_path(
    spark: SparkSession, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glue_jobs.operations.reconcile.REBUILD_FROM", 10)
    table = table_of(40)
    lake.land(spark, table.changes)
    lake.index("live", table.changes)
    lake.index("lost", table.changes[:3])
    run(lake, "UPDATE lost_g1_chunks SET chunk_text = 'altered'")
    asked = lake.asked()["texts"]
    mended = lake.reconcile(spark, "lost", repair=True)
    assert mended.drift["missing"] > 30
    assert (mended.left, mended.texts_sent) == (dict.fromkeys(mended.drift, 0), 0)
    assert lake.asked()["texts"] == asked
    assert lake.contents("lost") == lake.contents("live")


def test_reconcile_exits_by_drift_and_empties_no_store_for_a_lost_lake(spark: SparkSession, lake: Lake) -> None:
    table = table_of(20)
    lake.land(spark, table.changes[-1:])
    lake.index("live", table.changes)
    documents = lake.count("live", "documents")
    run(lake, f"UPDATE live_g1_chunks SET chunk_text = 'altered {CANARY}'")
    command = lake.in_session(spark, "reconcile", "--store", "live", "--repair", "--json")
    assert command.returncode == 1, command.stderr
    report = json.loads(command.stdout)["stores"]["live"]
    orphans = report["left"]["orphan"]
    assert (report["removed"], report["drift"]["orphan"], lake.count("live", "documents")) == (0, orphans, documents)
    assert f"{orphans} orphans of" in report["notes"][0]
    assert "--repair --force --store live" in report["notes"][0]
    assert report["rows_read_ratio"] > 1
    seen = status(lake.config)["stores"]["live"]
    assert seen["drift"] == orphans > 3
    assert seen["reconciled_at"] > 0
    assert CANARY not in command.stdout + command.stderr
    forced = lake.reconcile(spark, "live", repair=True, force=True, vectors=False)
    assert (forced.removed, forced.left) == (orphans, dict.fromkeys(forced.left, 0))
