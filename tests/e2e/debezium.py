"""Tables of a database, captured by Debezium as `ragstream capture` renders and applies it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from local_stack.servers.connect import Connect
from local_stack.servers.kafka import Broker
from sources.capture.connect_worker import put_connector
from sources.capture.debezium import DebeziumCaptureConfig
from sources.capture.rendering import Details, render
from tests.servers import unique


class Captured:
    """The connector of tables, and their topics: also of names that a table gets later."""

    def __init__(
        self, dsn: str, tables: Sequence[str], broker: Broker, connect: Connect, later: Sequence[str] = ()
    ) -> None:
        self.database, self.dsn, self.tables = dsn.partition(":")[0], dsn, tables
        self.broker, self.connect, self.prefix = broker, connect, unique(self.database)
        self.topics = [f"{self.prefix}.{table.replace(' ', '_')}" for table in (*tables, *later)]
        for topic in self.topics:
            broker.create_topic(topic, 3, max_message_bytes="33554432")

    @property
    def source(self) -> dict[str, Any]:
        """The pipeline's source."""
        return {"type": "kafka", "envelope": "debezium", "topics": self.topics, **self.broker.endpoint}

    def put(self, later: Sequence[str] = (), signal_table: str | None = None, **settings: str) -> None:
        """Capture the tables, the first one under other names as well; keys of more settings with `_` for `.`."""
        capture = DebeziumCaptureConfig.model_validate({
            "type": "debezium", "database": self.database, "dsn": self.dsn, "topic_prefix": self.prefix,
            "connector": self.prefix, "connect_url": self.connect.url, "replication_factor": 1,
            "signal_table": signal_table, **self.broker.endpoint,
        })  # fmt: skip
        details = Details({self.tables[0]: tuple(later)} if later else {})
        rendered = render(capture, self.prefix, self.tables, self.topics, details=details, reveal=True)
        rendered["connector"]["config"] |= {name.replace("_", "."): value for name, value in settings.items()}
        put_connector(capture, rendered)
