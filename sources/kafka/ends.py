"""Where Kafka's partitions end, asked of their leaders again and again without waiting for an answer.

The last stable offset is what a reader of committed records can reach. An answer was made after its question was asked, so
a reader that has reached it lacked nothing at the moment of the question, however late the answer came.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from sources.feeds import Partition
    from sources.kafka.client import Brokers

UNKNOWN = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError._NOENT}
)
_EVERY_S = 0.5
_TIMEOUT_S = 5.0
_AWAY_S = 2.0
"""A question that is not answered for so long says that somebody is away."""
_REFUSED_S = 10.0
"""A user whom the brokers knew is refused for so long before that is believed: a broker that starts may not know all users."""


class _Question(NamedTuple):
    asked_us: int
    asked: float
    answers: dict[Partition, Future]  # type: ignore[type-arg]  # the client does not say of what


class Ends:
    """The newest answers of the leaders; one thread asks, any may look."""

    def __init__(
        self, brokers: Brokers, isolation: IsolationLevel, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Open the client that asks how far a reader of this isolation can come."""
        self.clock = clock
        self.admin: AdminClient = brokers.admin()
        self.unknown_since: dict[Partition, float] = {}
        """Since when no broker knows these partitions, or has a leader of them: they are gone, or a broker starts. Monotonic."""
        self._brokers, self._isolation = brokers, isolation
        self._question: _Question | None = None
        self._next = 0.0
        self._answered: float | None = None
        self._ends: dict[Partition, tuple[int, int]] = {}
        self._silent: str | None = None

    def ask(self, partitions: Collection[Partition]) -> None:
        """Take the answers there are, and ask again when it is time; never waits."""
        self.admin.poll(0)
        now = self.clock()
        question = self._question
        if question is not None:
            if not _is_answered(question):
                return
            self._take(question, now)
            self._question = None
        if not partitions or now < self._next:
            return
        self._next = now + _EVERY_S
        wanted = {TopicPartition(*_named(partition)): OffsetSpec.latest() for partition in partitions}
        asked_us = time.time_ns() // 1000
        answers = self.admin.list_offsets(wanted, isolation_level=self._isolation, request_timeout=_TIMEOUT_S)
        self._question = _Question(asked_us, now, {f"{at.topic}/{at.partition}": f for at, f in answers.items()})

    def reached_us(self, partition: Partition, at: int) -> int:
        """When a partition was last known to end at or before an offset; 0 when it goes on, or nothing is known."""
        asked_us, end = self._ends.get(partition, (0, 0))
        return asked_us if at >= end else 0

    def raise_refused(self) -> None:
        """Raise ConfigurationError when the brokers refuse this user, from the start or for a while."""
        refusal = self._brokers.refusal
        if refusal is not None and (self._answered is None or time.monotonic() - self._answered > _REFUSED_S):
            raise self._brokers.refused(refusal)

    @property
    def away(self) -> str | None:
        """Who does not answer, in one sentence."""
        question = self._question
        if question is not None and time.monotonic() - question.asked > _AWAY_S and not _is_answered(question):
            return f"Kafka at {self._brokers.servers} does not answer."
        return self._silent

    def _take(self, question: _Question, now: float) -> None:
        missing: set[Partition] = set()
        for partition, answer in question.answers.items():
            error = answer.exception()
            if error is not None and not isinstance(error, KafkaException):
                raise error
            if error is None and answer.result().offset >= 0:  # one that timed out has an offset below 0, and no error
                self._ends[partition] = (question.asked_us, answer.result().offset)
                self.unknown_since.pop(partition, None)
                continue
            missing.add(partition)
            if error is not None and error.args[0].code() in UNKNOWN:
                self.unknown_since.setdefault(partition, now)
        if len(missing) < len(question.answers):
            self._answered, self._brokers.refusal = now, None
        self._silent = None
        if missing:
            some = "" if len(missing) == len(question.answers) else f" for {len(missing)} of its partitions"
            self._silent = f"Kafka at {self._brokers.servers} does not answer{some}."
            # A client goes on asking by the leaders' epochs that it learned first, and is refused for ever after an election.
            # Without a token for a new one, it stays: the settings were good enough before.
            with contextlib.suppress(UnavailableError, ConfigurationError):
                self.admin = self._brokers.admin()


def _is_answered(question: _Question) -> bool:
    return all(answer.done() for answer in question.answers.values())


def _named(partition: Partition) -> tuple[str, int]:
    topic, _, number = partition.rpartition("/")
    return topic, int(number)
