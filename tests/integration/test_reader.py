"""A reader as a process of its own, between a real broker, a real model endpoint and real stores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from confluent_kafka import Producer
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from embeddings import open_embedder
from embeddings.bedrock.config import BedrockEmbeddingConfig
from embeddings.budget.config import BudgetConfig
from embeddings.budget.ledger import FileLedger
from glue_jobs.runtime.failures import error_in
from local_stack.faults.tcp import FaultProxy
from local_stack.models.service import ModelService
from local_stack.servers.connect import request_json
from local_stack.servers.kafka import Broker
from local_stack.servers.postgres import VectorStore
from reader import starting
from reader.channel import ask
from reader.messages import Harvest, Instruction, ReaderSettings, Stop
from reader.starting import instruct
from reader.task import HARVEST_SCHEMA, harvest_task
from schemas.errors import SourceGoneError
from sinks import open_sink
from sinks.pgvector.config import PgvectorConfig
from sources.kafka.config import KafkaSourceConfig
from tests.feeding import CONTEXT, SPECS
from tests.history import ModelTable, as_record
from tests.waiting import eventually

SECRET = b"k" * 32


class World:
    """A topic, a model, two stores (the second behind a proxy), and the driver's side of a reader."""

    def __init__(self, topic: str, broker: Broker, dsn: str, store: FaultProxy, model: FaultProxy) -> None:
        proxied, model_url = make_conninfo(dsn, port=store.port), f"http://127.0.0.1:{model.port}"
        self.store_proxy, self.model_proxy = store, model
        servers = broker.endpoint["bootstrap_servers"]
        self.topic, self.table, self.dsn = topic, ModelTable(), dsn
        self.producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})
        self.settings = ReaderSettings(
            source=KafkaSourceConfig(type="kafka", envelope="debezium", bootstrap_servers=servers, topics=[topic]),
            context=CONTEXT,
            specs=SPECS,
            sinks=tuple(
                PgvectorConfig(type="pgvector", name=name, dsn=SecretStr(at), table=name)
                for name, at in (("steady", dsn), ("shaky", proxied))
            ),
            embedding=BedrockEmbeddingConfig(
                type="bedrock",
                model="amazon.titan-embed-text-v2:0",
                dimensions=512,
                region="eu-central-1",
                access_key="local",
                secret_key=SecretStr("local"),
                endpoint_url=model_url,
            ),
            checkpoint="checkpoint",
            bind="127.0.0.1",
            orphan_seconds=5.0,
        )
        embedder = open_embedder(self.settings.embedding)
        for config in self.settings.sinks:
            with closing(open_sink(config, embedder.fingerprint, embedder.dimensions)) as sink:
                sink.prepare()
        self.positions: dict[str, dict[str, Any]] = {
            store: {f"{topic}/{number}": 0 for number in range(2)} for store in ("steady", "shaky")
        }
        self.behind: tuple[str, ...] = ()
        self.address, self.batch, self.epoch = "", 0, "1"
        self.records = self.texts = 0

    def insert(self, *numbers: int) -> None:
        """Commit rows, each to the partition of its number."""
        for number in numbers:
            self.table.insert(number, f"row {number}")
            record = as_record(self.table.changes[-1])
            self.producer.produce(self.topic, record.value, partition=number % 2, headers=list(record.headers))
        self.producer.flush()

    def commit(self, count: int) -> None:
        """Publish the table's last changes, to the partition of each row's number."""
        for change in self.table.changes[-count:]:
            record = as_record(change)
            self.producer.produce(self.topic, record.value, partition=0, headers=list(record.headers))
        self.producer.flush()

    def give_budget(self, ledger: Path) -> None:
        """Limit dollars a day, before a reader is started."""
        budget = BudgetConfig.model_validate(
            {
                "dollars_per_day": 1,
                "price_per_million_tokens": {"input": 10},
                "ledger": {"type": "file", "path": ledger},
            }
        )
        embedding = self.settings.embedding.model_copy(update={"budget": budget})
        self.settings = self.settings.__class__(**{**self.settings.__dict__, "embedding": embedding})

    def metadata(self, store: str) -> dict[str, str]:
        """The metadata column of each row, by its number."""
        with psycopg.connect(self.dsn) as connection:
            rows = connection.execute(f"SELECT key, metadata FROM {store}".encode()).fetchall()
        return {str(key["id"]): str(metadata.get("a")) for key, metadata in rows}

    def ask(self) -> Harvest:
        """One batch, as the driver runs it."""
        self.batch += 1
        instruction = Instruction(self.epoch, self.batch, 0, self.positions, self.behind, address=self.address)
        harvest = instruct(self.settings, instruction, SECRET)
        self.address, self.positions, self.behind = harvest.address, harvest.positions, harvest.behind
        self.records += harvest.result.counts["records"]
        self.texts += harvest.model_counts.texts
        return harvest

    def has_all(self, store: str) -> bool:
        """Whether a store shows all rows, and the reader says so."""
        self.ask()
        return sum(self.positions[store].values()) == len(self.table.changes) and self.shown(store) == self.wanted

    def shown(self, store: str) -> list[str]:
        with psycopg.connect(self.dsn) as connection:
            return [text for (text,) in connection.execute(f"SELECT chunk_text FROM {store} ORDER BY 1".encode())]

    @property
    def wanted(self) -> list[str]:
        return sorted(str(row["body"]) for row in self.table.rows.values())

    def kill(self) -> None:
        """Kill the reader that was started last."""
        os.kill(starting._started[-1].pid, signal.SIGKILL)
        starting._started[-1].wait(5)

    def stop(self) -> None:
        if self.address:
            with suppress(OSError, EOFError):
                ask(self.address, SECRET, Stop(), 1)
        for process in starting._started:
            process.wait(10)


@pytest.fixture
def world(
    kafka: Broker, new_topic: Callable[..., str], instant_model: ModelService, vectors: VectorStore, vectors_dsn: str,
    new_proxy: Callable[[int], FaultProxy],
) -> Iterator[World]:  # fmt: skip
    model = new_proxy(int(instant_model.endpoint["endpoint_url"].rpartition(":")[2]))
    store = new_proxy(vectors.port)
    request_json(instant_model.endpoint["endpoint_url"], "POST", "/reset", {})
    reader_world = World(new_topic(2), kafka, vectors_dsn, store, model)
    yield reader_world
    store.heal()
    model.heal()
    reader_world.stop()


def test_commits_are_written_to_all_stores_and_the_reader_answers_at_once(world: World) -> None:
    assert world.ask().result.counts == {}
    world.insert(*range(40))
    assert eventually(lambda: world.has_all("steady") and world.has_all("shaky"))
    assert (world.records, world.texts) == (40, 40), "each text is paid for once, whichever store comes first"
    began_us = time.time_ns() // 1000

    def is_fresh() -> bool:
        as_of = [moment for places in world.ask().as_of_us.values() for moment in places.values()]
        return len(as_of) == 4 and min(as_of) > began_us

    eventually(is_fresh)


def test_a_killed_reader_is_started_again_where_it_was_last_heard(world: World) -> None:
    world.insert(*range(10))
    assert eventually(lambda: world.has_all("steady"))
    first = world.address
    world.insert(*range(10, 30))
    world.kill()
    assert eventually(lambda: world.has_all("steady") and world.has_all("shaky"))
    assert world.address != first
    assert world.texts <= 30 + 8, "no more than what was in flight is paid for twice"


def test_a_reader_that_nobody_asks_ends(world: World) -> None:
    world.ask()
    assert starting._started[-1].wait(60) == 0
    world.insert(1)
    assert eventually(lambda: world.has_all("steady"))


def test_two_readers_of_the_same_part_leave_what_one_leaves(world: World) -> None:
    world.ask()
    other = Instruction("other", 1, 0, world.positions)
    second = instruct(world.settings, other, SECRET)
    assert second.address != world.address
    world.insert(*range(60))
    assert eventually(lambda: world.has_all("steady") and world.has_all("shaky"))
    assert eventually(lambda: sum(instruct(
        world.settings, Instruction("other", 2, 0, world.positions, address=second.address), SECRET
    ).positions["shaky"].values()) == 60)  # fmt: skip
    assert world.shown("steady") == world.shown("shaky") == world.wanted
    ask(second.address, SECRET, Stop())


def test_store_is_away_under_load_and_comes_back_from_where_it_was(world: World) -> None:
    world.insert(*range(10))
    assert eventually(lambda: world.has_all("shaky"))
    world.store_proxy.refuse()
    is_healed, stop = threading.Event(), threading.Event()

    def load() -> None:
        for number in range(10, 10_000):
            # A store that is back gains on the feed also where the machine is busy.
            if stop.wait(0.05 if is_healed.is_set() else 0.004):
                return
            world.insert(number)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    away = set[str]()

    def is_behind() -> bool:
        harvest = world.ask()
        away.update(harvest.away)
        return harvest.behind == ("shaky",)

    try:
        assert eventually(is_behind), "as much waits for it as may"
        assert sum(world.positions["shaky"].values()) == 10
        assert "sink shaky" in away
        committed = len(world.table.changes)
        assert eventually(lambda: sum(world.ask().positions["steady"].values()) >= committed), "the other goes on"
        world.store_proxy.heal()
        is_healed.set()
        eventually(lambda: not world.ask().behind, 60)
    finally:
        stop.set()
        thread.join()
    assert eventually(lambda: world.has_all("steady") and world.has_all("shaky"))
    assert world.texts == len(world.table.changes), "what the other store has is not paid for again"


def test_the_model_is_away_and_nothing_is_lost(world: World) -> None:
    world.insert(1)
    assert eventually(lambda: world.has_all("steady"))
    world.model_proxy.refuse()
    world.insert(2, 3)
    assert eventually(lambda: world.ask().model_counts.failures > 0)
    assert sum(world.positions["steady"].values()) == 1
    world.model_proxy.heal()
    assert eventually(lambda: world.has_all("steady") and world.has_all("shaky"))


def test_texts_wait_for_the_budget_while_deletes_and_metadata_go_on(world: World, tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path / "budget")
    world.give_budget(tmp_path / "budget")
    world.insert(*range(6))
    assert eventually(lambda: world.has_all("steady") and world.has_all("shaky"))
    paid, reached = world.texts, sum(world.positions["steady"].values())

    def spend(dollars: float) -> None:
        ledger.change(lambda state: (replace(state, dollars=dollars), None))

    spend(1.0)
    world.insert(6, 7, 8)
    world.table.update_body(5, "row 5 in other words")
    world.table.delete(0)
    world.table.update_a(1, "changed")
    world.commit(3)
    unwritten = {"body row 6", "body row 7", "body row 8", "body row 5 in other words"}

    def goes_on() -> bool:
        world.ask()
        return all(
            world.shown(store) == sorted({*world.wanted, "body row 5"} - unwritten)
            and world.metadata(store)["1"] == "changed"
            for store in ("steady", "shaky")
        )

    assert eventually(goes_on), "what needs no new vector is written, also behind what does"
    assert eventually(lambda: "budget" in world.ask().away.get("embedding", ""))
    assert world.texts == paid
    assert sum(world.positions["steady"].values()) < reached + 6, (
        "a reader that is killed now reads the waiting rows again"
    )
    spend(0.0)
    assert eventually(lambda: world.has_all("steady") and world.has_all("shaky"))
    assert world.texts == paid + 4, "each text is paid for once, whichever store comes first"
    assert "embedding" not in world.ask().away


def test_a_fatal_error_arrives_in_the_task_with_its_type_and_hint(world: World) -> None:
    world.insert(1)
    for positions in world.positions.values():
        positions[f"{world.topic}/0"] = 1000
    world.epoch = "2"
    with pytest.raises(SourceGoneError) as raised:
        eventually(lambda: world.ask() is None)
    assert raised.value.hint
    again = error_in(f"PythonException: Traceback\n{type(raised.value).__module__}.SourceGoneError: {raised.value}")
    assert type(again) is SourceGoneError, "as text from a Spark worker it is the same error"
    for positions in world.positions.values():
        positions[f"{world.topic}/0"] = 0
    world.epoch = "3"
    assert eventually(lambda: world.has_all("steady"))


def test_a_task_yields_the_report_and_how_far_the_reader_is(world: World) -> None:
    world.insert(1, 2)
    assert eventually(lambda: world.has_all("steady"))
    instruction = Instruction(world.epoch, world.batch, 3, world.positions, address=world.address)
    run = harvest_task(world.settings, {7: instruction}, SECRET)
    table = pa.Table.from_batches(run([pa.RecordBatch.from_pydict({"id": [7]})]), HARVEST_SCHEMA).to_pylist()
    harvests = [row["harvest"] for row in table if row["harvest"]]
    assert len(harvests) == 1
    assert '"part": 3' in harvests[0]
    assert f'"{world.topic}/0": 1' in harvests[0]


def test_spark_and_arrow_are_not_imported_in_a_reader() -> None:
    code = "import reader.process, sources.kafka.feed, sys; print({'pyspark', 'pyarrow'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
