"""What a process has asked of its models is counted once for each request, whatever became of it."""

from __future__ import annotations

import pytest

from embeddings.outcomes import Unanswered
from embeddings.prices import Usage
from embeddings.usage import Asked, Outcome, Tally
from service.http.metrics import Models

MODEL = Asked("model-1", "generation")
ESTIMATE = Usage(100, 50)


def _ask(tally: Tally, ends: BaseException, *, sent: bool) -> None:
    with tally.request(MODEL, ESTIMATE) as receipt:
        receipt.used, receipt.sent = Usage(100, 3), sent
        raise ends


def test_an_answer_counts_what_the_provider_counted() -> None:
    tally = Tally()
    with tally.request(MODEL, ESTIMATE) as receipt:
        receipt.used = Usage(90, 7)
    with tally.request(MODEL, ESTIMATE):
        pass  # the provider does not say
    assert tally.requests == {(MODEL, Outcome.ANSWERED): 2}
    assert (tally.input[MODEL], tally.output[MODEL]) == (190, 57)


@pytest.mark.parametrize(("sent", "used"), [(False, (0, 0)), (True, (100, 3))])
def test_a_failure_counts_what_was_sent_of_the_answer(sent: bool, used: tuple[int, int]) -> None:  # noqa: FBT001
    tally = Tally()
    with pytest.raises(Unanswered):
        _ask(tally, Unanswered("away"), sent=sent)
    assert tally.requests == {(MODEL, Outcome.FAILED): 1}
    assert (tally.input[MODEL], tally.output[MODEL]) == used


def test_a_reader_who_leaves_has_an_answer_as_far_as_it_came() -> None:
    tally = Tally()
    with pytest.raises(GeneratorExit):
        _ask(tally, GeneratorExit(), sent=True)
    assert (tally.requests, tally.output[MODEL]) == ({(MODEL, Outcome.ANSWERED): 1}, 3)


def test_prometheus_reads_it_by_model_and_purpose() -> None:
    tally = Tally()
    with tally.request(MODEL, ESTIMATE):
        pass
    requests, tokens = Models(tally).collect()
    labels = {"model": "model-1", "purpose": "generation"}
    assert [(sample.labels, sample.value) for sample in requests.samples] == [({**labels, "outcome": "answered"}, 1)]
    assert {sample.labels["direction"]: sample.value for sample in tokens.samples} == {"input": 100, "output": 50}
    assert {sample.name for metric in (requests, tokens) for sample in metric.samples} == {
        "ragstream_model_requests_total", "ragstream_model_tokens_total",
    }  # fmt: skip
