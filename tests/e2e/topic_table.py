"""A table whose changes a test sends to a topic, and what stores show of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg

from local_stack.servers.kafka import Broker
from tests.e2e.pipeline import embedding
from tests.history import ModelTable, as_record
from tests.waiting import eventually


class TopicTable:
    """A table whose changes go to a topic, each key to its own partition, and what stores in pgvector show of it."""

    def __init__(self, broker: Broker, topic: str, dsn: str, name: str = "t", partitions: int = 2) -> None:
        self.model, self.topic, self.dsn, self.sent = ModelTable(), topic, dsn, 0
        self.name, self.partitions = name, partitions
        self.producer = broker.producer()

    def send(self) -> None:
        """Send what was done to the table since."""
        for change in self.model.changes[self.sent :]:
            record = as_record(change, self.name)
            headers: list[tuple[str, str | bytes | None]] = list(record.headers)
            partition = sum(change.key.encode()) % self.partitions
            self.producer.produce(self.topic, record.value, record.key, partition, headers=headers)
        assert self.producer.flush(30) == 0
        self.sent = len(self.model.changes)

    def shown(self, name: str) -> list[tuple[Any, ...]]:
        """All that a reader of a store sees."""
        columns = "key::text, metadata::text, chunk_index, chunk_text, embedding::text, sequence"
        with psycopg.connect(self.dsn) as connection:
            if connection.execute("SELECT to_regclass(%s)", [name]).fetchone() == (None,):
                return []
            query = f"SELECT {columns} FROM {name} WHERE table_name = %s ORDER BY 1, 3"
            return connection.execute(query.encode(), [f"public.{self.name}"]).fetchall()

    def await_shown(self, name: str) -> None:
        """Wait until a store shows the table's rows."""
        wanted = sorted(str(row["body"]) for row in self.model.rows.values())
        eventually(lambda: sorted(text for _, _, _, text, _, _ in self.shown(name)) == wanted, 60)

    def insert_shown(self, name: str, numbers: range) -> None:
        """Insert rows, one when the other is shown."""
        for number in numbers:
            self.model.insert(number, f"row {number}")
            self.send()
            self.await_shown(name)


def configuration(
    folder: Path, broker: Broker, topics: Iterable[str], model_url: str, dsn: str, *, stores: Iterable[str],
    tables: Iterable[str] = "t",
) -> dict[str, Any]:  # fmt: skip
    """A pipeline from topics with such tables into stores of one database, each named as its view."""
    document = {"template": "{body}", "metadata": ["a"], "chunk": {"max_tokens": 64}}
    return {
        "name": "topics",
        "source": {"type": "kafka", "envelope": "debezium", "topics": [*topics], **broker.endpoint},
        "tables": [{"table": f"public.{name}", "keys": ["id"], "document": document} for name in tables],
        "lake": {"path": str(folder / "lake"), "land_every": "1s"},
        "checkpoint": str(folder / "checkpoint"),
        "embedding": embedding(model_url, dimensions=256),
        "sinks": [{"type": "pgvector", "name": name, "dsn": dsn, "table": name} for name in stores],
    }
