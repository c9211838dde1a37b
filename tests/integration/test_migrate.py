"""Stores moved to another model under load: no query without an answer, no mixed vectors, whatever is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from glue_jobs.operations.migrate.stores import migration_note
from local_stack.models.embeddings import resized
from local_stack.models.instant import instant_vector
from local_stack.servers.opensearch import OpenSearch
from local_stack.standins.documentdb.server import DocumentDB
from sinks import SinkConfig, open_index
from tests.history import TABLE
from tests.killed_migration import killed_at
from tests.lake_to_store import Lake
from tests.migrating import STEADY, Live, Reader
from tests.waiting import eventually

TITAN = "amazon.titan-embed-text-v2:0"
COHERE = "cohere.embed-english-v3"
STEPS = ("announced", "filling", "filled", "backfilled", "checked", "ready", "switched")


@contextmanager
def under_load(lake: Lake, spark: SparkSession, *stores: str) -> Iterator[tuple[Live, Reader]]:
    live, reader = Live(lake, spark), Reader(lake, *stores)
    live.start()
    eventually(lambda: live.written >= 5 or live.error is not None, 60)
    reader.start()
    try:
        yield live, reader
    finally:
        reader.end()
        live.end()


def migrated(lake: Lake, spark: SparkSession, *options: str) -> dict[str, Any]:
    done = lake.in_session(spark, "migrate", *options, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def holds_all(lake: Lake, name: str, live: Live, dimensions: int) -> None:
    """What readers of a store see is the table, by vectors of one model."""
    stored = {json.loads(key)["id"]: (text, json.loads(vector)) for key, _, _, text, vector, _ in lake.contents(name)}
    assert {number: text for number, (text, _) in stored.items()} == {n: r["body"] for n, r in live.table.rows.items()}
    for text, vector in stored.values():
        assert vector == pytest.approx(resized(instant_vector(text), dimensions).tolist(), abs=1e-6)


@pytest.mark.slow
def test_stores_of_every_kind_are_moved_and_back_and_old_vectors_collected(  # noqa: PLR0917 - fixtures
    spark: SparkSession,
    lake: Lake,
    opensearch: OpenSearch,
    search_index: str,
    documentdb: DocumentDB,
    document_database: str,
    tmp_path: Path,
) -> None:
    lake.only(
        {"type": "pgvector", "name": "live", "dsn": lake.dsn, "table": "live"},
        {"type": "opensearch", "url": opensearch.endpoint["url"], "index": search_index, "replicas": 0},
        {"type": "documentdb", "uri": documentdb.endpoint["uri"], "database": document_database, "collection": "kb"},
    )
    names = [sink.name for sink in lake.config.sinks]
    golden = tmp_path / "golden.jsonl"
    expected = [{"table": TABLE, "key": {"id": number}} for number in range(25)]
    asked = [{"query": f"body steady {number}", "expected": [row]} for number, row in enumerate(expected)]
    golden.write_text("\n".join(map(json.dumps, asked)))
    with under_load(lake, spark, *names) as (live, reader):
        first = migrated(lake, spark, "--to", COHERE, "--golden", str(golden))
        plan, done = first["plan"], first["stores"]
        assert plan["texts"] >= STEADY
        assert (plan["cached"], plan["sampled"] > 0, plan["tokens"] > 0, plan["usd"] > 0) == (0, True, True, True)
        assert {
            name: migrated["checked"]["golden"]["expected_new"] for name, migrated in done.items()
        } == dict.fromkeys(names, 1.0)
        assert (
            min(migrated["checked"]["recall"] for migrated in done.values()) >= 0.8
        )  # rows change while it is asked for them
        assert all(migrated["checked"]["is_measured"] for migrated in done.values())
        assert all(is_calibrated(sink) for sink in lake.config.sinks)
        polled(reader, 2 * len(names))
        assert all("readers use" in str(migration_note(lake.config, sink)) for sink in lake.config.sinks)
        migrated(lake, spark, "--back")
        assert all("--collect" in str(migration_note(lake.config, sink)) for sink in lake.config.sinks)
        polled(reader, 2 * len(names))
        assert migrated(lake, spark, "--to", COHERE)["plan"] is None
        early = lake.in_session(spark, "migrate", "--collect")
        assert (early.returncode, "set `embedding`" in early.stderr) == (2, True)
        lake.model(model=COHERE, dimensions=1024)
        assert migrated(lake, spark, "--collect")["collected"] == {name: [1] for name in names}
        polled(reader, 2 * len(names))
    assert reader.wrong == []
    assert (reader.models[0], reader.models[-1]) == (TITAN, COHERE)
    assert reader.polls >= 50
    holds_all(lake, "live", live, 1024)
    live.land()
    for name in names:
        assert sum(lake.reconcile(spark, name).drift.values()) == 0
    asked_again = lake.in_session(spark, "migrate", "--back")
    assert (asked_again.returncode, "no index version to go back to" in asked_again.stderr) == (2, True)


def is_calibrated(config: SinkConfig) -> bool:
    """Whether the model that readers use was measured with this store."""
    with closing(open_index(config, "any")) as index:
        return index.index_versions().active.calibration is not None


def polled(reader: Reader, more: int) -> None:
    """Wait for so many more polls."""
    wanted = reader.polls + more
    eventually(lambda: reader.polls >= wanted, 60)


@pytest.mark.slow
def test_store_is_moved_under_load_though_command_is_killed_at_every_step(spark: SparkSession, lake: Lake) -> None:
    lake.only({"type": "pgvector", "name": "live", "dsn": lake.dsn, "table": "live"})
    with under_load(lake, spark, "live") as (live, reader):
        for step in STEPS:
            killed_at(lake.path, step, "--to", COHERE)
        done = migrated(lake, spark, "--to", COHERE)
        assert done["stores"]["live"]["checked"] is None  # it had been moved
        lake.model(model=COHERE, dimensions=1024)
        for step in ("dropping", "dropped"):
            killed_at(lake.path, step, "--collect")
        assert migrated(lake, spark, "--collect")["collected"] == {"live": [1]}
    assert reader.wrong == []
    assert reader.polls >= 50
    assert (reader.models[0], reader.models[-1]) == (TITAN, COHERE)
    assert len(live.table.rows) > STEADY
    holds_all(lake, "live", live, 1024)
    assert lake.count("live", "documents") == 0
