"""The one retry layer before a model: sends requests side by side, slows down when told to, isolates what is refused."""

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

from embeddings.errors import DimensionMismatchError, EmbeddingUnavailableError, ModelAnswerError
from embeddings.outcomes import Refused, Throttled, Unanswered
from embeddings.pacing import Pace
from embeddings.protocol import TEXT_TOO_LONG, Embedding, EmbeddingCounts, EmbeddingRejected
from embeddings.vectors import BAD_VECTOR, WRONG_LENGTH
from schemas.errors import ConfigurationError

logger = logging.getLogger(__name__)

UNANSWERED_BEFORE_PROBE = 6
"""Tries of one request without an answer before a harmless text is sent to tell a bad request from an outage."""

SILENCES_BETWEEN_ANSWERS = 3
"""Times the request must then go unanswered, each followed by an answer to the harmless text, before it is to blame."""


SECONDS_BETWEEN_WARNINGS = 30
"""An outage of an hour leaves a hundred lines a process, not a line a request."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered: an embedding a text, in order, and the tokens it counted."""

    vectors: Sequence[Embedding]
    tokens: int = 0


type Send = Callable[[Sequence[str]], Reply]
"""Send one request; raises Throttled, Unanswered, Refused, or ModelAnswerError for an answer that cannot be read, and anything
else for what no retry can mend."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Waits, and the sources of time and chance, so that a test needs neither."""

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
    """Silences of this request that an answer to the probe followed."""


@dataclass(slots=True)
class _Job:
    """One call of `run`: what is left to send, what came back, and what ended it early."""

    send: Send
    probe: tuple[str, ...]
    deadline: float | None
    left: deque[_Task]
    results: dict[str, Embedding] = field(default_factory=dict)
    ended: bool = False
    trusted: bool = False
    """Whether the model answered the probe with a vector after it had answered a text without one."""

    def take(self) -> _Task | None:
        try:
            return None if self.ended else self.left.popleft()
        except IndexError:
            return None

    def again(self, task: _Task) -> None:
        self.left.appendleft(task)

    def isolate(self, task: _Task, condition: str, message: str) -> None:
        """Send the halves apart, or give up on the one text that is left."""
        if len(task.texts) == 1:
            self.results[task.texts[0]] = EmbeddingRejected(condition, message)
            return
        middle = len(task.texts) // 2
        # A half that holds the culprit has been suspected long enough.
        unanswered = max(0, task.unanswered - 1)
        self.left.extendleft(_Task(half, unanswered) for half in (task.texts[middle:], task.texts[:middle]))


class Governor:
    """Sends requests for one model of one process, at the pace its provider takes.

    A throttle or an outage delays work and never fails it nor counts against a text; a refused request is halved until
    the text to blame stands alone. Safe to use from several threads.
    """

    def __init__(self, requests_in_flight: int, timing: Timing | None = None) -> None:
        """Allow at most so many requests at once."""
        self._timing = timing or Timing()
        self._pace = Pace.starting_at(
            requests_in_flight, first_wait=self._timing.first_wait, longest_wait=self._timing.longest_wait
        )
        self._in_flight = 0
        self._turn = threading.Condition()
        self._counts = EmbeddingCounts()
        self._next_warning = -math.inf

    def counts(self) -> EmbeddingCounts:
        """Return what was sent since this governor was made."""
        return self._counts

    def run(
        self, requests: Sequence[tuple[str, ...]], send: Send, *, probe: tuple[str, ...], seconds: float | None = None
    ) -> dict[str, Embedding]:
        """Send every request and return one embedding a text.

        `probe` is a request the model is known to take. Raises what `send` raises beyond its three outcomes, and
        `EmbeddingUnavailableError` when `seconds` have passed; without `seconds` it waits as long as it takes.
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
            job.again(task)
        except Refused as refusal:
            self._refused(job, task, refusal)
        except ModelAnswerError:
            self._unreadable(job, task)
        except Unanswered as silence:
            self._unanswered(job, task, silence)
        else:
            if len(reply.vectors) != len(task.texts):
                self._unreadable(job, task)  # no one can tell whose they are
                return
            if any(isinstance(each, EmbeddingRejected) for each in reply.vectors):
                self._trust(job)
            job.results.update(zip(task.texts, reply.vectors, strict=True))

    def _refused(self, job: _Job, task: _Task, refusal: Refused) -> None:
        if refusal.too_long:
            job.isolate(task, TEXT_TOO_LONG, f"the model refuses this text for its length: {refusal.condition}")
        elif len(task.texts) == 1 and not self._takes_the_probe(job):
            job.again(task)
        else:
            job.isolate(task, "MODEL_REFUSED_TEXT", f"the model refuses this text: {refusal.condition}")

    def _unanswered(self, job: _Job, task: _Task, silence: Unanswered) -> None:
        task.unanswered += 1
        if task.unanswered >= UNANSWERED_BEFORE_PROBE:
            task.blamed = task.blamed + 1 if self._takes_the_probe(job) else 0
        if task.blamed < SILENCES_BETWEEN_ANSWERS:
            job.again(task)
        else:
            job.isolate(task, "MODEL_FAILS_ON_TEXT", f"the model fails on this text: {silence.condition}")

    def _unreadable(self, job: _Job, task: _Task) -> None:
        """Ask for the halves of a request whose answer cannot be told apart; of one text there is no vector."""
        if len(task.texts) == 1:
            self._trust(job)
        job.isolate(task, BAD_VECTOR, "the model answers no vector for this text")

    def _trust(self, job: _Job) -> None:
        """Wait until the model has answered the probe with a vector: else no text is to blame for one without."""
        while not job.trusted:
            job.trusted = self._takes_the_probe(job)

    def _takes_the_probe(self, job: _Job) -> bool:
        """Say whether the model answers a harmless request now; so a wrong setting is not blamed on every text in turn."""
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
        bad = next((each for each in answer if isinstance(each, EmbeddingRejected)), None)
        if bad is not None or len(answer) != len(job.probe):
            raise DimensionMismatchError(
                f"the embedding model gives a plain word no vector: {bad.message if bad else 'none, or too many'}",
                condition="DIMENSION_MISMATCH" if bad and bad.condition == WRONG_LENGTH else "NO_VECTORS",
                hint="set embedding.dimensions to what the model answers, and use a new store for it; check that "
                "embedding.model and embedding.endpoint_url name the same model family",
            )
        return True

    def _send(self, job: _Job, texts: Sequence[str]) -> Reply:
        with self._slot(job):
            sent_at = self._timing.clock()
            try:
                reply = job.send(texts)
            except Throttled as throttle:
                self._slow_down(sent_at, throttle.condition, throttle.retry_after)
                self._count(EmbeddingCounts(throttles=1))
                raise
            except Unanswered as silence:
                self._slow_down(sent_at, silence.condition, None)
                self._count(EmbeddingCounts(failures=1))
                raise
            except Refused:
                self._count(EmbeddingCounts(failures=1))
                raise
            with self._turn:
                self._pace.answered()
            self._count(EmbeddingCounts(1, len(texts), reply.tokens))
            return reply

    @contextmanager
    def _slot(self, job: _Job) -> Iterator[None]:
        """Hold one of the places in flight, once the pace lets a request leave."""
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
