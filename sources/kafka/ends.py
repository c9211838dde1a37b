"""End offsets of Kafka's partitions, requested of their leaders every half second without waiting for the result.

The last stable offset is the end for a reader of committed records. A leader answers after it was asked, so a reader at or
past that offset lacked nothing at the time of the request, however late the answer came.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import NamedTuple

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.errors import ConfigurationError, UnavailableError
from sources.feeds import Partition
from sources.kafka.client import Brokers

UNKNOWN = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError._NOENT}
)
_EVERY_S = 0.5
_TIMEOUT_S = 5.0
_AWAY_S = 2.0
"""A request without an answer for so long counts as a broker that is away."""
_REFUSED_S = 10.0
"""A refusal of a known user is final after so long: a starting broker may not know all users yet."""


class _Request(NamedTuple):
    asked_us: int
    asked: float
    offsets: dict[Partition, Future]  # type: ignore[type-arg]  # the client does not say of what


class EndOffsets:
    """The newest end offsets of the leaders; one thread requests, any may read."""

    def __init__(
        self, brokers: Brokers, isolation: IsolationLevel, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Open the client; the offsets are those for a reader of this isolation level."""
        self.clock = clock
        self.admin: AdminClient = brokers.admin()
        self.unknown_since: dict[Partition, float] = {}
        """Since when (monotonic) no broker knows a partition or its leader: it is gone, or a broker is starting."""
        self._brokers, self._isolation = brokers, isolation
        self._request: _Request | None = None
        self._next = 0.0
        self._answered: float | None = None
        self._ends: dict[Partition, tuple[int, int]] = {}
        self._silent: str | None = None

    def ask(self, partitions: Collection[Partition]) -> None:
        """Take the results that have come, and request again when it is time; never waits."""
        self.admin.poll(0)
        now = self.clock()
        request = self._request
        if request is not None:
            if not _is_answered(request):
                return
            self._take(request, now)
            self._request = None
        if not partitions or now < self._next:
            return
        self._next = now + _EVERY_S
        wanted = {TopicPartition(*_named(partition)): OffsetSpec.latest() for partition in partitions}
        asked_us = time.time_ns() // 1000
        offsets = self.admin.list_offsets(wanted, isolation_level=self._isolation, request_timeout=_TIMEOUT_S)
        self._request = _Request(asked_us, now, {f"{at.topic}/{at.partition}": f for at, f in offsets.items()})

    def reached_us(self, partition: Partition, at: int) -> int:
        """When (µs since the epoch) a partition was last known to end at or before an offset; 0: it goes on, or is unknown."""
        asked_us, end = self._ends.get(partition, (0, 0))
        return asked_us if at >= end else 0

    def holds_more(self, partition: Partition, at: int) -> bool:
        """Whether a partition was last known to end after an offset, by brokers that all answer."""
        return self.away is None and self._ends.get(partition, (0, 0))[1] > at

    def raise_refused(self) -> None:
        """Raise ConfigurationError when the brokers refuse this user, from the start or for a while."""
        refusal = self._brokers.refusal
        if refusal is not None and (self._answered is None or time.monotonic() - self._answered > _REFUSED_S):
            raise self._brokers.refused(refusal)

    @property
    def away(self) -> str | None:
        """Which brokers do not answer, in one sentence."""
        request = self._request
        if request is not None and time.monotonic() - request.asked > _AWAY_S and not _is_answered(request):
            return f"Kafka at {self._brokers.servers} does not answer."
        return self._silent

    def _take(self, request: _Request, now: float) -> None:
        missing: set[Partition] = set()
        for partition, future in request.offsets.items():
            error = future.exception()
            if error is not None and not isinstance(error, KafkaException):
                raise error
            if error is None and future.result().offset >= 0:  # one that timed out has an offset below 0, and no error
                self._ends[partition] = (request.asked_us, future.result().offset)
                self.unknown_since.pop(partition, None)
                continue
            missing.add(partition)
            if error is not None and error.args[0].code() in UNKNOWN:
                self.unknown_since.setdefault(partition, now)
        if len(missing) < len(request.offsets):
            self._answered, self._brokers.refusal = now, None
        self._silent = None
        if missing:
            some = "" if len(missing) == len(request.offsets) else f" for {len(missing)} of its partitions"
            self._silent = f"Kafka at {self._brokers.servers} does not answer{some}."
            # A client keeps the leader epochs that it learned first: after an election its requests are refused for ever.
            # Where no other can be opened (no token now), it stays.
            with contextlib.suppress(UnavailableError, ConfigurationError):
                self.admin = self._brokers.admin()


def _is_answered(request: _Request) -> bool:
    return all(future.done() for future in request.offsets.values())


def _named(partition: Partition) -> tuple[str, int]:
    topic, _, number = partition.rpartition("/")
    return topic, int(number)
