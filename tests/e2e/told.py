"""A table whose changes are told to a topic by a test, and what stores show of it."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from local_stack.servers.kafka import Broker
from tests.history import ModelTable, as_record
from tests.waiting import eventually


class Told:
    """A table whose changes go to a topic, each key to its own partition, and what stores in pgvector show of it."""

    def __init__(self, broker: Broker, topic: str, dsn: str, name: str = "t", partitions: int = 2) -> None:
        self.table, self.topic, self.dsn, self.sent = ModelTable(), topic, dsn, 0
        self.name, self.partitions = name, partitions
        self.producer = broker.producer()

    def send(self) -> None:
        """Send what was done to the table since."""
        for change in self.table.changes[self.sent :]:
            record = as_record(change, self.name)
            headers: list[tuple[str, str | bytes | None]] = list(record.headers)
            partition = sum(change.key.encode()) % self.partitions
            self.producer.produce(self.topic, record.value, record.key, partition, headers=headers)
        assert self.producer.flush(30) == 0
        self.sent = len(self.table.changes)

    def shown(self, name: str) -> list[tuple[Any, ...]]:
        """All that a reader of a store sees."""
        columns = "key::text, metadata::text, chunk_index, chunk_text, embedding::text, sequence"
        with psycopg.connect(self.dsn) as connection:
            if connection.execute("SELECT to_regclass(%s)", [name]).fetchone() == (None,):
                return []
            query = f"SELECT {columns} FROM {name} WHERE table_name = %s ORDER BY 1, 3"
            return connection.execute(query.encode(), [f"public.{self.name}"]).fetchall()

    def await_shown(self, name: str) -> float:
        """Wait until a store shows the table's rows; how long that took."""
        began = time.monotonic()
        wanted = sorted(str(row["body"]) for row in self.table.rows.values())
        eventually(lambda: sorted(text for _, _, _, text, _, _ in self.shown(name)) == wanted, 60)
        return time.monotonic() - began

    def seconds_to(self, name: str, numbers: range) -> list[float]:
        """Insert rows, one when the other is shown; the time of each."""
        took = []
        for number in numbers:
            self.table.insert(number, f"row {number}")
            self.send()
            took.append(self.await_shown(name))
        return took
