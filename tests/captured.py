"""A connector's topics, decoded as the pipeline decodes them."""

from __future__ import annotations

from collections.abc import Mapping
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

        def are_read() -> bool:
            message = None if len(self.records) >= records else self.consumer.poll(0.5)
            if message is not None and not message.error() and message.value():
                headers = cast("list[tuple[str, bytes]]", message.headers() or [])
                topic, place = str(message.topic()), (str(message.partition()), str(message.offset()))
                self.records.append(Record(topic, *place, message.key(), message.value(), tuple(headers)))
            return len(self.records) >= records

        eventually(are_read, 60)
        assert len(self.records) == records
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
