"""A store that is new to a pipeline is complete before it is called so, whatever part of the source landing is behind with."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo
from pyspark.sql import SparkSession

from embeddings import open_embedder
from glue_jobs import index_documents
from glue_jobs.config.pipeline import PipelineConfig
from glue_jobs.continuous import store_positions, stores
from glue_jobs.continuous.store_positions import StorePositions
from glue_jobs.continuous.stores import Stores
from glue_jobs.runtime import JobContext, Query
from glue_jobs.runtime.runner import run_queries
from glue_jobs.status.record import StatusRecords
from local_stack.faults.tcp import FaultProxy
from local_stack.servers.postgres import VectorStore
from sinks import open_sink
from sinks.protocol import Sink
from tests.history import ModelTable, as_record
from tests.integration.test_reconcile import recorded
from tests.lake_to_store import Lake


def store(lake: Lake, name: str) -> dict[str, str]:
    """A store's configuration."""
    return {"type": "pgvector", "name": name, "dsn": lake.dsn, "table": name}


def index(spark: SparkSession, config: PipelineConfig) -> None:
    """Run the indexing job to the end of its source; nothing is done beside it, so that the test says when."""
    context = JobContext(spark, config, available_now=True)
    planned = [query for query in index_documents.plan(context) if isinstance(query, Query)]
    run_queries(planned, context, threading.Event(), StatusRecords(config.checkpoint))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a job's plan opens: it ends with its driver, and this one goes on."""
    sinks: list[Sink] = []

    def open_it(*settings: Any) -> Sink:
        sinks.append(open_sink(*settings))
        return sinks[-1]

    monkeypatch.setattr(stores, "open_sink", open_it)
    yield
    for sink in sinks:
        sink.close()


@pytest.mark.usefixtures("opened")
def test_an_added_store_is_not_backfilled_while_landing_lags_behind_a_part(spark: SparkSession, lake: Lake) -> None:
    table = ModelTable()
    for number in range(1, 6):
        table.insert(number, f"row {number}")
    lines = [recorded(as_record(change)) for change in table.changes]
    both = [str(lake.path.with_name(name)) for name in ("events.jsonl", "busy.jsonl")]
    lake.only(store(lake, "live"))
    lake.read(*lines[:2])
    lake.drain(spark)
    lake.path.with_name("busy.jsonl").write_text("\n".join(lines[2:4]) + "\n")
    lake.read(path=both)
    index(spark, lake.config)
    assert len(lake.contents("live")) == 4

    lake.only(store(lake, "live"), store(lake, "late"))
    index(spark, lake.config)
    model = open_embedder(lake.embedding)
    newest = json.loads(lines[4])
    newest["value"]["source"]["ts_us"] = time.time_ns() // 1000 + 60_000_000
    lake.read(json.dumps(newest), path=both[:1])
    lake.drain(spark)  # all that the quiet file holds, up to now and later, and nothing of the other
    lake.read(path=both)
    looked_after = Stores(JobContext(spark, lake.config), model.fingerprint, model.dimensions)
    looked_after.backfill()
    assert "late" in looked_after.backfills.read(), "three rows of the busy file are in no lake"
    lake.drain(spark)
    looked_after.backfill()
    assert looked_after.backfills.read() == {}
    index(spark, lake.config)
    beside = index_documents.plan(JobContext(spark, lake.config, some_tables=True))
    assert not any(query.name.startswith("progress") for query in beside), (
        "a run of some tables says nothing of the whole pipeline"
    )
    assert len(lake.contents("late")) == 5
    assert lake.contents("late") == lake.contents("live")


@pytest.mark.usefixtures("opened")
def test_drain_ends_with_store_behind_and_next_one_goes_on_with_it(
    spark: SparkSession, lake: Lake, vectors: VectorStore, new_proxy: Callable[[int], FaultProxy]
) -> None:
    table, proxy = ModelTable(), new_proxy(vectors.port)
    for number in range(1, 6):
        table.insert(number, f"row {number}")
    lines = [recorded(as_record(change)) for change in table.changes]
    shaky = store(lake, "late") | {"dsn": make_conninfo(lake.dsn, port=proxy.port)}
    lake.only(store(lake, "live"), shaky)
    lake.read(*lines[:2])
    index(spark, lake.config)
    asked = lake.asked()["texts"]
    proxy.refuse()
    lake.read(*lines[2:4])
    index(spark, lake.config)
    assert (len(lake.contents("live")), len(lake.contents("late"))) == (4, 2)
    place = f"{lake.config.checkpoint}/index_files"
    known = store_positions.read(place)
    assert known is not None
    assert known.lagging == {"late"}
    lake.read(lines[4])
    index(spark, lake.config)
    assert (len(lake.contents("live")), store_positions.read(place)) == (5, known), (
        "it goes on where it was missed first"
    )
    proxy.heal()
    index(spark, lake.config)
    assert lake.contents("late") == lake.contents("live")
    assert store_positions.read(place) == StorePositions(readers=False)
    assert lake.asked()["texts"] - asked == 3, "each text once"
