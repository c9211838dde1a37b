"""The retry layer, with a clock and a chance of the test's own: no time passes, and nothing is random."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from embeddings.errors import EmbeddingUnavailableError, ModelAnswerError
from embeddings.governor import SILENCES_BETWEEN_ANSWERS, UNANSWERED_BEFORE_PROBE, Governor, Reply, Timing
from embeddings.outcomes import Refused, Throttled, Unanswered
from embeddings.pacing import Pace
from embeddings.protocol import Embedding, EmbeddingCounts, EmbeddingRejected
from embeddings.vectors import checked
from schemas.errors import ConfigurationError

PROBE = ("probe",)


@dataclass
class Time:
    """A clock that only sleeping moves."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def timing(self, jitter: float = 0.0) -> Timing:
        return Timing(first_wait=1, longest_wait=8, clock=lambda: self.now, sleep=self.sleep, jitter=lambda: jitter)


@dataclass
class Model:
    """Answers a text with its length, after what `outcome` says of the request and its number."""

    outcome: Callable[[Sequence[str], int], Exception | None]
    requests: list[tuple[str, ...]] = field(default_factory=list)

    def send(self, texts: Sequence[str]) -> Reply:
        self.requests.append(tuple(texts))
        if (failure := self.outcome(texts, len(self.requests))) is not None:
            raise failure
        return Reply([np.array([len(text)], np.float32) for text in texts], tokens=len(texts))


def outcomes(results: Mapping[str, Embedding]) -> dict[str, object]:
    return {text: e.condition if isinstance(e, EmbeddingRejected) else float(e[0]) for text, e in results.items()}


def test_every_text_gets_its_vector_and_is_counted() -> None:
    governor = Governor(1, Time().timing())
    model = Model(lambda _texts, _n: None)
    results = governor.run([("a", "bb"), ("ccc",)], model.send, probe=PROBE)
    assert outcomes(results) == {"a": 1, "bb": 2, "ccc": 3}
    assert governor.counts() == EmbeddingCounts(requests=2, texts=3, tokens=3)


def test_a_throttle_waits_longer_each_time_and_never_fails() -> None:
    time = Time()
    model = Model(lambda _texts, n: Throttled("ThrottlingException") if n <= 6 else None)
    results = Governor(1, time.timing()).run([("a",)], model.send, probe=PROBE)
    assert outcomes(results) == {"a": 1}
    # Half of 1, 2, 4 and then 8 seconds, the longest wait; the other half is left to chance.
    assert time.slept == [0.5, 1, 2, 4, 4, 4]


def test_jitter_adds_up_to_half_of_the_wait() -> None:
    time = Time()
    model = Model(lambda _texts, n: Throttled("ThrottlingException") if n == 1 else None)
    Governor(1, time.timing(jitter=0.5)).run([("a",)], model.send, probe=PROBE)
    assert time.slept == [0.75]


def test_a_wait_the_provider_names_is_kept_however_often_it_comes() -> None:
    time = Time()
    model = Model(lambda _texts, n: Throttled("ThrottlingException", retry_after=3) if n <= 5 else None)
    Governor(1, time.timing(jitter=0.5)).run([("a",)], model.send, probe=PROBE)
    assert time.slept == [3.5] * 5


def test_a_hundred_throttles_count_against_no_text() -> None:
    model = Model(lambda _texts, n: Throttled("ThrottlingException") if n <= 100 else None)
    governor = Governor(1, Time().timing())
    assert outcomes(governor.run([("a", "b")], model.send, probe=PROBE)) == {"a": 1, "b": 1}
    assert governor.counts() == EmbeddingCounts(requests=1, texts=2, tokens=2, throttles=100)
    assert set(model.requests) == {("a", "b")}


def test_one_bad_text_is_found_by_halving_and_spares_the_others() -> None:
    texts = tuple(f"text {n:02}" for n in range(96))
    model = Model(lambda sent, _n: Refused("ValidationException") if "text 37" in sent else None)
    results = outcomes(Governor(1, Time().timing()).run([texts], model.send, probe=PROBE))
    assert results.pop("text 37") == "MODEL_REFUSED_TEXT"
    assert results == {text: 7 for text in texts if text != "text 37"}
    assert len(model.requests) <= 2 * 7 + 2  # 2^7 > 96, and one probe


def test_text_without_a_vector_is_rejected_and_the_others_are_sent_once() -> None:
    requests: list[tuple[str, ...]] = []

    def send(texts: Sequence[str]) -> Reply:
        requests.append(tuple(texts))
        return Reply([checked([0.0 if "bad" in text else len(text)], 1) for text in texts])

    governor = Governor(1, Time().timing())
    results = outcomes(governor.run([("a", "bad", "bb", "bad too")], send, probe=PROBE))
    assert results == {"a": 1, "bad": "BAD_VECTOR", "bb": 2, "bad too": "BAD_VECTOR"}
    assert requests == [("a", "bad", "bb", "bad too"), PROBE]


@pytest.mark.parametrize("short", [True, False], ids=["too few", "unreadable"])
def test_an_answer_that_cannot_be_told_apart_is_asked_for_in_parts(short: bool) -> None:  # noqa: FBT001
    def send(texts: Sequence[str]) -> Reply:
        if "bad" in texts and not short:
            raise ModelAnswerError("no JSON")
        return Reply([np.array([len(text)], np.float32) for text in texts if text != "bad"])

    texts = (*(f"text {n:02}" for n in range(40)), "bad")
    results = outcomes(Governor(1, Time().timing()).run([texts], send, probe=PROBE))
    assert results.pop("bad") == "BAD_VECTOR"
    assert results == {text: 7 for text in texts if text != "bad"}


@pytest.mark.parametrize("vectors", [[], [checked([0.0], 1)], [checked([1.0, 2.0], 1)]], ids=["none", "zero", "long"])
def test_model_that_gives_a_plain_word_no_vector_is_a_configuration_error(vectors: list[Embedding]) -> None:
    with pytest.raises(ConfigurationError, match="plain word"):
        Governor(1, Time().timing()).run([("a",)], lambda _: Reply(vectors), probe=PROBE)


def test_a_throttled_probe_blames_nobody_and_sends_no_text_again() -> None:
    sent: list[Sequence[str]] = []

    def send(texts: Sequence[str]) -> Reply:
        sent.append(texts)
        if texts == PROBE and len(sent) < 4:
            raise Throttled("ThrottlingException")
        return Reply([checked([float(text != "bad")], 1) for text in texts])

    assert outcomes(Governor(1, Time().timing()).run([("bad",)], send, probe=PROBE)) == {"bad": "BAD_VECTOR"}
    assert sent == [("bad",), PROBE, PROBE, PROBE]


def test_text_that_is_too_long_is_told_from_one_that_is_refused() -> None:
    model = Model(lambda texts, _n: Refused("ValidationException", too_long=True) if "long" in texts else None)
    results = outcomes(Governor(1, Time().timing()).run([("a", "long")], model.send, probe=PROBE))
    assert results == {"a": 1, "long": "TEXT_TOO_LONG"}


def test_a_model_that_refuses_everything_is_a_configuration_error() -> None:
    model = Model(lambda _texts, _n: Refused("ValidationException"))
    with pytest.raises(ConfigurationError, match="refuses every text"):
        Governor(1, Time().timing()).run([("a", "b", "c")], model.send, probe=PROBE)


def test_an_outage_is_waited_out_whatever_its_length() -> None:
    time = Time()
    model = Model(lambda _texts, _n: Unanswered("EndpointConnectionError") if time.now < 3600 else None)
    assert outcomes(Governor(1, time.timing()).run([("a",), ("b",)], model.send, probe=PROBE)) == {"a": 1, "b": 1}


def test_a_text_that_makes_the_model_fail_is_told_from_an_outage() -> None:
    model = Model(lambda texts, _n: Unanswered("InternalServerException") if "bad" in texts else None)
    results = outcomes(Governor(1, Time().timing()).run([("a", "bad", "b")], model.send, probe=PROBE))
    assert results == {"a": 1, "bad": "MODEL_FAILS_ON_TEXT", "b": 1}
    assert model.requests.count(("a", "bad", "b")) == UNANSWERED_BEFORE_PROBE + SILENCES_BETWEEN_ANSWERS - 1


def test_outage_that_ends_between_a_request_and_the_probe_blames_no_text() -> None:
    def outage(_texts: Sequence[str], number: int) -> Exception | None:
        return Unanswered("EndpointConnectionError") if number <= UNANSWERED_BEFORE_PROBE else None

    model = Model(outage)
    assert outcomes(Governor(1, Time().timing()).run([("a",)], model.send, probe=PROBE)) == {"a": 1}
    assert model.requests[-2:] == [PROBE, ("a",)]


def test_anything_else_ends_the_call_at_once() -> None:
    model = Model(lambda _texts, _n: ConfigurationError("no access"))
    with pytest.raises(ConfigurationError, match="no access"):
        Governor(4, Time().timing()).run([(str(n),) for n in range(50)], model.send, probe=PROBE)
    assert len(model.requests) <= 4


def test_a_deadline_is_kept() -> None:
    time = Time()
    model = Model(lambda _texts, _n: Throttled("ThrottlingException"))
    with pytest.raises(EmbeddingUnavailableError):
        Governor(1, time.timing()).run([("a",)], model.send, probe=PROBE, seconds=10)
    assert time.now == pytest.approx(10)


def test_no_more_requests_than_allowed_are_in_flight() -> None:
    both = threading.Barrier(3, timeout=10)
    lock, busy, most = threading.Lock(), 0, 0

    def send(_texts: Sequence[str]) -> Reply:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        both.wait()
        with lock:
            busy -= 1
        return Reply([np.zeros(1, np.float32)])

    assert len(Governor(3).run([(str(n),) for n in range(12)], send, probe=PROBE)) == 12
    assert most == 3


def test_the_pace_halves_once_for_the_requests_of_one_round() -> None:
    pace = Pace.starting_at(8, first_wait=1, longest_wait=60)
    for _ in range(8):
        pace.slowed(sent_at=0, now=1, retry_after=None, jitter=0)
    assert (pace.limit, pace.streak, pace.not_before) == (4, 1, 1.5)
    pace.slowed(sent_at=2, now=3, retry_after=None, jitter=0)
    assert (pace.limit, pace.streak, pace.not_before) == (2, 2, 4)


def test_pace_recovers_by_one_request_a_round_and_stops_at_its_ceiling() -> None:
    pace = Pace.starting_at(4, first_wait=1, longest_wait=60)
    pace.slowed(sent_at=0, now=0, retry_after=None, jitter=0)
    for _ in range(2):
        pace.answered()
    assert 2.8 < pace.limit < 3
    for _ in range(100):
        pace.answered()
    assert (pace.limit, pace.streak) == (4, 0)
