"""A connector as `ragstream capture --apply` makes it, and its topics, decoded as the pipeline decodes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from confluent_kafka import Consumer

from glue_jobs.cli.main import cli
from glue_jobs.config.pipeline import load_config
from glue_jobs.operations import capture_checks
from local_stack.servers.connect import Connect
from local_stack.servers.kafka import Broker
from schemas.changes import Change, Changes
from schemas.errors import ConfigurationError
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


def configured(
    folder: Path,
    dsn: str,
    connect: Connect,
    broker: Broker,
    tables: Sequence[Mapping[str, Any]],
    kind: str = "postgresql",
) -> Path:
    """A pipeline of its own for a database, in a file; it has these sections of tables."""
    name = dsn.rpartition("/")[2]
    topics = [f"{name}.{known_as}" for table in tables for known_as in (table["table"], *table.get("partitions", ()))]
    document = {
        "name": name,
        "source": {"type": "kafka", "envelope": "debezium", "topics": topics, **broker.endpoint},
        "capture": {
            "type": "debezium", "database": kind, "dsn": dsn, "connect_url": connect.endpoint["url"], "replication_factor": 1,
        },
        "tables": list(tables),
        "lake": {"path": str(folder / "lake")},
        "checkpoint": str(folder / "checkpoint"),
    }  # fmt: skip
    path = folder / "pipeline.json"
    path.write_text(json.dumps(document))
    return path


@contextmanager
def captured_by(path: Path, connect: Connect, broker: Broker) -> Iterator[Topics]:
    """The topics of a pipeline's connector, which runs until the block ends."""
    cli.main(["capture", str(path), "--apply"], standalone_mode=False)
    config = load_config(path)
    topics = Topics(broker, config.name, {name: table.keys for table in config.tables for name in table.names})
    try:
        yield topics
    finally:
        topics.consumer.close()
        connect.delete_connector(config.name)


def wrong_with_capture(path: Path) -> list[str]:
    """What `ragstream check` finds wrong with the capture, by line."""
    config = load_config(path)
    try:
        capture_checks.check(config, config.capture[0])
    except ConfigurationError as error:
        return error.message.splitlines()
    return []
