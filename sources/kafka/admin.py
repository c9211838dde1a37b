"""Requests to the brokers about topics and offsets, under one deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, wait
from functools import lru_cache
from typing import Any
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.errors import UnavailableError
from sources.feeds import Partition
from sources.kafka.broker import TIMEOUT_MS, Topic
from sources.kafka.client import Brokers, is_refusal, isolation_of

_PAUSE_S = 0.1


class AdminRequests:
    """Requests with the user's own rights.

    Each raises UnavailableError when no broker answers, ConfigurationError when they refuse the user.
    """

    def __init__(self, bootstrap_servers: str, options: Mapping[str, str]) -> None:
        """Take the client of earlier requests, if there is one; the deadline counts from now."""
        self._brokers, self._admin = _client(bootstrap_servers, tuple(sorted(options.items())))
        self._admin.poll(0)  # delivers errors from before, which do not count
        self._brokers.refusal = None
        self._isolation = isolation_of(options)
        self._until = time.monotonic() + TIMEOUT_MS / 1000

    def topics(self, is_wanted: Callable[[str], bool]) -> list[Topic]:
        """The wanted topics among those that this user may see; a cluster may have thousands of others."""
        names = [name for name in self._names() if is_wanted(name)]
        if not names:
            return []
        wanted = TopicCollection(names)
        asked = self._admin.describe_topics(wanted, request_timeout=self._seconds_left())
        described = self._results(asked, {KafkaError.UNKNOWN_TOPIC_OR_PART})  # deleted since it was listed
        return [
            Topic(name, _uuid(topic.topic_id), len(topic.partitions))
            for name, topic in described.items()
            if not topic.is_internal
        ]

    def offsets(self, topics: Collection[Topic], *, ends: bool) -> dict[Partition, int]:
        """By partition, the offset after the last record that may be read, or that of the first record."""
        which = OffsetSpec.latest() if ends else OffsetSpec.earliest()
        wanted = {TopicPartition(topic.name, number): which for topic in topics for number in range(topic.partitions)}
        while wanted:
            try:
                return self._offsets(wanted)
            except UnavailableError:
                if self._is_late:
                    raise
                time.sleep(_PAUSE_S)  # a topic that was just created has no leader yet
        return {}

    def _offsets(self, wanted: Mapping[TopicPartition, OffsetSpec]) -> dict[Partition, int]:
        asked = self._admin.list_offsets(
            dict(wanted), isolation_level=self._isolation, request_timeout=self._seconds_left()
        )
        offsets = {f"{at.topic}/{at.partition}": answer.offset for at, answer in self._results(asked).items()}
        if min(offsets.values()) < 0:  # a leader that did not answer in time has an offset below 0, and no error
            raise self._brokers.unreachable(KafkaError(KafkaError._TIMED_OUT))
        return offsets

    @property
    def _is_late(self) -> bool:
        return time.monotonic() > self._until

    def _seconds_left(self) -> float:
        return max(0.1, self._until - time.monotonic())

    def _names(self) -> list[str]:
        """Asked in slices: the client delivers the reason of a refusal only between two calls."""
        while True:
            try:
                listed = self._admin.list_topics(timeout=min(0.5, self._seconds_left())).topics
            except KafkaException as error:
                self._admin.poll(0)
                self._raise(error.args[0], final=self._is_late)
            else:
                self._brokers.is_known = True
                return list(listed)

    def _results[K](self, futures: Mapping[K, Future[Any]], left_out: Collection[int] = ()) -> dict[K, Any]:
        """Wait for all results; raise the first error whose code is not in `left_out`."""
        while wait(futures.values(), timeout=0.1).not_done:
            self._admin.poll(0)
            self._raise(None, final=False)
        results: dict[K, Any] = {}
        for key, future in futures.items():
            error = future.exception()
            if error is None:
                results[key] = future.result()
            elif not isinstance(error, KafkaException):
                raise error
            elif error.args[0].code() not in left_out:
                self._raise(error.args[0], final=True)
        return results

    def _raise(self, error: KafkaError | None, *, final: bool) -> None:
        """Raise a final error; a refusal is not final where the user was known: a starting broker may not know it yet."""
        refusal = self._brokers.refusal or (error if error is not None and is_refusal(error) else None)
        is_refused = refusal is not None and (final or not self._brokers.is_known)
        if is_refused or (final and error is not None):
            _client.cache_clear()  # after an election a kept client can be refused for ever (ADR 0033)
        if is_refused and refusal is not None:
            raise self._brokers.refused(refusal)
        if final and error is not None:
            raise self._brokers.unreachable(error)


@lru_cache(maxsize=4)
def _client(bootstrap_servers: str, options: tuple[tuple[str, str], ...]) -> tuple[Brokers, AdminClient]:
    """A cached client: the brokers are asked once a second, and MSK limits new connections a second."""
    brokers = Brokers(bootstrap_servers, dict(options))
    return brokers, brokers.admin()


def _uuid(topic_id: Any) -> str:
    """A topic's id as a UUID, which is its form in checkpoints and in Kafka's protocol; the client writes base64."""
    halves = (topic_id.get_most_significant_bits(), topic_id.get_least_significant_bits())
    return str(UUID(bytes=b"".join(half.to_bytes(8, signed=True) for half in halves)))
