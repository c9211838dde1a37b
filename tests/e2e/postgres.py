"""A database of PostgreSQL, captured by Debezium as `ragstream capture` renders it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from local_stack.servers.connect import Connect
from local_stack.servers.kafka import Broker
from sources.capture.debezium import DebeziumCaptureConfig
from sources.capture.rendering import Details, render
from tests.servers import unique


class Captured:
    """The connector of tables, and their topics: also of names that a table gets later."""

    def __init__(
        self, dsn: str, tables: Sequence[str], broker: Broker, connect: Connect, later: Sequence[str] = ()
    ) -> None:
        self.dsn, self.tables, self.connect, self.prefix = dsn, tables, connect, unique("postgres")
        self.topics = [f"{self.prefix}.{table.replace(' ', '_')}" for table in (*tables, *later)]
        for topic in self.topics:
            broker.create_topic(topic, 3, max_message_bytes="33554432")
        self.source: dict[str, Any] = {
            "type": "kafka", "envelope": "debezium", "topics": self.topics, **broker.endpoint
        }  # fmt: skip

    def put(self, later: Sequence[str] = (), **settings: str) -> None:
        """Capture the tables, the first one under other names as well; keys of more settings with `_` for `.`."""
        capture = DebeziumCaptureConfig.model_validate({
            "type": "debezium", "dsn": self.dsn, "connector": self.prefix, "topic_prefix": self.prefix, "replication_factor": 1,
        })  # fmt: skip
        details = Details({self.tables[0]: tuple(later)} if later else {})
        rendered = render(capture, self.prefix, self.tables, self.topics, details=details, reveal=True)
        more = {name.replace("_", "."): value for name, value in settings.items()}
        self.connect.put_connector(self.prefix, rendered["connector"]["config"] | more)
