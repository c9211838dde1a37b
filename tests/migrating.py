"""A writer and a reader that go on while stores are moved to another model."""

from __future__ import annotations

import random
import threading
from contextlib import closing
from functools import partial
from itertools import count
from typing import Any

import psycopg
from pyspark.sql import SparkSession

from embeddings import open_embedder
from embeddings.registry import embedder_of
from indexing.indexer import Indexer
from retrieval.ranking.active_index import ActiveIndex
from retrieval.ranking.search import SearchResult
from sinks import open_sink
from sinks.search import ANYTHING
from tests.history import ModelTable, as_record
from tests.lake_to_store import Lake

STEADY = 40
"""Rows that nobody changes: a reader finds them at any moment."""


class Live(threading.Thread):
    """A job that indexes changes one after the other, and lands them later; it knows the old model alone."""

    def __init__(self, lake: Lake, spark: SparkSession) -> None:
        super().__init__(name="live", daemon=True)
        self.table = ModelTable()
        for number in range(STEADY):
            self.table.insert(number, f"steady {number}")
        self._lake, self._spark, self._random = lake, spark, random.Random(1)
        self._landed, self._batches = 0, count()
        self._stop_asked = threading.Event()
        self.error: BaseException | None = None
        self.written = 0

    def run(self) -> None:
        try:
            with closing(_Stores(self._lake)) as stores:
                stores.index(self.table, 0)
                self.land()
                for number in count(1000):
                    if self._stop_asked.wait(0.5):
                        break
                    before = len(self.table.changes)
                    self._one(number)
                    stores.index(self.table, before)
                    self.written += 1
        except BaseException as error:  # noqa: BLE001 - the test asks for it
            self.error = error

    def land(self) -> None:
        """Land what was indexed; behind the stores, as the job is."""
        changes = self.table.changes[self._landed :]
        self._landed += len(changes)
        self._lake.land(self._spark, changes, next(self._batches))

    def end(self) -> None:
        self._stop_asked.set()
        self.join(60)
        if self.error is not None:
            raise self.error

    def _one(self, number: int) -> None:
        living = [number for number in self.table.rows if number >= STEADY]
        kind = self._random.choice(["insert", "insert", "a", "body", "delete"]) if len(living) > 5 else "insert"
        if kind == "insert":
            self.table.insert(number, f"row {number}")
        elif kind == "delete":
            self.table.delete(self._random.choice(living))
        else:
            (self.table.update_a if kind == "a" else self.table.update_body)(self._random.choice(living), f"{number}")


class _Stores:
    def __init__(self, lake: Lake) -> None:
        embedder = open_embedder(lake.embedding)
        self._sinks = [open_sink(sink, embedder.fingerprint, embedder.dimensions) for sink in lake.config.sinks]
        for sink in self._sinks:
            sink.prepare()
        embedders = partial(embedder_of, own=lake.embedding)
        specs = lake.config.document_specs
        self._indexer = Indexer(lake.context, specs, self._sinks, embedder, texts_at_once=64, embedders=embedders)

    def index(self, table: ModelTable, since: int) -> None:
        self._indexer.index(map(as_record, table.changes[since:]))

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


class Reader(threading.Thread):
    """Asks for a steady row's own text, again and again, of one store after the other: each time it must come first."""

    def __init__(self, lake: Lake, *stores: str) -> None:
        super().__init__(name="reader", daemon=True)
        self._lake, self._stores = lake, stores
        self._stop_asked = threading.Event()
        self.polls = 0
        self.wrong: list[Any] = []
        self.models: list[str] = []

    def run(self) -> None:
        servings = [(name, ActiveIndex(self._lake.sink(name), self._lake.embedding)) for name in self._stores]
        while not self._stop_asked.wait(0.2):
            name, serving = servings[self.polls % len(servings)]
            text = f"body steady {self.polls % STEADY}"
            try:
                first_hit = _first(serving.search(text, 3, ANYTHING))
                if first_hit != (text, 1.0):
                    self.wrong.append((name, text, first_hit))
                if shown := self._mixed(name):
                    self.wrong.append((name, shown))
            except Exception as error:  # noqa: BLE001 - no answer is what is looked for
                self.wrong.append((name, text, repr(error)))
            if not self.models or self.models[-1] != serving.model:
                self.models.append(serving.model)
            self.polls += 1
        for _, serving in servings:
            serving.close()

    def end(self) -> None:
        self._stop_asked.set()
        self.join(60)

    def _mixed(self, name: str) -> list[Any]:
        """Lengths of vectors that readers of their own see by the view, where there are several."""
        if self._lake.sink(name).type != "pgvector":
            return []
        with psycopg.connect(self._lake.dsn) as connection:
            lengths = connection.execute(f"SELECT DISTINCT vector_dims(embedding) FROM {name}".encode()).fetchall()
        return lengths if len(lengths) != 1 else []


def _first(result: SearchResult) -> tuple[str, float] | None:
    results = result.results
    return (results[0].hit.chunk_text, round(results[0].hit.similarity, 4)) if results else None
