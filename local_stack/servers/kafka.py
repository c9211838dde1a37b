"""A Kafka broker in KRaft mode: broker and controller in one JVM."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import ClassVar

from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from local_stack import cache
from local_stack.ports import HOST
from local_stack.service import Endpoint, Service, program
from schemas.errors import ConfigurationError, UnavailableError

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Largest record: above the 9 MB values that must never stop a pipeline, and JSON escapes can double a value."""

_CLUSTER_ID = "ragstream-local-stack0"  # 22 characters, as Kafka's own base64 UUIDs
_BROKER = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    # one broker: nothing can be replicated
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    # as Amazon MSK by default: a topic that nobody created is an error, not an empty topic
    "auto.create.topics.enable": "false",
    "message.max.bytes": str(MAX_MESSAGE_BYTES),
    "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES),
    "broker.session.timeout.ms": "3000",  # a killed broker may not register again before its old session is over
    "broker.heartbeat.interval.ms": "500",
    # small machine
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
}


def java(heap: str, *main: str) -> list[str]:
    """Return the command of a small JVM that starts quickly; `heap` is its upper limit, as `-Xmx` takes it."""
    # fmt: off
    return [program("java", "Install Java 17."), "-Xms64m", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true", "-cp", cache.kafka_classpath(), *main]
    # fmt: on


def properties(values: Mapping[str, str]) -> str:
    """Render a Java properties file, in ASCII: Java reads it as Latin-1, and a folder may have any name."""
    return "".join(f"{name}={_escaped(value)}\n" for name, value in values.items())


def _escaped(value: str) -> str:
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    pairs = (int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2))
    return "".join(chr(unit) if unit < 0x7F else f"\\u{unit:04x}" for unit in pairs)


class Broker(Service):
    """One broker. What a producer got acknowledged is there again after `kill` and `start`."""

    part = "kafka"
    port_names: ClassVar[tuple[str, ...]] = ("client", "controller")

    @property
    def endpoint(self) -> Endpoint:
        """`bootstrap_servers`: host and port."""
        return {"bootstrap_servers": f"{HOST}:{self.port}"}

    def prepare(self) -> None:
        """Write its configuration; format its log folder, once."""
        configuration = self.directory / "broker.properties"
        configuration.write_text(properties(self.settings()))
        if (self.data / "meta.properties").exists():
            return
        command = java("128m", "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(configuration))
        self.run([*command, "--ignore-formatted", *self.format_options()], "format its log folder")

    def settings(self) -> dict[str, str]:
        """Return what the broker's properties file holds."""
        controller = f"{HOST}:{self.port_of('controller')}"
        return _BROKER | {
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "log.dirs": str(self.data),
        }

    def format_options(self) -> list[str]:
        """Return more words for the command that formats the log folder."""
        return []

    def command(self) -> list[str]:
        """Run the broker in the foreground."""
        return java("384m", "kafka.Kafka", str(self.directory / "broker.properties"))

    def handshake(self) -> None:
        """Request the cluster's metadata."""
        if not self._admin().list_topics(timeout=2).brokers:
            raise UnavailableError(f"{self.name} has no broker yet")

    def create_topic(self, name: str, partitions: int = 1, **configuration: str) -> None:
        """Create a topic and return once it can be produced to; keys of its configuration with `_` for `.`."""
        settings = {key.replace("_", "."): value for key, value in configuration.items()}
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=settings)
        admin = self._admin()  # a client that is let go of cancels what it was asked
        self._done(admin.create_topics([topic])[name], f"create topic {name}")
        while not self._is_led(name, partitions):  # the broker says yes before it leads them
            time.sleep(0.01)

    def add_partitions(self, name: str, partitions: int) -> None:
        """Give a topic so many partitions in all."""
        admin = self._admin()
        self._done(admin.create_partitions([NewPartitions(name, partitions)])[name], f"add partitions to {name}")

    def delete_topic(self, name: str) -> None:
        """Delete a topic with all its records."""
        admin = self._admin()
        self._done(admin.delete_topics([name])[name], f"delete topic {name}")

    def topics(self) -> dict[str, int]:
        """Return each topic's number of partitions, internal ones left out."""
        topics = self._admin().list_topics(timeout=10).topics
        return {name: len(topic.partitions) for name, topic in topics.items() if not name.startswith("_")}

    def producer(self, **settings: str | int) -> Producer:
        """Open a client that writes records of any size the broker takes; keys of its settings with `_` for `.`."""
        named = {name.replace("_", "."): value for name, value in settings.items()}
        defaults = {"bootstrap.servers": f"{HOST}:{self.port}", "message.max.bytes": MAX_MESSAGE_BYTES, "log_level": 0}
        return Producer(defaults | named)

    def expire(self, topic: str, partition: int, before: int) -> None:
        """Delete the records of a partition before an offset, as its retention would."""
        admin = self._admin()
        place = TopicPartition(topic, partition, before)
        self._done(admin.delete_records([place])[place], f"expire records of {topic}")

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": f"{HOST}:{self.port}", "log_level": 0})

    def _is_led(self, name: str, partitions: int) -> bool:
        metadata = self._admin().list_topics(name, timeout=10).topics[name].partitions
        return len(metadata) == partitions and all(partition.leader >= 0 for partition in metadata.values())

    def _done(self, future: object, purpose: str) -> None:
        try:
            future.result(timeout=30)  # type: ignore[attr-defined]  # the client does not say what its futures are
        except KafkaException as error:
            raise ConfigurationError(f"{self.name}: cannot {purpose}: {error.args[0].name()}") from error
