"""The feed of a Kafka source: partitions with explicit offsets, no consumer group, nothing committed to Kafka.

The client's "end of partition" event moves a partition past control records and aborted transactions. That nothing more is
there only the brokers prove: their last stable offsets are requested twice a second.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Collection
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, TopicCollection, TopicPartition

from schemas.errors import SourceGoneError, UnavailableError
from schemas.records import Record
from sources.feeds import MAX_BYTES, MAX_RECORDS, Fetched, Partition, Positions
from sources.kafka import broker
from sources.kafka.client import Brokers, is_refusal, isolation_of
from sources.kafka.config import KafkaSourceConfig
from sources.kafka.ends import UNKNOWN, EndOffsets
from sources.kafka.options import fetch_options, group_prefix
from sources.loss import restart_hint

_FETCHING: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
    "check.crcs": True,
    "fetch.min.bytes": 1,
    "fetch.wait.max.ms": 100,  # a partition that is added waits for the fetch that is under way
    "fetch.error.backoff.ms": 100,
    "fetch.queue.backoff.ms": 10,
    "queued.max.messages.kbytes": 16 * 1024,
    "fetch.max.bytes": 16 * 1024 * 1024,
    "max.partition.fetch.bytes": 4 * 1024 * 1024,  # a larger record comes alone, whatever its size (KIP-74)
    "receive.message.max.bytes": 512 * 1024 * 1024,
    "topic.metadata.propagation.max.ms": 5_000,
    # A partition that comes between two metadata requests waits for the next (default 5 min).
    "topic.metadata.refresh.interval.ms": 2_000,
}
_LOST = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION})
_SLICE_S = 0.1
"""`close` waits for a fetch no longer than this."""
_DESCRIBE_S = 1.0
"""Deadline for the description of a topic by a broker that answered just now."""
_AGAIN_S = 1.0
"""Pause before a partition whose records could not be read is tried again."""
_STALL_S, _LONGEST_STALL_S = 10.0, 320.0
"""After so long without a record of a partition that holds more, another client reads on; doubled while that does not help.

After a broker's restart librdkafka can stop fetching a partition for good, without an error (its issues 4492 and 5153).
"""


class KafkaFeed:
    """See `sources.feeds.Feed`."""

    def __init__(self, config: KafkaSourceConfig, checkpoint: str) -> None:
        """Open the clients; they connect when a partition is followed. Raises ConfigurationError for options that cannot be."""
        self._name, self._checkpoint = config.name, checkpoint
        self._brokers = Brokers(config.bootstrap_servers, config.options)
        group = {"group.id": f"{group_prefix(config.options)}-ragstream-{config.name}"}
        self._open = partial(self._brokers.consumer, _FETCHING | group | fetch_options(config.options))
        self._consumer = self._open()
        self._ends = EndOffsets(self._brokers, isolation_of(config.options))
        self._reached: dict[Partition, int] = {}
        self._messages: deque[Message] = deque()
        self._retry_at: dict[Partition, float] = {}
        self._unread: dict[Partition, str] = {}
        """By partition: the last error, if no record has come since."""
        self._stalled: dict[Partition, tuple[int, float]] = {}
        """By partition that holds more than has come: its position, and since when (monotonic) that is so."""
        self._stall_limit_s = _STALL_S
        self._using = threading.Lock()
        self._closed = False

    def follow(self, positions: Positions) -> None:
        """Read these partitions as well; those that are followed already go on where they are."""
        new = {partition: int(at) for partition, at in positions.items() if partition not in self._reached}
        if new:
            self._consumer.incremental_assign([_at(partition, offset) for partition, offset in new.items()])
            self._reached |= new

    def leave(self, partitions: Collection[Partition]) -> None:
        """Read these partitions no more."""
        left = {partition for partition in partitions if self._reached.pop(partition, None) is not None}
        self._stop(left - self._retry_at.keys())
        for partition in left:
            self._retry_at.pop(partition, None)
            self._unread.pop(partition, None)
            self._ends.unknown_since.pop(partition, None)

    def fetch(self, seconds: float) -> Fetched:
        """Return what has come; see `sources.feeds.Feed.fetch`."""
        with self._using:
            if self._closed:
                return Fetched([], {})
            self._take(seconds)
            self._ends.raise_refused()
            self._raise_gone()
            return self._fetched()

    def caught_up_us(self) -> dict[Partition, int]:
        """When the brokers last said that a partition ends where `fetch` has come; see `sources.feeds.Feed`."""
        return {partition: self._ends.reached_us(partition, at) for partition, at in self._reached.items()}

    @property
    def away(self) -> str | None:
        """Which brokers do not answer, or which partition's next records cannot be read."""
        unread = next(iter(self._unread.items()), None)
        if self._ends.away or unread is None:
            return self._ends.away
        return f"Kafka at {self._brokers.servers} does not give the next records of {unread[0]} ({unread[1]})."

    def close(self) -> None:
        """Close the connections; a `fetch` of another thread returns first, at most a tenth of a second later."""
        self._closed = True
        with self._using:
            self._consumer.close()
            self._messages.clear()
            self._reached.clear()

    def _take(self, seconds: float) -> None:
        """Move the client's messages into our queue, waiting for the first."""
        until = time.monotonic() + seconds
        while not self._closed:
            self._ends.ask(self._reached)
            self._retry()
            if self._messages:
                return
            left = until - time.monotonic()
            first = self._consumer.poll(max(0.0, min(left, _SLICE_S)))
            if first is not None:
                self._messages.append(first)
                self._messages.extend(self._consumer.consume(MAX_RECORDS - 1, 0))
                continue
            self._replace_stalled_client()
            if left <= 0:
                return

    def _fetched(self) -> Fetched:
        records: list[Record] = []
        reached: dict[Partition, int] = {}
        size = 0
        while self._messages and len(records) < MAX_RECORDS and size < MAX_BYTES:
            message: Any = self._messages[0]  # its types allow None, which only a producer's message has
            partition = _name(message)
            error = message.error()
            if partition in self._reached and partition not in self._retry_at:
                if (error is None or error.code() == KafkaError._PARTITION_EOF) and self._unread.pop(partition, None):
                    self._stall_limit_s = _STALL_S
                if error is None:
                    records.append(_record(message))
                    size += len(message)
                    reached[partition] = message.offset() + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    reached[partition] = message.offset()
                elif records:
                    break  # the records before it are returned first
                else:
                    self._messages.popleft()
                    self._handle_error(partition, error)
                    continue
            self._messages.popleft()
        self._reached |= reached
        return Fetched(records, reached)

    def _handle_error(self, partition: Partition, error: KafkaError) -> None:
        """Raise an error that waiting does not mend; after any other, read on later from the position of `fetch`."""
        if is_refusal(error):
            raise self._brokers.refused(error)
        if error.code() in _LOST:
            raise SourceGoneError(
                f"source {self._name!r}: Kafka no longer holds what {partition} had at offset {self._reached[partition]}:"
                " records that this job had not read are lost to it.",
                condition="SOURCE_OFFSETS_GONE",
                hint=restart_hint(self._checkpoint),
            )
        # The client goes on after what it could not read: no later record may be returned before that.
        self._stop({partition})
        self._retry_at[partition] = time.monotonic() + _AGAIN_S
        self._unread[partition] = error.name()

    def _stop(self, partitions: Collection[Partition]) -> None:
        """Unassign these, and drop their messages: assigned again, each begins at the position named then."""
        if partitions:
            self._consumer.incremental_unassign([_at(partition) for partition in partitions])
            self._messages = deque(message for message in self._messages if _name(message) not in partitions)

    def _replace_stalled_client(self) -> None:
        """Read on with another client when a partition holds more and has given nothing for too long."""
        now = self._ends.clock()
        stalled: dict[Partition, tuple[int, float]] = {}
        for partition, at in self._reached.items():
            if partition not in self._retry_at and self._ends.holds_more(partition, at):
                place, since = self._stalled.get(partition, (at, now))
                stalled[partition] = (at, since if place == at else now)
        self._stalled = stalled
        too_long = [partition for partition, (_, since) in stalled.items() if now - since >= self._stall_limit_s]
        if not too_long:
            return
        self._stalled = {}
        self._unread |= dict.fromkeys(too_long, f"nothing came for {self._stall_limit_s:.0f} s")
        self._stall_limit_s = min(2 * self._stall_limit_s, _LONGEST_STALL_S)
        with contextlib.suppress(UnavailableError):  # without a token now, this client stays
            self._consumer, old = self._open(), self._consumer
            self._consumer.incremental_assign([_at(partition, at) for partition, at in self._reached.items()])
            self._retry_at.clear()
            threading.Thread(target=old.close, daemon=True, name="close").start()  # it may wait for brokers

    def _raise_gone(self) -> None:
        """Raise SourceGoneError for a partition that no broker has known for GONE_S."""
        now = self._ends.clock()
        for partition in [name for name, since in self._ends.unknown_since.items() if now - since >= broker.GONE_S]:
            del self._ends.unknown_since[partition]
            if partition not in self._reached or not self._is_gone(partition):
                continue
            raise SourceGoneError(
                f"source {self._name!r}: {partition} is gone: what it held and this job had not read yet is lost.",
                condition="SOURCE_TOPIC_CHANGED",
                hint=restart_hint(self._checkpoint),
            )

    def _is_gone(self, partition: Partition) -> bool:
        topic, _, number = partition.rpartition("/")
        try:
            described = self._ends.admin.describe_topics(TopicCollection([topic]), request_timeout=_DESCRIBE_S)
            return int(number) not in {part.id for part in described[topic].result().partitions}
        except KafkaException as error:
            return error.args[0].code() in UNKNOWN

    def _retry(self) -> None:
        now = time.monotonic()
        for partition in [partition for partition, due in self._retry_at.items() if due <= now]:
            del self._retry_at[partition]
            self._consumer.incremental_assign([_at(partition, self._reached[partition])])


def _name(message: Message) -> Partition:
    return f"{message.topic()}/{message.partition()}"


def _at(partition: Partition, offset: int = 0) -> TopicPartition:
    topic, _, number = partition.rpartition("/")
    return TopicPartition(topic, int(number), offset)


def _record(message: Any) -> Record:
    kind, milliseconds = message.timestamp()
    return Record(
        str(message.topic()),
        str(message.partition()),
        str(message.offset()),
        message.key(),
        message.value(),
        tuple(message.headers() or ()),
        milliseconds if kind else None,
    )
