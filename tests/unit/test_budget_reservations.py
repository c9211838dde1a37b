"""When a request may be sent, given what was granted before: a simulation by the clock of the decisions themselves."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from embeddings import EmbeddingConfig
from embeddings.budget.budget import Budget, open_budget
from embeddings.budget.config import BudgetConfig, TokenPrices
from embeddings.budget.ledger import FileLedger
from embeddings.budget.report import BudgetReport, reports
from embeddings.budget.reservations import DAY_SECONDS, HORIZON_SECONDS, Cost, Limits, State, reserve, settle, waiting
from embeddings.prices import Price, Usage
from embeddings.registry import registry_entry
from generation import TextModelConfig
from glue_jobs.config.problems import across_parts
from reranking import RerankingConfig
from schemas.errors import ConfigurationError, UnavailableError

DAY = 20_000 * DAY_SECONDS


def cost(tokens: int) -> Cost:
    return Cost(tokens, tokens * 0.001)


def sent(limits: Limits, sizes: Sequence[int], processes: int) -> list[tuple[float, int]]:
    """When each request is sent by processes that always have a next one; each waits for its own before it asks again."""
    state, ready = State(), [(float(DAY), process) for process in range(processes)]
    times: list[tuple[float, int]] = []
    waiting_sizes = list(sizes)
    while waiting_sizes:
        now, process = heapq.heappop(ready)
        state, grant = reserve(state, limits, now, Cost(waiting_sizes[0]))
        if grant.granted:
            times.append((now + grant.seconds, waiting_sizes.pop(0)))
        heapq.heappush(ready, (now + grant.seconds, process))
    return times


@given(st.integers(30, 6000), st.integers(1, 16))
def test_no_minute_has_more_requests_than_allowed_and_all_are_used(per_minute: int, processes: int) -> None:
    times = [at for at, _ in sent(Limits(requests_per_minute=per_minute), [1] * (2 * per_minute), processes)]
    for start in times[:: max(1, per_minute // 7)]:
        in_minute = sum(start <= at < start + 60 for at in times)
        assert in_minute <= per_minute * 1.0001 + 1
    assert times[-1] - times[0] <= 2 * 60 + 1e-3


@given(st.lists(st.integers(1, 400), min_size=200, max_size=300), st.integers(1, 8))
def test_tokens_are_kept_to_the_limit_whatever_requests_they_come_in(sizes: list[int], processes: int) -> None:
    times = sent(Limits(tokens_per_minute=6_000), sizes, processes)
    took = times[-1][0] - times[0][0]
    assert sum(sizes[:-1]) <= took * 100 + 400
    assert sum(sizes[:-1]) >= took * 100 * 0.95


def test_the_narrower_of_two_limits_decides_and_is_named() -> None:
    limits = Limits(requests_per_minute=600, tokens_per_minute=600)
    state, first = reserve(State(), limits, DAY, cost(10))
    assert (first.granted, first.seconds, first.limit) == (True, 0.0, "")
    _, second = reserve(state, limits, DAY, cost(10))
    assert (second.granted, second.limit) == (True, "tokens_per_minute")
    assert second.seconds == pytest.approx(1.0)


def test_a_question_does_not_wait_and_others_wait_longer_for_it() -> None:
    limits = Limits(requests_per_minute=60)
    state = State()
    for _ in range(10):
        state, grant = reserve(state, limits, DAY, cost(1), None)
        assert (grant.granted, grant.seconds) == (True, 0.0)
    state, grant = reserve(state, limits, DAY, cost(1))
    assert not grant.granted
    assert grant.seconds == pytest.approx(10 - HORIZON_SECONDS)


def test_unused_budget_is_made_up_for_by_a_second_at_most() -> None:
    limits = Limits(requests_per_minute=600)
    state, _ = reserve(State(), limits, DAY, cost(1))
    grants = []
    for _ in range(30):
        state, grant = reserve(state, limits, DAY + 3600, cost(1))
        grants.append(grant.seconds)
    assert sum(seconds == 0 for seconds in grants) == 11
    assert grants[-1] == pytest.approx(1.9, abs=1e-3)


def test_dollars_end_at_the_limit_and_begin_again_with_the_day() -> None:
    limits = Limits(dollars_per_day=1.0)
    state, _ = reserve(State(), limits, DAY, cost(900))
    state, over = reserve(state, limits, DAY + 3600, cost(200))
    assert (over.granted, over.seconds, over.limit) == (False, DAY_SECONDS - 3600, "dollars_per_day")
    assert reserve(state, limits, DAY + 3600, cost(100))[1].granted
    assert reserve(state, limits, DAY + 3600, cost(5000), None)[1].granted
    assert reserve(state, limits, DAY + DAY_SECONDS + 1, cost(900))[1].granted


def test_what_a_request_cost_in_the_end_is_corrected() -> None:
    limits = Limits(tokens_per_minute=60, dollars_per_day=1)
    state, _ = reserve(State(), limits, DAY, cost(10))
    assert waiting(state, limits, DAY, cost(1)).seconds == pytest.approx(10 - HORIZON_SECONDS)
    back = settle(state, limits, DAY, cost(-10))
    assert (back.dollars, waiting(back, limits, DAY, cost(1)).seconds) == (0, 0)
    assert settle(state, limits, DAY, cost(5)).dollars == pytest.approx(0.015)


def test_a_request_reserves_no_time_that_it_will_not_wait_for() -> None:
    limits = Limits(requests_per_minute=60)
    state, _ = reserve(State(), limits, DAY, cost(1))
    refused, grant = reserve(state, limits, DAY, cost(1), 0.5)
    assert (grant.granted, refused) == (False, state)
    assert grant.seconds == pytest.approx(0.5)
    assert reserve(state, limits, DAY + 0.6, cost(1), 0.5)[1].granted


# As a process uses it


class Away:
    """A ledger that does not answer a number of times."""

    def __init__(self, inside: FileLedger, times: int) -> None:
        self.inside, self.times = inside, times

    def change(self, decide):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201 - as Ledger
        if self.times:
            self.times -= 1
            raise UnavailableError("away")
        return self.inside.change(decide)

    def read(self) -> State:
        return self.inside.read()


def test_texts_wait_for_a_ledger_that_is_away_and_questions_do_not(tmp_path: Path) -> None:
    slept: list[float] = []
    budget = Budget(Limits(requests_per_minute=60), Away(FileLedger(tmp_path / "b"), 3), sleep=slept.append)
    budget.take(1, waits=False)
    assert slept == []
    budget.take(1, waits=True)
    assert slept == [1.0, 1.0]
    assert budget.wait.limit == ""


def test_a_file_of_something_else_is_told_of_and_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("a shopping list")
    budget = Budget(Limits(requests_per_minute=60), FileLedger(tmp_path / "b"))
    with pytest.raises(ConfigurationError, match=r"budget\.ledger"):
        budget.take(1, waits=True)
    assert (tmp_path / "b").read_text() == "a shopping list"
    with pytest.raises(ConfigurationError, match="cannot be written"):
        FileLedger(tmp_path / "b" / "c").change(lambda state: (state, None))


@pytest.mark.parametrize("section", ["embedding", "generation", "reranking"])
def test_a_ledger_that_cannot_be_used_is_named_by_its_section(tmp_path: Path, section: str) -> None:
    (tmp_path / "b").write_text("a shopping list")
    ledger = {"type": "file", "path": str(tmp_path / "b")}
    config = BudgetConfig.model_validate({"requests_per_minute": 60, "ledger": ledger})
    with pytest.raises(ConfigurationError, match=rf"^{section}\.budget\.ledger: "):
        open_budget(config, "some-model", section).state()


def test_what_is_granted_survives_the_process(tmp_path: Path) -> None:
    limits = Limits(dollars_per_day=1)
    Budget(limits, FileLedger(tmp_path / "folder" / "b"), Price(1000.0)).take(900, waits=True)
    assert Budget(limits, FileLedger(tmp_path / "folder" / "b")).state().dollars_today == pytest.approx(0.9)


LEDGER = {"type": "file", "path": "budget"}


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"requests_per_minute": 0},
        {"price_per_million_tokens": {"input": 1}},
        {"requests_per_minute": 1, "price_per_million_tokens": {"output": 1}},
        {"requests_per_minute": 1, "ledger": {"type": "redis"}},
    ],
)
def test_a_budget_that_limits_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BudgetConfig.model_validate({"ledger": LEDGER} | wrong)


def test_dollars_need_a_price() -> None:
    config = BudgetConfig.model_validate({"dollars_per_day": 1, "ledger": LEDGER})
    with pytest.raises(ConfigurationError, match=r"generation\.budget\.dollars_per_day: the price of a-model-of-ours"):
        open_budget(config, "a-model-of-ours", "generation")
    assert config.price("eu.amazon.nova-lite-v1:0") == Price(0.06, 0.24)
    assert config.price("us.cohere.embed-v4:0") == Price(0.12)
    own = config.model_copy(update={"price_per_million_tokens": TokenPrices(input=0.5, output=2)})
    assert own.price("a-model-of-ours") == own.price("amazon.nova-lite-v1:0") == Price(0.5, 2)
    queries = config.model_copy(update={"price_per_1000_requests": 1.0})
    assert queries.price("amazon.rerank-v1:0") == Price(requests=1.0)
    assert Price(0.5, 2, 1).of(Usage(1000, 100), requests=3) == pytest.approx(0.0005 + 0.0002 + 0.003)


def test_a_configuration_with_dollars_and_no_price_is_refused() -> None:
    document = {"budget": {"dollars_per_day": 1, "ledger": LEDGER}, "model": "a-model-of-ours"}
    sagemaker = {"type": "sagemaker", "endpoint": "e", "container": "tei", "dimensions": 3}
    for kind, section in (
        (EmbeddingConfig, sagemaker),
        (TextModelConfig, {"type": "bedrock"}),
        (RerankingConfig, {"type": "bedrock"}),
    ):
        with pytest.raises(ValidationError, match=r"set budget\.price_per_million_tokens"):
            TypeAdapter(kind).validate_python(document | section)


def test_a_report_says_what_a_request_waits_for_and_what_was_spent(tmp_path: Path) -> None:
    document = {"type": "bedrock", "model": "amazon.nova-lite-v1:0", "budget": {
        "requests_per_minute": 1, "price_per_million_tokens": {"input": 1}, "ledger": {"type": "file", "path": tmp_path / "b"},
    }}  # fmt: skip
    section: Any = TypeAdapter(TextModelConfig).validate_python(document)
    assert reports({"generation": section, "embedding": None}) == {"generation": BudgetReport()}
    open_budget(section.budget, section.model).take(1_000_000, waits=False)
    report = reports({"generation": section})["generation"]
    assert (report.waiting_for, report.dollars_today, report.error) == ("requests_per_minute", 1.0, None)
    assert 50 < report.seconds < 60
    (tmp_path / "b").write_text("a shopping list")
    report = reports({"generation": section})["generation"]
    assert (report.waiting_for, "something else" in str(report.error)) == ("ledger", True)


def test_budgets_on_one_ledger_have_the_same_limits() -> None:
    one = {"budget": {"dollars_per_day": 1, "ledger": LEDGER}}
    other = {"budget": {"dollars_per_day": 2, "ledger": LEDGER}}
    own = {"budget": {"dollars_per_day": 2, "ledger": {"type": "file", "path": "elsewhere"}}}
    assert [problem.path for problem in across_parts({"generation": one, "reranking": other})] == [
        ("reranking", "budget")
    ]
    assert list(across_parts({"generation": one, "reranking": one, "embedding": own})) == []
    assert list(across_parts({"generation": {"budget": "nonsense"}, "reranking": None})) == []


def test_a_store_does_not_remember_the_budget() -> None:
    adapter: TypeAdapter[EmbeddingConfig] = TypeAdapter(EmbeddingConfig)
    document = {"type": "bedrock", "model": "amazon.titan-embed-text-v2:0", "dimensions": 512}
    config = adapter.validate_python(document | {"budget": {"requests_per_minute": 1, "ledger": LEDGER}})
    assert registry_entry(config) == document
