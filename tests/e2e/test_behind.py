"""One of two stores is away from a pipeline in micro-batches: the other stays fresh, and it goes on by itself when it is back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from glue_jobs.continuous import store_positions
from glue_jobs.continuous.backfills import Backfills
from glue_jobs.operations.reconcile import Reconcile
from glue_jobs.status.landed import committed
from glue_jobs.status.report import status
from local_stack.faults.tcp import FaultProxy
from local_stack.models.service import ModelService
from local_stack.servers.connect import request_json
from local_stack.servers.kafka import Broker
from local_stack.servers.postgres import VectorStore
from local_stack.stack import Stack
from tests.e2e.pipeline import START_SECONDS, Pipeline, counters, running
from tests.e2e.topic_table import TopicTable, configuration
from tests.waiting import eventually

DRIVERS = 2
"""Each asks the model for one and the same text when it starts."""


class Behind:
    """A pipeline of two stores in one database, the second behind a proxy, and what is known of them."""

    def __init__(self, folder: Path, broker: Broker, topic: str, dsn: str, shaky_dsn: str, model_url: str) -> None:
        self.checkpoint, self.broker, self.topic = folder / "checkpoint", broker, topic
        self.document = configuration(folder, broker, [topic], model_url, dsn, stores=["steady", "shaky"])
        self.document["continuous"] = False
        self.document["sinks"][1] |= {"dsn": shaky_dsn, "deadline": "2s"}

    def lagging(self) -> frozenset[str]:
        known = store_positions.read(str(self.checkpoint / "index_kafka"))
        return known.lagging if known is not None else frozenset()

    def read(self, pipeline: Pipeline, query: str) -> dict[str, int]:
        """How far a query has come, by partition."""
        return dict(committed(pipeline.config.sources[0], str(self.checkpoint / query)) or {})

    def expire_what_was_read(self, pipeline: Pipeline, records: int) -> None:
        """Have the topic lose all that both jobs have read by now, once that is all of its records."""
        eventually(
            lambda: all(sum(self.read(pipeline, f"{job}_kafka").values()) == records for job in ("land", "index")), 60
        )
        for place, end in self.read(pipeline, "index_kafka").items():
            self.broker.expire(self.topic, int(place.rpartition("/")[2]), end)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_store_that_was_away_goes_on_from_stream_or_lake(  # noqa: PLR0917 - fixtures
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
    shaky_dsn = vectors_dsn.replace(f":{vectors.port}", f":{proxy.port}").replace(
        f"port={vectors.port}", f"port={proxy.port}"
    )
    assert shaky_dsn != vectors_dsn
    behind = Behind(tmp_path, kafka, topic, vectors_dsn, shaky_dsn, model_url)
    table, backfills = TopicTable(kafka, topic, vectors_dsn), Backfills(str(tmp_path / "checkpoint"))
    with running(Pipeline(tmp_path / "p", behind.document, mark=str(local_stack.directory))) as pipeline:
        driver = pipeline.start("--jobs", "land,index", breakpoints=True)
        for number in range(1000, 1020):
            table.model.insert(number, f"row {number}")
        table.send()
        eventually(lambda: len(table.shown("shaky")) == 20, START_SECONDS)
        eventually(lambda: sum(behind.read(pipeline, "index_kafka").values()) == 20)  # its batch is committed as well
        goes_on_from_the_stream(behind, table, proxy)
        assert backfills.read() == {}, "the stream had all of it"

        proxy.refuse()
        table.model.update_body(1002, "newer still")
        table.send()
        eventually(lambda: behind.lagging() == {"shaky"}, 30)
        behind.expire_what_was_read(pipeline, table.sent)
        pipeline.breakpoints.set("backfill-written")
        proxy.heal()
        table.insert_shown("steady", range(40, 42))
        pipeline.await_reached("backfill-written")
        assert status(pipeline.config)["stores"]["shaky"]["backfilling"] == {"since": backfills.read()["shaky"].since}
        driver.kill()

        proxy.refuse()
        driver = pipeline.start("--jobs", "land,index")
        table.insert_shown("steady", range(60, 62))
        seen = status(pipeline.config)["stores"]
        assert {name: store["behind"] for name, store in seen.items()} == {"shaky": True, "steady": False}
        proxy.heal()
        eventually(lambda: not backfills.read(), 60)
        table.await_shown("shaky")
        assert table.shown("shaky") == table.shown("steady")
        assert driver.logged("store is backfilled from the lake", texts_sent=0)
        assert driver.stop() == 0
    asked = counters(model_url)
    assert asked["texts"] - asked["distinct_texts"] == DRIVERS - 1
    config = pipeline.config
    assert config.embedding is not None
    compared = Reconcile(spark, config, config.sinks[1], config.embedding, lambda *_: None).run(repair=False)
    assert not any(compared.drift.values()), compared.drift


def goes_on_from_the_stream(behind: Behind, table: TopicTable, proxy: FaultProxy) -> None:
    """The second store is away for longer than its deadline, and back."""
    proxy.refuse()
    table.model.update_body(1000, "newer")
    table.model.delete(1001)
    table.send()
    eventually(lambda: behind.lagging() == {"shaky"}, 30)
    table.insert_shown("steady", range(20, 23))
    proxy.heal()
    table.await_shown("shaky")
    eventually(lambda: not behind.lagging())
    assert table.shown("shaky") == table.shown("steady")
