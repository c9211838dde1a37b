"""One of two stores is away: the other stays fresh, a kill forgets nothing, and the store comes back by itself."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from glue_jobs.reconcile_store import Reconcile
from glue_jobs.runtime.set_aside import SetAside
from glue_jobs.status import status
from local_stack.connect import request_json
from local_stack.faults import FaultProxy
from local_stack.kafka import Broker
from local_stack.model_service import ModelService
from local_stack.postgres import VectorStore
from local_stack.stack import Stack
from sinks.several import Missed
from tests.e2e.pipeline import Pipeline, counters, embedding, running
from tests.e2e.told import Told, wait_for
from tests.history import TABLE


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_store_that_is_away_is_set_aside_and_comes_back_unattended(  # noqa: PLR0917 - fixtures
    kafka: Broker,
    new_topic: Callable[..., str],
    vectors: VectorStore,
    vectors_dsn: str,
    new_proxy: Callable[[int], FaultProxy],
    instant_model: ModelService,
    local_stack: Stack,
    spark: SparkSession,
    tmp_path: Path,
) -> None:
    model_url, topic, proxy = instant_model.endpoint["endpoint_url"], new_topic(2), new_proxy(vectors.port)
    request_json(model_url, "POST", "/reset", {})
    shaky = vectors_dsn.replace(f":{vectors.port}", f":{proxy.port}").replace(
        f"port={vectors.port}", f"port={proxy.port}"
    )
    assert shaky != vectors_dsn
    document = {"template": "{body}", "metadata": ["a"], "chunk": {"max_tokens": 64}}
    configuration = {
        "name": "aside",
        "source": {"type": "kafka", "envelope": "debezium", "topics": [topic], **kafka.endpoint},
        "tables": [{"table": TABLE, "keys": ["id"], "document": document}],
        "lake": {"path": str(tmp_path / "lake"), "land_every": "1s"},
        "checkpoint": str(tmp_path / "checkpoint"),
        "embedding": embedding(model_url),
        "sinks": [
            {"type": "pgvector", "name": "steady", "dsn": vectors_dsn, "table": "steady"},
            {"type": "pgvector", "name": "shaky", "dsn": shaky, "table": "shaky", "deadline": "2s"},
        ],
    }
    told, aside = Told(kafka, topic, vectors_dsn), SetAside(str(tmp_path / "checkpoint"))
    with running(Pipeline(tmp_path / "p", configuration, mark=str(local_stack.directory))) as pipeline:
        driver = pipeline.start("--jobs", "land,index")
        for number in range(1000, 1020):
            told.table.insert(number, f"row {number}")
        told.send()
        wait_for(lambda: len(told.shown("shaky")) == 20)
        before = told.seconds_to("steady", range(10))

        proxy.refuse()
        told.table.update_body(1000, "newer")
        told.table.delete(1001)
        told.send()
        wait_for(lambda: "shaky" in aside.look(), 30)
        while_away = told.seconds_to("steady", range(20, 32))
        assert statistics.median(while_away) < max(3 * statistics.median(before), 0.5), (before, while_away)
        since = aside.look()["shaky"].since
        driver.kill()
        driver = pipeline.start("--jobs", "land,index")
        told.seconds_to("steady", range(40, 45))
        seen = status(pipeline.config)["stores"]
        assert (seen["shaky"]["aside"], seen["steady"]["aside"]) == ({"phase": "aside", "since": since}, None)

        proxy.heal()
        for number in range(60, 85):
            told.table.insert(number, f"row {number}")
            told.table.update_a(number - 40 if number < 72 else 1010, f"a{number}")
            told.send()
            time.sleep(0.2)
        wait_for(lambda: not aside.look(), 60)
        told.await_shown("shaky")
        assert told.shown("shaky") == told.shown("steady")
        assert driver.told("store caught up and taken back", texts_sent=0)
        assert driver.stop() == 0
    asked = counters(model_url)
    assert asked["texts"] - asked["distinct_texts"] == 1, "both drivers tried the model with one text"
    config = pipeline.config
    assert config.embedding is not None
    compared = Reconcile(spark, config, config.sinks[1], config.embedding, lambda *_: None).run(repair=False)
    assert not any(compared.drift.values()), compared.drift


def test_the_record_of_a_store_survives_and_goes_only_with_all_that_was_missed(tmp_path: Path) -> None:
    aside, worker = SetAside(str(tmp_path)), SetAside(str(tmp_path))
    aside.missed("a/b", Missed(5.0, tried=True), [("t", "0", "98", "99")])
    aside.missed("a/b", Missed(7.0, tried=False), [("t", "0", "100", "101"), ("t", "1", "4", "4")])
    assert worker.phases() == {"a/b": "aside"}
    aside.returning("a/b")
    seen = aside.look()["a/b"]
    assert (seen.since, seen.phase) == (5.0, "returning")
    assert seen.spans() == {("t", "0"): ("98", "101"), ("t", "1"): ("4", "4")}
    aside.missed("a/b", Missed(8.0, tried=False), [("t", "0", "102", "102")])
    assert not aside.taken_back(seen)
    assert aside.look()["a/b"].phase == "returning"
    assert aside.taken_back(aside.look()["a/b"])
    assert json.dumps(aside.look()) == "{}"
