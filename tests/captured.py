"""A connector's topics, decoded as the pipeline decodes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from confluent_kafka import Consumer

from local_stack.servers.kafka import Broker
from schemas.changes import Change, Changes
from schemas.records import Record
from tests.history import folded
from tests.waiting import eventually
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.decode import decode
from transforms.fold import RowState


class Topics:
    """The topics of a prefix and of tables with their keys, from their beginning."""

    def __init__(self, broker: Broker, prefix: str, tables: Mapping[str, tuple[str, ...]]) -> None:
        self.prefix = prefix
        settings = {"group.id": prefix, "auto.offset.reset": "earliest", "topic.metadata.refresh.interval.ms": 500}
        self.consumer = Consumer({"bootstrap.servers": broker.endpoint["bootstrap_servers"], **settings})
        self.consumer.subscribe([f"{prefix}.{table}" for table in tables])
        self.context = DecodeContext("debezium", {table: TableContext(table, keys) for table, keys in tables.items()})
        self.records: list[Record] = []

    def changes(self, records: int) -> list[Change]:
        """Every change, once so many records have been read in all."""
        self._read_until(lambda: len(self.records) >= records)
        assert len(self.records) == records
        return self._decoded()

    def changes_until(self, text: bytes) -> list[Change]:
        """Every change, once a record with this text in it has been read."""
        self._read_until(lambda: any(text in (record.value or b"") for record in self.records))
        return self._decoded()

    def _read_until(self, are_read: Callable[[], bool]) -> None:
        def polled() -> bool:
            message = None if are_read() else self.consumer.poll(0.5)
            if message is not None and not message.error() and message.value():
                headers = cast("list[tuple[str, bytes]]", message.headers() or [])
                topic, place = str(message.topic()), (str(message.partition()), str(message.offset()))
                self.records.append(Record(topic, *place, message.key(), message.value(), tuple(headers)))
            return are_read()

        eventually(polled, 60)

    def _decoded(self) -> list[Change]:
        changes: list[Change] = []
        for record in self.records:
            decoded = decode(record, self.context)
            assert isinstance(decoded, Changes), decoded
            changes += decoded.changes
        return changes

    def rows(self, records: int) -> dict[str, dict[str, RowState]]:
        """Every table's rows, once so many records have been read in all."""
        changes = self.changes(records)
        return {table: folded([c for c in changes if c.table == table]) for table in self.context.tables}
