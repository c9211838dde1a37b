"""A store that is far behind: what its driver makes of the backlog, between a real broker and a real store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from glue_jobs.config.pipeline import parse_config
from glue_jobs.config.values import Substitution
from glue_jobs.continuous import store_positions
from glue_jobs.continuous.bulk_loads import BulkLoads
from glue_jobs.continuous.store_positions import StorePositions
from glue_jobs.continuous.stores import Stores
from glue_jobs.runtime import JobContext, StoresAsOf
from local_stack.servers.kafka import Broker
from sinks import open_index, open_sink
from sinks.bulk_loads import LEAST
from sinks.search import Question
from sinks.versions import BulkLoad
from tests.e2e.topic_table import TopicTable, configuration
from tests.feeding import DIMENSIONS, Fed, vector_of
from tests.stores import vector_indexes
from tests.waiting import eventually

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MODEL = ("model=test", DIMENSIONS)
ROWS, UPDATES, NEW = 1_200, 3_000, 20_000


class CatchingUp:
    """A topic, a store that has a part of it, and a driver that looks at both; the test writes in the readers' place."""

    def __init__(self, broker: Broker, topic: str, dsn: str, folder: Path) -> None:
        document = configuration(folder, broker, [topic], "http://127.0.0.1:9", dsn, stores=["kb"])
        self.config = parse_config(json.dumps(document), "pipeline", Substitution({}, folder))
        self.sink = open_sink(self.config.sinks[0], *MODEL)
        self.sink.prepare()
        self.fed = Fed(self.sink)
        self.table, self.written = TopicTable(broker, topic, dsn, partitions=1), 0
        self.start()

    def start(self) -> None:
        """Look by another driver, which knows nothing."""
        context = JobContext(cast("SparkSession", None), self.config)
        self.checkpoint = context.checkpoint(f"index_{self.config.sources[0].name}")
        self.as_of = {source.name: StoresAsOf(["kb"]) for source in self.config.sources}
        self.loads = BulkLoads(context, MODEL, self.as_of, Stores(context, *MODEL))

    def write(self, records: int) -> None:
        """Write the next records."""
        for some in batched(self.table.model.changes[self.written : self.written + records], 500):
            self.fed(some)
        self.written += records
        at = {"kb": {f"{self.table.topic}/0": self.written}}
        store_positions.write(self.checkpoint, StorePositions(readers=True, stores=at))

    def looked(self) -> BulkLoad | None:
        """The load that is under way after a look."""
        self.loads.look()
        return self.sink.bulk_load_now()

    def has_ended(self) -> bool:
        """Whether a look of a driver that has caught up leaves no load."""
        for as_of in self.as_of.values():
            as_of.emptied(time.time_ns() // 1000)
        return self.looked() is None

    def nearest(self, text: str) -> str:
        with closing(open_index(self.config.sinks[0], "model=test")) as index:
            return index.dense(Question(text, vector_of(text)), 1)[0].chunk_text


@pytest.fixture
def behind(kafka: Broker, new_topic: Callable[..., str], vectors_dsn: str, tmp_path: Path) -> Iterator[CatchingUp]:
    catching_up = CatchingUp(kafka, new_topic(1), vectors_dsn, tmp_path)
    with closing(catching_up.sink):
        yield catching_up


def test_a_backlog_of_new_rows_goes_in_bulk_and_updates_do_not(behind: CatchingUp, vectors_dsn: str) -> None:
    rows = behind.table.model
    for number in range(ROWS):
        rows.insert(number, f"row {number}")
    for number in range(UPDATES):
        rows.update_body(number % ROWS, f"row {number % ROWS} once more, {number}")
    for number in range(ROWS, ROWS + NEW):
        rows.insert(number, f"row {number}")
    behind.table.send()
    behind.write(ROWS)
    assert behind.looked() is None
    while behind.written < ROWS + UPDATES:
        behind.write(500)
        assert behind.looked() is None, "each of them is a new vector, and no new row"
    assert vector_indexes(vectors_dsn, "kb") == [True]

    while (load := behind.looked()) is None:
        behind.write(500)
        assert behind.written < ROWS + UPDATES + NEW // 2
    assert load.by == "catching up"
    assert load.expected is not None
    assert LEAST < load.expected < ROWS + UPDATES + NEW
    assert not any(vector_indexes(vectors_dsn, "kb"))
    behind.write(500)
    assert behind.nearest("body row 1500") == "body row 1500"
    assert behind.nearest("body row 0 once more, 2400") == "body row 0 once more, 2400"

    behind.start()
    assert behind.looked() == load
    eventually(behind.has_ended, 30)
    assert vector_indexes(vectors_dsn, "kb") == [True]
    behind.start()
    for _ in range(3):
        behind.write(100)
        assert behind.looked() is None, "what is left alone begins none"
