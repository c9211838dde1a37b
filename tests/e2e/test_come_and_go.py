"""Stores and tables are added to a pipeline that has run for long, and dropped from it: same lake, same checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from glue_jobs.continuous.backfills import Backfills
from glue_jobs.operations.reconcile import Reconcile, Reconciled
from glue_jobs.status.report import status
from local_stack.models.service import ModelService
from local_stack.servers.connect import request_json
from local_stack.servers.kafka import Broker
from local_stack.stack import Stack
from tests.e2e.pipeline import START_SECONDS, Pipeline, counters, running
from tests.e2e.topic_table import TopicTable, configuration
from tests.waiting import eventually

TABLES = {"t": 20, "u": 5, "v": 5}
"""Rows that each has before any driver starts; `t` and `u` come through one topic, `v` through another."""


class Lives:
    """One pipeline through several configurations."""

    def __init__(self, folder: Path, broker: Broker, dsn: str, model_url: str, mark: str) -> None:
        self.folder, self.broker, self.dsn, self.model_url = folder, broker, dsn, model_url
        self.pipeline = Pipeline(folder / "p", {}, mark=mark)

    def configure(self, tables: str, stores: Sequence[str], topics: Sequence[str]) -> None:
        document = configuration(
            self.folder, self.broker, topics, self.model_url, self.dsn, stores=stores, tables=tables
        )
        self.pipeline.write(document)

    @property
    def backfills(self) -> Backfills:
        return Backfills(str(self.folder / "checkpoint"))

    def compared(self, spark: SparkSession, store: str, *, repair: bool = False, force: bool = False) -> Reconciled:
        config = self.pipeline.config
        assert config.embedding is not None
        sink = next(sink for sink in config.sinks if sink.name == store)
        return Reconcile(spark, config, sink, config.embedding, lambda *_: None).run(repair=repair, force=force)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_stores_and_tables_come_and_go(  # noqa: PLR0917 - fixtures
    kafka: Broker,
    new_topic: Callable[..., str],
    vectors_dsn: str,
    instant_model: ModelService,
    local_stack: Stack,
    spark: SparkSession,
    tmp_path: Path,
) -> None:
    model_url, topic, later = instant_model.endpoint["endpoint_url"], new_topic(2), new_topic(1)
    request_json(model_url, "POST", "/reset", {})
    lives = Lives(tmp_path, kafka, vectors_dsn, model_url, str(local_stack.directory))
    tables = {
        name: TopicTable(kafka, later if name == "v" else topic, vectors_dsn, name, 1 if name == "v" else 2)
        for name in TABLES
    }
    for name, rows in TABLES.items():
        for number in range(1000, 1000 + rows):
            tables[name].model.insert(number, f"{name} {number}")
        tables[name].send()
    with running(lives.pipeline) as pipeline:
        lives.configure("t", ["one"], [topic])
        assert pipeline.drain("--jobs", "land,index").process.returncode == 0
        assert (len(tables["t"].shown("one")), tables["u"].shown("one")) == (20, [])

        # a store, a topic with a table of its own, and a table whose records were ignored until now
        lives.configure("tuv", ["one", "two"], [topic, later])
        driver = pipeline.start("--jobs", "land,index")
        added_a_store_and_tables(driver, lives, tables)
        assert driver.stop() == 0
        assert repeated_texts(model_url, drivers=3) == 0, "a second store, or a second reading, cost a call"
        assert not any(lives.compared(spark, "two").drift.values())

        # a store, and a table with its topic, are dropped
        lives.configure("tu", ["two"], [topic])
        tables["t"].model.insert(3000, "while one was dropped")
        tables["t"].model.delete(1003)
        tables["t"].send()
        dropped = pipeline.drain("--jobs", "land,index")
        assert dropped.process.returncode == 0, dropped.log.read_text()[-2000:]
        tables["t"].await_shown("two")
        assert (list(status(pipeline.config)["stores"]), len(tables["v"].shown("two"))) == (["two"], 5)
        repaired = lives.compared(spark, "two", repair=True)
        assert (repaired.drift["orphan"], repaired.removed) == (5, 0), "five of so few are not removed unasked"
        assert not any(lives.compared(spark, "two", repair=True, force=True).left.values())
        assert tables["v"].shown("two") == []
        assert len(tables["t"].shown("one")) == 20, "a store that was dropped is left alone"

        # the store is added again: it lacks what was written meanwhile
        lives.configure("tu", ["two", "one"], [topic])
        driver = pipeline.start("--jobs", "land,index")
        eventually(lambda: bool(driver.logged("store is backfilled from the lake", store="one")), START_SECONDS)
        assert tables["t"].shown("one") == tables["t"].shown("two")
        assert driver.stop() == 0
    assert repeated_texts(model_url, drivers=5) == 0


def repeated_texts(model_url: str, *, drivers: int) -> int:
    """Texts that were sent again; each driver tries the model with one and the same text."""
    asked = counters(model_url)
    repeated: int = asked["texts"] - asked["distinct_texts"] - (drivers - 1)
    return repeated


def added_a_store_and_tables(driver: Any, lives: Lives, tables: dict[str, TopicTable]) -> None:
    pipeline, table = lives.pipeline, tables["t"].model
    for number in range(1000, 1010):
        table.update_a(number, f"a{number}")  # tells no body: a store that never saw the row cannot know it
    table.update_body(1000, "newer")
    table.delete(1001)
    table.insert(2000, "while two was filled")
    tables["t"].send()
    eventually(
        lambda: bool(driver.logged("store is backfilled from the lake", store="two", texts_sent=0)), START_SECONDS
    )
    assert lives.backfills.read() == {}
    tables["t"].await_shown("two")
    assert tables["t"].shown("two") == tables["t"].shown("one")
    assert len(tables["v"].shown("one")) == len(tables["v"].shown("two")) == 5, "a topic is read from its beginning"
    assert tables["u"].shown("one") == [], "its records were ignored when they came"
    read = pipeline.command("run", "--tables", "public.u", "--jobs", "land,index", "--available-now")
    assert read.returncode == 0, read.stderr[-2000:]
    assert len(tables["u"].shown("one")) == len(tables["u"].shown("two")) == 5
    assert len(pipeline.current("public.u")) == 5
