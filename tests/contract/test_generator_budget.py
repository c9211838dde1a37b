"""A budget before a text model: what is refused, what waits, and what an answer costs, over the endpoint's wire format."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from embeddings.budget.ledger import FileLedger
from embeddings.budget.reservations import State
from generation import Generator, Message
from generation.errors import GenerationBudgetError
from tests.contract.test_generator_contract import BOTH, KINDS, LONG, QUESTION, Ask, opened
from tests.endpoint import Endpoint


def limited(endpoint: Endpoint, folder: Path, kind: str = "bedrock", **budget: Any) -> Generator:
    ledger = {"type": "file", "path": str(folder / "budget")}
    return opened(KINDS[kind], endpoint, budget={"wait": "50ms", "ledger": ledger} | budget, max_tokens=100)


def spent(folder: Path) -> State:
    return FileLedger(folder / "budget").read()


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_out_of_budget_is_refused_with_its_limit(
    kind: str, endpoint: Endpoint, ask: Ask, tmp_path: Path
) -> None:
    generator = limited(endpoint, tmp_path, kind, requests_per_minute=2)
    assert ask(generator, QUESTION).output_tokens == 5
    with pytest.raises(GenerationBudgetError, match=r"generation\.budget is used up: requests_per_minute") as refused:
        ask(generator, QUESTION)
    assert (refused.value.condition, "five" in str(refused.value)) == ("BUDGET_USED_UP", False)
    generator.check()
    assert endpoint.counters()["generations"] == 1


@BOTH
def test_an_answer_waits_for_its_turn_as_long_as_it_may(endpoint: Endpoint, ask: Ask, tmp_path: Path) -> None:
    generator = limited(endpoint, tmp_path, requests_per_minute=150, wait="5s")
    began = time.monotonic()
    for _ in range(5):
        ask(generator, QUESTION)
    assert time.monotonic() - began >= 3 * 60 / 150 * 0.9  # a second is made up for: the first ones go at once
    assert endpoint.counters()["generations"] == 5


@BOTH
def test_the_price_of_an_answer_is_what_was_counted(endpoint: Endpoint, ask: Ask, tmp_path: Path) -> None:
    prices = {"input": 1_000_000, "output": 2_000_000}  # a dollar a token
    generator = limited(endpoint, tmp_path, dollars_per_day=400, price_per_million_tokens=prices)
    answer = ask(generator, QUESTION)
    assert spent(tmp_path).dollars == pytest.approx(answer.input_tokens + 2 * answer.output_tokens)
    endpoint.faults(throttle=2, error=1)
    before = spent(tmp_path).dollars
    ask(generator, QUESTION)
    assert spent(tmp_path).dollars == pytest.approx(2 * before)
    ask(generator, [Message("user", "word " * 120)])  # 100 words of answer: what is left is less than another may cost
    with pytest.raises(GenerationBudgetError, match="dollars_per_day"):
        ask(generator, QUESTION)


def test_a_reader_who_stops_pays_for_what_came(endpoint: Endpoint, tmp_path: Path) -> None:
    prices = {"input": 0, "output": 1_000_000}
    generator = limited(endpoint, tmp_path, dollars_per_day=1000, price_per_million_tokens=prices)
    with generator.stream(LONG) as stream:
        pieces = iter(stream)
        assert next(pieces).strip() == "word"
        assert spent(tmp_path).dollars == pytest.approx(100)
    assert 1 <= spent(tmp_path).dollars < 100


def test_a_ledger_that_is_away_refuses_the_answer(endpoint: Endpoint, tmp_path: Path) -> None:
    ledger = {"type": "dynamodb", "table": "none", "name": "x", "endpoint_url": "http://127.0.0.1:9"}
    generator = limited(endpoint, tmp_path, requests_per_minute=9, ledger=ledger)
    with pytest.raises(GenerationBudgetError, match=r"the ledger of generation\.budget does not answer") as refused:
        generator.converse(QUESTION)
    assert (refused.value.condition, endpoint.counters()["generations"]) == ("BUDGET_AWAY", 0)


def test_dollars_without_a_price_name_the_key_to_set(endpoint: Endpoint, tmp_path: Path) -> None:
    for kind in ("tgi", "lmi inputs"):
        with pytest.raises(ValidationError, match=r"set budget\.price_per_million_tokens"):
            limited(endpoint, tmp_path, kind, dollars_per_day=1)
    limited(endpoint, tmp_path, "bedrock", dollars_per_day=1).check()  # Nova's price is known
