"""A vector store from the lake alone: lost, new, killed half-way, or written by others meanwhile."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import batched
from typing import Any

import psycopg
import pytest
from pyspark.sql import SparkSession

from glue_jobs.operations import rebuild_plan
from glue_jobs.operations.migrate.stores import open_store, outdated_note
from glue_jobs.status.outdated import warn_of_outdated
from glue_jobs.status.report import status
from local_stack.models.instant import instant_vector
from local_stack.standins.documentdb.server import DocumentDB
from retrieval import commands
from retrieval.commands import Query
from sinks.documentdb.schema import Names
from tests.history import TABLE, ModelTable, random_history
from tests.lake_to_store import Lake
from tests.waiting import eventually

KILLED_ROWS = 600
REQUESTS_IN_FLIGHT = 64
"""More than the tasks of one rebuild have between them; the model counts those that were answered to nobody."""


def many(rows: int) -> ModelTable:
    """A table of rows of two chunks each, one of which all of them have."""
    table = ModelTable()
    for number in range(rows):
        table.insert(
            number, f"{number} is what this row is about, in one sentence\n\nand this is what every row says at its end"
        )
    return table


def random_table(seed: int) -> ModelTable:
    """Everything that can happen to a row, with a TRUNCATE that leaves some."""
    table = random_history(seed, 60)
    for number in range(100, 140):
        table.insert(number, f"kept {number}")
    for number in range(100, 110):
        table.move(number, number + 100)
    for number in range(110, 115):
        table.delete(number)
    return table


def test_a_lost_store_is_written_again_from_the_lake_alone(spark: SparkSession, lake: Lake) -> None:
    table = random_table(11)
    assert {"t", "d"} <= {change.op for change in table.changes}
    landed = table.changes + random.Random(1).choices(table.changes, k=20)
    random.Random(2).shuffle(landed)
    for at, some in enumerate(batched(landed, 80)):
        lake.land(spark, some, at)
    lake.index("live", table.changes)
    asked = lake.asked()["texts"]
    done = lake.rebuild(spark, "lost")
    assert lake.contents("lost") == lake.contents("live")
    assert len(lake.contents("lost")) >= len(table.rows)
    assert (done.texts_sent, lake.asked()["texts"]) == (0, asked)
    assert done.from_cache == lake.count("lost", "vectors") > 0
    assert {step for _, step, _, _ in lake.progress} == {"fold", "vectors", "write"}
    assert all(0 <= got <= total for _, _, got, total in lake.progress)
    again = lake.rebuild(spark, "lost")
    assert (again.rows, again.written, again.from_cache, again.texts_sent) == (done.rows, 0, 0, 0)
    assert tombstones(lake, "lost") == tombstones(lake, "live") != []


def test_store_of_another_kind_is_filled_from_the_lake_without_the_model(
    spark: SparkSession, lake: Lake, documentdb: DocumentDB, document_database: str
) -> None:
    uri = documentdb.endpoint["uri"]
    lake.add(type="documentdb", name="documents", uri=uri, database=document_database, collection="kb")
    table = random_table(13)
    lake.land(spark, table.changes)
    lake.index("live", table.changes)
    asked = lake.asked()["texts"]
    done = lake.rebuild(spark, "documents")
    assert (done.texts_sent, lake.asked()["texts"]) == (0, asked)
    with documentdb.client() as client:
        documents = client[document_database][Names("kb").documents].find({"chunk_count": {"$gt": 0}})
        chunks = {(row["key"], chunk["chunk_text"]) for row in documents for chunk in row["chunks"]}
    assert chunks == {
        (json.dumps(json.loads(key), separators=(",", ":")), text) for key, _, _, text, _, _ in lake.contents("live")
    }
    (key, text), *_ = sorted(chunks)
    (answer,) = commands.search(lake.config, [Query(None, text)], 1, "documents")
    assert [(hit["key"], hit["chunk_text"]) for hit in answer["results"]] == [(json.loads(key), text)]


def test_a_changed_template_is_said_and_a_rebuild_brings_every_document_over(
    spark: SparkSession, lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    table = many(5)
    lake.land(spark, table.changes)
    lake.index("live", table.changes)
    live = lake.sink("live")
    assert outdated_note(lake.config, live, "p.yaml") is None
    assert outdated_note(lake.config, lake.sink("lost"), "p.yaml") is None, "there is no store yet"
    lake.template("About: {body}")
    note = outdated_note(lake.config, live, "p.yaml")
    assert note is not None
    assert note.startswith("5 of 5 documents were made by another template")
    assert status(lake.config)["stores"]["live"]["outdated"] == {"documents": 5, "of": 5, "texts": 10, "usd": 3e-06}
    with closing(open_store(lake.config, live)) as store:
        warn_of_outdated(lake.config, [store])
    (logged,) = [vars(record)["context"] for record in caplog.records if "another template" in record.message]
    assert (logged["store"], logged["documents"], logged["command"]) == ("live", 5, "ragstream rebuild CONFIG live")
    assert lake.config.embedding is not None
    asked = lake.asked()["texts"]
    planned = rebuild_plan.plan(spark, lake.config, live, lake.config.embedding, lambda *_: None)[TABLE]
    assert (planned.documents, planned.chunks, planned.cached, lake.asked()["texts"]) == (5, 5, 0, asked)
    assert 5 * 12 < planned.tokens < 5 * 24, "the second chunk of each is as before"
    assert planned.usd == round(planned.tokens * 0.02 / 1_000_000, 6)
    done = lake.rebuild(spark, "live")
    assert done.written == 5
    assert lake.asked()["texts"] - asked == planned.chunks
    firsts = [row[3] for row in lake.contents("live") if row[2] == 0]
    assert len(firsts) == 5
    assert all(text.startswith("About: ") for text in firsts)
    assert outdated_note(lake.config, live, "p.yaml") is None
    assert status(lake.config)["stores"]["live"]["outdated"] is None


def test_a_language_is_said_and_a_rebuild_brings_it_without_the_model(spark: SparkSession, lake: Lake) -> None:
    table = ModelTable()
    for number in range(5):
        table.insert(number, f"Die Häuser am Fluss {number} haben neue Türen")
    lake.land(spark, table.changes)
    lake.index("live", table.changes)
    asked = lake.asked()["texts"]

    def hits(word: str) -> int:
        return len(lake.rows(f"SELECT FROM live_g1_chunks WHERE chunk_words @@ '''{word}'''::tsquery"))

    vectors = lake.rows("SELECT content_hash, created_at FROM live_g1_vectors ORDER BY 1")
    assert (hits("häuser"), hits("german haus")) == (5, 0)
    lake.language("german")
    note = outdated_note(lake.config, lake.sink("live"), "p.yaml")
    assert note is not None
    assert "5 of 5 documents were made by another template, chunking, language or metadata" in note
    done = lake.rebuild(spark, "live")
    assert (done.written, done.texts_sent, lake.asked()["texts"]) == (5, 0, asked)
    assert (hits("häuser"), hits("german haus")) == (0, 5)
    assert lake.rows("SELECT content_hash, created_at FROM live_g1_vectors ORDER BY 1") == vectors
    assert outdated_note(lake.config, lake.sink("live"), "p.yaml") is None
    (answer,) = commands.search(lake.config, [Query(None, "Häusern")], 5, "live")
    assert len(answer["results"]) == 5


def tombstones(lake: Lake, name: str) -> list[tuple[Any, ...]]:
    """What a store remembers of rows that are gone (I4), but for those that a TRUNCATE speaks for."""
    newer = f"sequence > (SELECT max(truncated_sequence) FROM {name}_tables)"
    return lake.rows(f"SELECT key::text, state FROM {name}_g1_documents WHERE NOT live AND {newer} ORDER BY 1")


def test_uncached_texts_are_embedded_once_and_a_refused_one_is_left_out(spark: SparkSession, lake: Lake) -> None:
    table = many(60)
    table.insert(1000, "a forbidden thing")
    lake.land(spark, table.changes)
    lake.faults(refuse_text="forbidden")
    done = lake.rebuild(spark, "live")
    texts = {text for _, _, _, text, _, _ in lake.contents("live")}
    assert (done.rows, done.written, done.refused) == (61, 60, 1)
    assert done.texts_sent == len(texts) + 2  # the refused one is asked for once more by its document's own write
    assert lake.asked()["distinct_texts"] == len(texts) + 1  # and the probe that tells a refusal from an outage
    for _, _, _, text, vector, _ in lake.contents("live")[::20]:
        assert json.loads(vector)[: len(instant_vector(text))] == pytest.approx(instant_vector(text).tolist(), abs=1e-6)
    asked = lake.asked()["texts"]
    lake.faults(deny=1.0)
    table.delete(1000)
    lake.land(spark, table.changes[-1:], 1)
    second = lake.rebuild(spark, "lost")
    assert (second.texts_sent, second.from_cache, lake.asked()["texts"]) == (0, len(texts), asked)
    assert lake.contents("lost") == lake.contents("live")


@pytest.mark.slow
def test_a_rebuild_killed_while_embedding_and_while_writing_ends_the_same(spark: SparkSession, lake: Lake) -> None:
    table = many(KILLED_ROWS)
    lake.land(spark, table.changes)
    lake.faults(slow_ms=100)
    kill_when(lake, lambda: lake.count("lost", "vectors") > 0)
    stored, paid = lake.count("lost", "vectors"), lake.asked()["texts"]
    assert stored > 0
    assert lake.count("lost", "documents") == 0
    lake.faults()
    with slow_documents(lake):
        kill_when(lake, lambda: lake.count("lost", "documents") > 0)
    assert lake.count("lost", "documents") < KILLED_ROWS
    done = lake.rebuild(spark, "lost")
    assert done.written < KILLED_ROWS  # what was in flight may have been committed after the kill
    assert done.texts_sent == 0
    asked = lake.asked()
    assert asked["distinct_texts"] == KILLED_ROWS + 1
    assert asked["texts"] - asked["distinct_texts"] <= max(0, paid - stored) + REQUESTS_IN_FLIGHT
    lake.index("live", table.changes)
    assert lake.contents("lost") == lake.contents("live")


@contextmanager
def slow_documents(lake: Lake) -> Iterator[None]:
    """While it is open, the store takes its time for each document."""
    function = (
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END$$"
    )
    trigger = "CREATE TRIGGER slow BEFORE INSERT ON lost_g1_documents FOR EACH ROW EXECUTE FUNCTION slow()"
    with psycopg.connect(lake.dsn, autocommit=True) as admin:
        admin.execute(function.encode())
        admin.execute(trigger)
        try:
            yield
        finally:
            admin.execute("DROP FUNCTION slow CASCADE")


def kill_when(lake: Lake, reached: Callable[[], bool]) -> None:
    process = lake.command("lost")
    try:
        eventually(reached, 120, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_what_a_live_writer_writes_meanwhile_stays(spark: SparkSession, lake: Lake) -> None:
    table = many(400)
    lake.land(spark, table.changes)
    landed = len(table.changes)
    for number in range(0, 400, 2):
        table.update_body(number, f"{number} newer")
    for number in range(1, 200, 4):
        table.delete(number)
    newer = table.changes[landed:]
    lake.index("lost", newer[:50])

    def live() -> None:
        for some in batched(newer[50:], 50):
            lake.index("lost", some)

    writer = threading.Thread(target=live)
    writer.start()
    done = lake.rebuild(spark, "lost")
    writer.join()
    assert done.written > 0
    lake.index("live", table.changes)
    assert lake.contents("lost") == lake.contents("live")
