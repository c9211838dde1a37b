"""Kafka Connect, distributed, a worker with Debezium's connectors and AWS's Avro converter; what we need of its REST."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from local_stack import cache
from local_stack.servers.kafka import MAX_MESSAGE_BYTES, Broker, java, properties
from local_stack.service import Endpoint, Service
from schemas.errors import ConfigurationError, UnavailableError
from sources.capture.connect_worker import put_settings

_JSON = "org.apache.kafka.connect.json.JsonConverter"
_WORKER = {
    "group.id": "connect",
    "key.converter": _JSON,
    "value.converter": _JSON,
    "config.storage.topic": "_connect_configs",
    "config.storage.replication.factor": "1",
    "offset.storage.topic": "_connect_offsets",
    "offset.storage.partitions": "1",
    "offset.storage.replication.factor": "1",
    "status.storage.topic": "_connect_status",
    "status.storage.partitions": "1",
    "status.storage.replication.factor": "1",
    "offset.flush.interval.ms": "1000",  # a killed worker repeats at most a second of events
    "session.timeout.ms": "6000",  # how long a killed worker keeps its connectors from the next one
    "producer.linger.ms": "0",  # Kafka 4 waits 5 ms for more; measured commit to consumer, p50: 21 ms with, 12 without
    "plugin.discovery": "service_load",
    "producer.max.request.size": str(MAX_MESSAGE_BYTES),
    "producer.buffer.memory": str(2 * MAX_MESSAGE_BYTES),
    "scheduled.rebalance.max.delay.ms": "0",  # one worker: nobody to wait for after it was killed
}


class Connect(Service):
    """One worker. Its connectors and their positions are in Kafka: they go on after `kill` and `start`."""

    part = "connect"

    def __init__(self, directory: Path, broker: Broker) -> None:
        """Open the worker of this folder; its broker may start at the same time."""
        super().__init__(directory)
        self.broker = broker

    @property
    def endpoint(self) -> Endpoint:
        """`url` of the REST interface."""
        return {"url": self.url}

    def prepare(self) -> None:
        """Write its configuration."""
        addresses = {
            "bootstrap.servers": self.broker.endpoint["bootstrap_servers"],
            "listeners": self.url,
            "plugin.path": f"{cache.debezium_plugins_dir()},{cache.converter_plugins_dir()}",
        }
        (self.directory / "worker.properties").write_text(properties(_WORKER | addresses))

    def environment(self) -> dict[str, str]:
        """Credentials with which AWS's converter asks the local registry; real ones never reach it."""
        return {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}

    def command(self) -> list[str]:
        """Run the worker in the foreground."""
        main = "org.apache.kafka.connect.cli.ConnectDistributed"
        return java("512m", main, str(self.directory / "worker.properties"))

    def handshake(self) -> None:
        """List its connectors, which also needs the broker."""
        self.connectors()

    def connectors(self) -> list[str]:
        """Return the names of its connectors."""
        return [str(name) for name in self._ask("GET", "/connectors")]

    def put_connector(self, name: str, settings: Mapping[str, str]) -> None:
        """Create or change a connector, as `ragstream capture --apply` does."""
        put_settings(self.url, name, settings)

    def wait_running(self, name: str, timeout: float = 60.0) -> None:
        """Return once the connector and at least one task run.

        Raises:
            ConfigurationError: a task failed.
            UnavailableError: it did not run within `timeout` seconds.
        """
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            states = self.states(name)
            if "FAILED" in states:
                raise ConfigurationError(
                    f"Connector {name} failed",
                    hint=f"GET {self.endpoint['url']}/connectors/{name}/status has the trace",
                )
            if len(states) > 1 and set(states) == {"RUNNING"}:
                return
            time.sleep(0.05)
        raise UnavailableError(f"Connector {name} does not run after {timeout:.0f} s", hint=f"read {self.log}")

    def states(self, name: str) -> list[str]:
        """Return the state of the connector, then of each of its tasks; empty while the worker does not know it yet."""
        answer = self._ask("GET", f"/connectors/{quote(name, safe='')}/status", missing={})
        return [part["state"] for part in ([answer["connector"], *answer["tasks"]] if answer else [])]

    def restart_failed(self, name: str) -> None:
        """Start again what has failed of a connector, as its operator does; what runs goes on."""
        path = f"/connectors/{quote(name, safe='')}/restart?onlyFailed=true&includeTasks=true"
        self._ask("POST", path, until=time.monotonic() + 60)

    def delete_connector(self, name: str) -> None:
        """Delete a connector; one that does not exist is as good as deleted. Its positions and its slot stay."""
        self._ask("DELETE", f"/connectors/{quote(name, safe='')}", missing=None)

    def _ask(self, method: str, path: str, body: Any = None, *, until: float = 0.0, missing: Any = ...) -> Any:
        """Send one request, again until `until` while the worker responds 409: it is rebalancing."""
        while True:
            status, answer = request_json(self.url, method, path, body)
            if status == http.client.NOT_FOUND and missing is not ...:
                return missing
            if status < http.client.BAD_REQUEST:
                return answer
            if status != http.client.CONFLICT or time.monotonic() > until:
                message = answer.get("message", "") if isinstance(answer, dict) else ""
                raise ConfigurationError(f"{self.name}: {method} {path} was answered {status}: {message}")
            time.sleep(0.1)


def request_json(url: str, method: str, path: str, body: Any = None, timeout: float = 30.0) -> tuple[int, Any]:
    """Return status and decoded body of one HTTP exchange; OSError where nothing answers."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text.strip() else None
    finally:
        connection.close()
