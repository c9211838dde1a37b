"""The one retry layer before a model: concurrent requests, a pace that follows throttles, isolation of refused texts."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from embeddings.budget.budget import Budget
from embeddings.errors import DimensionMismatchError, EmbeddingUnavailableError, ModelAnswerError
from embeddings.outcomes import Refused, Throttled, Unanswered
from embeddings.pacing import Pace
from embeddings.protocol import TEXT_TOO_LONG, Embedding, EmbeddingCounts, EmbeddingRejected
from embeddings.vectors import BAD_VECTOR, WRONG_LENGTH
from schemas.errors import ConfigurationError
from transforms.documents.chunking import tokens

logger = logging.getLogger(__name__)

UNANSWERED_BEFORE_PROBE = 6
"""Unanswered tries of one request before a probe is sent, which distinguishes a bad request from an outage."""

SILENCES_BETWEEN_ANSWERS = 3
"""Further unanswered tries, each followed by an answered probe, before the request is to blame."""

SECONDS_BETWEEN_WARNINGS = 30
"""The least time between two log lines of a process on throttles and outages."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's answer: one embedding a text, in order, and the tokens it counted."""

    vectors: Sequence[Embedding]
    tokens: int = 0


type Send = Callable[[Sequence[str]], Reply]
"""Send one request; raises Throttled, Unanswered, Refused, ModelAnswerError for an answer that cannot be read, or another error
that no retry can mend."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Delays in seconds, and the sources of time and randomness, which tests replace."""

    first_wait: float = 0.1
    longest_wait: float = 5.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random


@dataclass(slots=True)
class _Task:
    texts: tuple[str, ...]
    unanswered: int = 0
    blamed: int = 0
    """Unanswered tries that an answered probe followed."""


@dataclass(slots=True)
class _Job:
    """The state of one call of `run`."""

    send: Send
    probe: tuple[str, ...]
    deadline: float | None
    queue: deque[_Task]
    results: dict[str, Embedding] = field(default_factory=dict)
    ended: bool = False
    trusted: bool = False
    """Whether the model answered the probe with a vector after it had answered some text without one."""

    def take(self) -> _Task | None:
        try:
            return None if self.ended else self.queue.popleft()
        except IndexError:
            return None

    def requeue(self, task: _Task) -> None:
        self.queue.appendleft(task)

    def isolate(self, task: _Task, condition: str, message: str) -> None:
        """Split a request into halves, or reject its only text."""
        if len(task.texts) == 1:
            self.results[task.texts[0]] = EmbeddingRejected(condition, message)
            return
        middle = len(task.texts) // 2
        unanswered = max(0, task.unanswered - 1)  # so that the next failure of a half is followed by a probe
        self.queue.extendleft(_Task(half, unanswered) for half in (task.texts[middle:], task.texts[:middle]))


class Governor:
    """Sends the requests of one process to one model, at the pace that the provider accepts. Thread-safe.

    A throttle or an outage delays work; it never fails work, and no text is blamed for it. A refused request is halved until
    the text to blame is alone. A replayed text is sent again: callers look vectors up first.
    """

    def __init__(self, requests_in_flight: int, timing: Timing | None = None, budget: Budget | None = None) -> None:
        self._timing = timing or Timing()
        self.budget = budget
        self._pace = Pace.starting_at(
            requests_in_flight, first_wait=self._timing.first_wait, longest_wait=self._timing.longest_wait
        )
        self._in_flight = 0
        self._turn = threading.Condition()
        self._counts = EmbeddingCounts()
        self._next_warning = -math.inf

    def counts(self) -> EmbeddingCounts:
        """Return the counts since this governor was created."""
        return self._counts

    def run(
        self, requests: Sequence[tuple[str, ...]], send: Send, *, probe: tuple[str, ...], seconds: float | None = None
    ) -> dict[str, Embedding]:
        """Send every request and return one embedding a text.

        `probe` is a request that the model is known to take. Raises `EmbeddingUnavailableError` after `seconds` (None: never),
        and any error of `send` that no retry can mend.
        """
        deadline = None if seconds is None else self._timing.clock() + seconds
        job = _Job(send, probe, deadline, deque(_Task(texts) for texts in requests))
        threads = min(len(requests), self._pace.ceiling)
        if threads <= 1:
            self._work(job)
        else:
            with ThreadPoolExecutor(threads, "embed") as pool:
                for worker in [pool.submit(self._work, job) for _ in range(threads)]:
                    worker.result()
        return job.results

    def _work(self, job: _Job) -> None:
        try:
            while (task := job.take()) is not None:
                self._attempt(job, task)
        except BaseException:
            job.ended = True
            raise

    def _attempt(self, job: _Job, task: _Task) -> None:
        try:
            reply = self._send(job, task.texts)
        except Throttled:
            job.requeue(task)
        except Refused as refusal:
            self._refused(job, task, refusal)
        except ModelAnswerError:
            self._unreadable(job, task)
        except Unanswered as silence:
            self._unanswered(job, task, silence)
        else:
            if len(reply.vectors) != len(task.texts):
                self._unreadable(job, task)  # vectors cannot be matched with texts
                return
            if any(isinstance(vector, EmbeddingRejected) for vector in reply.vectors):
                self._await_probe(job)
            job.results.update(zip(task.texts, reply.vectors, strict=True))

    def _refused(self, job: _Job, task: _Task, refusal: Refused) -> None:
        if refusal.too_long:
            job.isolate(task, TEXT_TOO_LONG, f"the model refuses this text for its length: {refusal.condition}")
        elif len(task.texts) == 1 and not self._answers_probe(job):
            job.requeue(task)
        else:
            job.isolate(task, "MODEL_REFUSED_TEXT", f"the model refuses this text: {refusal.condition}")

    def _unanswered(self, job: _Job, task: _Task, silence: Unanswered) -> None:
        task.unanswered += 1
        if task.unanswered >= UNANSWERED_BEFORE_PROBE:
            task.blamed = task.blamed + 1 if self._answers_probe(job) else 0
        if task.blamed < SILENCES_BETWEEN_ANSWERS:
            job.requeue(task)
        else:
            job.isolate(task, "MODEL_FAILS_ON_TEXT", f"the model fails on this text: {silence.condition}")

    def _unreadable(self, job: _Job, task: _Task) -> None:
        """Split a request whose answer cannot be matched with its texts; reject a single text."""
        if len(task.texts) == 1:
            self._await_probe(job)
        job.isolate(task, BAD_VECTOR, "the model answers no vector for this text")

    def _await_probe(self, job: _Job) -> None:
        """Wait until the model answers the probe with a vector: until then no text is to blame for an answer without one."""
        while not job.trusted:
            job.trusted = self._answers_probe(job)

    def _answers_probe(self, job: _Job) -> bool:
        """Whether the model answers the probe now; raise if it refuses even that, so that no text is blamed for a setting."""
        try:
            answer = self._send(job, job.probe).vectors
        except (Throttled, Unanswered):
            return False
        except Refused as refusal:
            raise ConfigurationError(
                f"the embedding model refuses every text: {refusal.condition}",
                condition="MODEL_REFUSES_ALL",
                hint="check that embedding.model is offered in this region and takes these dimensions",
            ) from None
        bad = next((vector for vector in answer if isinstance(vector, EmbeddingRejected)), None)
        if bad is not None or len(answer) != len(job.probe):
            raise DimensionMismatchError(
                f"the embedding model gives a plain word no vector: {bad.message if bad else 'none, or too many'}",
                condition="DIMENSION_MISMATCH" if bad and bad.condition == WRONG_LENGTH else "NO_VECTORS",
                hint="set embedding.dimensions to what the model answers, and use a new store for it; check that "
                "embedding.model and embedding.endpoint_url name the same model family",
            )
        return True

    def _send(self, job: _Job, texts: Sequence[str]) -> Reply:
        estimate = sum(map(tokens, texts)) if self.budget else 0
        if self.budget is not None:
            # A caller with a time limit is a question or a check: it is counted, and does not wait.
            self.budget.take(estimate, waits=job.deadline is None)
        with self._slot(job):
            sent_at = self._timing.clock()
            try:
                reply = job.send(texts)
            except Throttled as throttle:
                self._settle(-estimate)
                self._slow_down(sent_at, throttle.condition, throttle.retry_after)
                self._count(EmbeddingCounts(throttles=1))
                raise
            except Unanswered as silence:
                self._settle(-estimate)
                self._slow_down(sent_at, silence.condition, None)
                self._count(EmbeddingCounts(failures=1))
                raise
            except Refused:
                self._count(EmbeddingCounts(failures=1))
                raise
            with self._turn:
                self._pace.answered()
            self._count(EmbeddingCounts(1, len(texts), reply.tokens))
        if reply.tokens:
            self._settle(reply.tokens - estimate)
        return reply

    def _settle(self, more: int) -> None:
        """Correct the tokens that the budget counted before the request."""
        if self.budget is not None:
            self.budget.settle(more)

    @contextmanager
    def _slot(self, job: _Job) -> Iterator[None]:
        """Wait for a slot in flight and for the pace, then occupy the slot."""
        with self._turn:
            while self._in_flight >= int(self._pace.limit):
                self._turn.wait(self._remaining(job))
            self._in_flight += 1
        try:
            while (wait := self._pace.not_before - self._timing.clock()) > 0:
                remaining = self._remaining(job)
                self._timing.sleep(wait if remaining is None else min(wait, remaining))
            yield
        finally:
            with self._turn:
                self._in_flight -= 1
                self._turn.notify_all()

    def _remaining(self, job: _Job) -> float | None:
        if job.deadline is None:
            return None
        remaining = job.deadline - self._timing.clock()
        if remaining <= 0:
            raise EmbeddingUnavailableError(
                "the embedding model gave no vector in the time allowed",
                condition="EMBEDDING_MODEL_UNAVAILABLE",
                hint="try again later, or raise the account's quota if the model throttles",
            )
        return remaining

    def _slow_down(self, sent_at: float, condition: str, retry_after: float | None) -> None:
        with self._turn:
            now = self._timing.clock()
            self._pace.slowed(sent_at=sent_at, now=now, retry_after=retry_after, jitter=self._timing.jitter())
            silent = now < self._next_warning
            self._next_warning = self._next_warning if silent else now + SECONDS_BETWEEN_WARNINGS
        if not silent:
            context = {"condition": condition, "in_flight": int(self._pace.limit), "throttles": self._counts.throttles}
            logger.warning("embedding model slows the job down", extra={"context": context})

    def _count(self, more: EmbeddingCounts) -> None:
        with self._turn:
            self._counts += more
