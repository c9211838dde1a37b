"""What every reranking model's client must do, over the endpoint's wire format."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from local_stack.models.rerank import maxsim
from reranking import Reranker, RerankingConfig, open_reranker
from reranking.errors import RerankingBudgetError, RerankingRejectedError, RerankingUnavailableError
from retrieval.ranking.fusion import Ranked
from retrieval.ranking.rerank import reranked
from schemas.errors import ConfigurationError
from sinks.search import Hit
from tests.endpoint import Endpoint

KINDS: dict[str, dict[str, Any]] = {
    "bedrock": {"type": "bedrock", "model": "cohere.rerank-v3-5:0"},
    "sagemaker": {"type": "sagemaker", "endpoint": "rerank-1", "model": "bge-reranker-base"},
}
TEXTS = ["an apple pie", "the red kite flies", "a kite", "nothing at all"]


def opened(config: dict[str, Any], endpoint: Endpoint, **changes: Any) -> Reranker:
    adapter: TypeAdapter[RerankingConfig] = TypeAdapter(RerankingConfig)
    return open_reranker(
        adapter.validate_python({"endpoint_url": endpoint.url, "timeout_seconds": 5} | config | changes)
    )


@pytest.fixture(params=[*KINDS])
def reranker(request: pytest.FixtureRequest, endpoint: Endpoint) -> Reranker:
    return opened(KINDS[request.param], endpoint)


@pytest.fixture(params=[*KINDS])
def remote(request: pytest.FixtureRequest, endpoint: Endpoint) -> Reranker:
    return opened(KINDS[request.param], endpoint)


def test_each_text_has_a_score_in_order(reranker: Reranker) -> None:
    scores = reranker.rerank("red kite", TEXTS)
    assert len(scores) == 4
    assert max(scores) == scores[1]
    assert scores[1] > scores[2] > max(scores[0], scores[3])


def test_a_score_depends_on_no_other_text(reranker: Reranker) -> None:
    together = reranker.rerank("red kite", TEXTS)
    assert [reranker.rerank("red kite", [text])[0] for text in TEXTS] == pytest.approx(together, abs=1e-5)
    assert reranker.rerank("red kite", TEXTS[::-1]) == pytest.approx(together[::-1], abs=1e-5)


def test_no_text_costs_nothing(reranker: Reranker, endpoint: Endpoint) -> None:
    assert reranker.rerank("red kite", []) == []
    assert endpoint.counters()["reranked"] == 0


def test_more_texts_than_a_request_takes_are_all_scored(remote: Reranker, endpoint: Endpoint) -> None:
    texts = [f"text {number}" for number in range(1100)]
    scores = remote.rerank("text 1042", texts)
    assert len(scores) == 1100
    assert scores.index(max(scores)) == 1042
    assert endpoint.counters()["reranked"] == 1100


def test_awkward_blank_and_long_texts_have_scores(reranker: Reranker) -> None:
    texts = ["", " \n", "naïve 日本語 🦆", 'quotes " and \\', "kite " * 9000]
    assert len(reranker.rerank("kite", texts)) == 5
    assert len(reranker.rerank("", ["kite"])) == 1
    assert len(reranker.rerank("kite " * 9000, ["kite"])) == 1


@pytest.mark.parametrize(
    "faults",
    [{"throttle": 1}, {"throttle": 1, "retry_after": 0.05}, {"unavailable": 1}, {"error": 1}, {"drop": 1}],
    ids=" ".join,
)
def test_faults_are_tried_again(remote: Reranker, endpoint: Endpoint, faults: dict[str, Any]) -> None:
    endpoint.faults(**faults)
    assert len(remote.rerank("red kite", TEXTS)) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_gives_no_scores_is_given_up_in_time(kind: str, endpoint: Endpoint) -> None:
    endpoint.faults(throttle=1.0)
    with pytest.raises(RerankingUnavailableError):
        opened(KINDS[kind], endpoint, timeout_seconds=0.3).rerank("red kite", TEXTS)


def test_what_the_model_refuses_is_rejected_and_not_quoted(remote: Reranker, endpoint: Endpoint) -> None:
    endpoint.faults(refuse_text="apple")
    with pytest.raises(RerankingRejectedError) as refused:
        remote.rerank("red kite", TEXTS)
    assert "apple" not in str(refused.value)


def test_no_right_to_the_model_is_a_configuration_error(remote: Reranker, endpoint: Endpoint) -> None:
    endpoint.faults(deny=1.0)
    for ask in (remote.check, lambda: remote.rerank("red kite", TEXTS)):
        with pytest.raises(ConfigurationError):
            ask()


@pytest.mark.parametrize("kind", KINDS)
def test_check_says_where_nobody_answers(kind: str, endpoint: Endpoint) -> None:
    away = opened(KINDS[kind], endpoint, endpoint_url="http://127.0.0.1:9", timeout_seconds=0.2)
    with pytest.raises(ConfigurationError, match=r"http://127\.0\.0\.1:9"):
        away.check()


def test_check_passes_and_a_copy_scores_alike(reranker: Reranker) -> None:
    reranker.check()
    copy: Reranker = pickle.loads(pickle.dumps(reranker))  # noqa: S301 - made on this line
    assert (copy.model, copy.candidates) == (reranker.model, reranker.candidates)
    assert copy.rerank("red kite", TEXTS) == reranker.rerank("red kite", TEXTS)


def test_results_of_several_pages_are_all_read(endpoint: Endpoint) -> None:
    endpoint.faults(rerank_page=3)
    assert len(opened(KINDS["bedrock"], endpoint).rerank("red kite", [*TEXTS, *TEXTS])) == 8


def test_a_models_id_becomes_the_arn_of_its_region() -> None:
    adapter: TypeAdapter[RerankingConfig] = TypeAdapter(RerankingConfig)
    arns = {
        region: getattr(adapter.validate_python(KINDS["bedrock"] | {"region": region}), "model_arn", None)
        for region in ("eu-central-1", "us-gov-west-1")
    }
    assert arns == {
        "eu-central-1": "arn:aws:bedrock:eu-central-1::foundation-model/cohere.rerank-v3-5:0",
        "us-gov-west-1": "arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/cohere.rerank-v3-5:0",
    }


# Hits of a search


def hits(*texts: str) -> list[Ranked]:
    return [
        Ranked(Hit(text, "public.t", {"id": text}, text, 0, text, {}, 0.5, 0.5), 0.9 - place / 100)
        for place, text in enumerate(texts)
    ]


def test_hits_are_put_in_the_order_of_the_scores(remote: Reranker) -> None:
    ordered = reranked(remote, "red kite", hits(*TEXTS), 2).hits
    assert [ranked.hit.chunk_text for ranked in ordered] == ["the red kite flies", "a kite"]
    assert ordered[0].score > ordered[1].score
    assert reranked(None, "red kite", hits(*TEXTS), 2) == (hits(*TEXTS)[:2], "")


def test_only_the_candidates_are_scored(endpoint: Endpoint) -> None:
    few = opened(KINDS["bedrock"], endpoint, candidates=3)
    assert len(reranked(few, "kite", hits(*(f"text {n}" for n in range(50))), 2).hits) == 2
    assert endpoint.counters()["reranked"] == 3


def test_a_search_goes_on_without_a_reranker_that_is_away(endpoint: Endpoint) -> None:
    endpoint.faults(error=1.0)
    away = opened(KINDS["bedrock"], endpoint, timeout_seconds=0.2)
    assert reranked(away, "red kite", hits(*TEXTS), 4) == (hits(*TEXTS), "RERANKING_MODEL_UNAVAILABLE")


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_out_of_budget_keeps_its_order_and_says_so(kind: str, endpoint: Endpoint, tmp_path: Path) -> None:
    ledger = {"type": "file", "path": str(tmp_path / "budget")}
    budget = {"requests_per_minute": 2, "wait": "50ms", "ledger": ledger}
    limited = opened(KINDS[kind], endpoint, budget=budget)
    assert reranked(limited, "red kite", hits(*TEXTS), 4).hits[0].hit.chunk_text == "the red kite flies"
    assert reranked(limited, "red kite", hits(*TEXTS), 4) == (hits(*TEXTS), "BUDGET_USED_UP")
    with pytest.raises(RerankingBudgetError, match=r"reranking\.budget is used up: requests_per_minute"):
        limited.rerank("red kite", TEXTS)
    limited.check()
    assert endpoint.counters()["reranked"] == 4


def test_a_query_is_paid_for_and_one_that_failed_is_not(endpoint: Endpoint, tmp_path: Path) -> None:
    budget = {"dollars_per_day": 0.006, "ledger": {"type": "file", "path": str(tmp_path / "budget")}}
    limited = opened(KINDS["bedrock"], endpoint, budget=budget)
    endpoint.faults(throttle=2)
    assert len(limited.rerank("red kite", [f"text {number}" for number in range(101)])) == 101  # two queries
    limited.rerank("red kite", TEXTS)
    with pytest.raises(RerankingBudgetError, match="dollars_per_day"):
        limited.rerank("red kite", TEXTS)


def test_maxsim_is_the_mean_of_the_best_cosines() -> None:
    query = np.array([[1, 0], [0, 1]], np.float32)
    assert maxsim(query, np.array([[1, 0], [0.6, 0.8]], np.float32)) == pytest.approx(0.9)
    assert maxsim(query, np.array([[-1, 0], [0, -1]], np.float32)) == 0
