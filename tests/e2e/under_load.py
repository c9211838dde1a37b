"""A pipeline that indexes a table which keeps changing, watched all the while; faults are the test's own."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from local_stack import processes
from local_stack.models.service import ModelService
from local_stack.servers.kafka import Broker
from tests.e2e.load import STORE, Changing, Freshness, Load, Stream, now_us
from tests.e2e.pipeline import START_SECONDS, Driver, Pipeline, counters, embedding, running
from tests.history import TABLE
from tests.waiting import NothingWrong, eventually

IN_FLIGHT = 24
"""Texts that a killed process may have paid for and not kept: those of one request."""


@dataclass
class Scene[L: Changing]:
    """What runs, and what watches it."""

    pipeline: Pipeline
    load: L
    freshness: Freshness
    dsn: str
    model_url: str
    repeated_before: int

    def start(self, *arguments: str) -> Driver:
        """Start a driver that indexes, unless told otherwise, and wait until it does."""
        driver = self.pipeline.start(*(arguments or ("--jobs", "index")))
        self.settle()
        return driver

    def settle(self) -> float:
        """Wait until the store is as fresh as this moment; how long that took."""
        began, at_us, key_moves = time.monotonic(), now_us(), self.freshness.key_moves
        eventually(lambda: key_moves and key_moves[-1][1] >= at_us, START_SECONDS, self._last.process)
        return time.monotonic() - began

    def positions(self) -> dict[str, Any]:
        """How far the store has come, by partition, as the driver has noted it."""
        (noted,) = Path(self.pipeline.config.checkpoint).glob("index_*/positions.json")
        positions: dict[str, Any] = json.loads(noted.read_text())["stores"]["pgvector"]
        return positions

    def still(self, seconds: float, grace: float = 2.5) -> None:
        """What is committed in so many seconds is not shown, and the store does not say so either, after a moment of grace."""
        began, began_us = time.monotonic(), now_us()
        time.sleep(seconds)
        late = [
            (round(at - began, 1), (us - began_us) / 1e6) for at, us in self.freshness.key_moves if at > began + grace
        ]
        assert not late, f"it says after (s) that it is fresh as of (s after): {late}"

    def finish(self, *, kills: int, seconds: float = 120) -> None:
        """End the load; every row, vector and text is as it must be, and no text was paid for in vain."""
        self.load.end()
        eventually(NothingWrong(partial(self.load.wrong, self.dsn)), seconds, self._last.process)
        self.freshness.end()
        probes = len(self.pipeline.drivers) - 1  # each driver tries the model with one and the same text
        assert self.repeated() <= probes + kills * IN_FLIGHT, f"{self.repeated()} texts were sent twice"

    def repeated(self) -> int:
        """Texts that the model was sent again."""
        asked = counters(self.model_url)
        return int(asked["texts"] - asked["distinct_texts"]) - self.repeated_before

    @property
    def _last(self) -> Driver:
        return self.pipeline.drivers[-1]


@contextmanager
def under_load(
    folder: Path, source: dict[str, Any], stream: Stream, model: ModelService, dsn: str, *, rate: float = 20.0,
    mark: str = "", store_dsn: str | None = None, key_moves: bool = True, readers: int = 2,
) -> Iterator[Scene[Load]]:  # fmt: skip
    """Change a table for the length of the block; the test starts drivers. `store_dsn` leads to the store by another way."""
    document = configured(folder, source, [{"table": TABLE}], model, store_dsn or dsn) | {"readers": readers}
    pipeline = Pipeline(folder / "p", document, mark=mark)
    with watched(pipeline, Load(stream, rate, folder.name, key_moves=key_moves), model, dsn) as scene:
        yield scene


@contextmanager
def watched[L: Changing](pipeline: Pipeline, load: L, model: ModelService, dsn: str) -> Iterator[Scene[L]]:
    """Change tables and watch the store for the length of the block; the test starts drivers."""
    model_url = model.endpoint["endpoint_url"]
    asked = counters(model_url)
    scene = Scene(pipeline, load, Freshness(load, dsn), dsn, model_url, asked["texts"] - asked["distinct_texts"])
    with running(pipeline):
        load.start()
        scene.freshness.start()
        try:
            yield scene
        finally:
            load.halt()


def configured(
    folder: Path, source: Any, tables: Sequence[Mapping[str, str]], model: ModelService, dsn: str
) -> dict[str, Any]:
    """The configuration of tables as `history.TABLE` is one: a key, a text, and a column for metadata."""
    document = {"template": "{body}", "metadata": ["a"], "chunk": {"max_tokens": 200}}
    return {
        "name": "load",
        "source": source,
        "tables": [{"keys": ["id"], "document": document} | dict(table) for table in tables],
        "lake": {"path": str(folder / "lake"), "land_every": "4s"},
        "checkpoint": str(folder / "checkpoint"),
        "embedding": embedding(model.endpoint["endpoint_url"]),
        "sinks": [{"type": "pgvector", "dsn": dsn, "table": STORE}],
    }


def kafka_source(broker: Broker, topic: str) -> dict[str, Any]:
    """The configuration of a topic."""
    return {"type": "kafka", "envelope": "debezium", "topics": [topic], **broker.endpoint}


def split_and_merge(client: Any, stream: str, *, between: Callable[[], object]) -> None:
    """Split a shard of a stream, and merge two others; something happens in between."""

    def open_shards() -> list[dict[str, Any]]:
        shards = client.list_shards(StreamName=stream)["Shards"]
        left = [shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
        return sorted(left, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))

    def settled() -> None:
        describe = client.describe_stream_summary
        eventually(lambda: describe(StreamName=stream)["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE", 30)

    first = open_shards()[0]
    low, high = (int(first["HashKeyRange"][f"{end}HashKey"]) for end in ("Starting", "Ending"))
    client.split_shard(StreamName=stream, ShardToSplit=first["ShardId"], NewStartingHashKey=str((low + high) // 2))
    settled()
    between()
    one, other = open_shards()[1:3]
    client.merge_shards(StreamName=stream, ShardToMerge=one["ShardId"], AdjacentShardToMerge=other["ShardId"])
    settled()


def kill(process: processes.Process) -> None:
    """SIGKILL one process."""
    process.send(signal.SIGKILL)


def await_none(driver: Driver, seconds: float) -> None:
    """No reader of an ended driver runs after so many seconds."""
    eventually(lambda: not driver.readers, seconds)
