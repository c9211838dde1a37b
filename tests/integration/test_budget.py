"""A budget that processes share: in a storm of throttles, by a file, and by an item of DynamoDB."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from benchmarks.budget import ask, embed, storm
from embeddings.budget.budget import Budget
from embeddings.budget.config import DynamoDBLedgerConfig
from embeddings.budget.ledger import DynamoDBLedger, FileLedger, Ledger
from embeddings.budget.reservations import BURST_SECONDS, Limits
from embeddings.prices import Price
from local_stack.models.service import ModelService
from local_stack.servers.aws import Ministack
from schemas.errors import ConfigurationError, UnavailableError

SECONDS = 6.0
MOST_KEPT = 1 + BURST_SECONDS / SECONDS
"""What was not used in the last second may be made up for. Tries that nobody counted would make it 1.25."""
FREE = Limits(requests_per_minute=1e9, tokens_per_minute=1e9, dollars_per_day=1e9)
PRICE = Price(1000.0)


def test_four_processes_in_a_storm_of_throttles_keep_and_use_the_budget(
    instant_model: ModelService, tmp_path: Path
) -> None:
    figures = storm(
        instant_model.endpoint["endpoint_url"], tmp_path / "budget", SECONDS, embed, requests_per_minute=900
    )
    assert (figures["used"] >= 0.8, figures["kept"] <= MOST_KEPT) == (True, True), figures
    assert figures["throttled"] > 0
    assert figures["lost"] == 0


def test_four_processes_that_ask_for_answers_keep_and_use_the_budget(
    instant_model: ModelService, tmp_path: Path
) -> None:
    figures = storm(instant_model.endpoint["endpoint_url"], tmp_path / "budget", SECONDS, ask, requests_per_minute=900)
    assert (figures["used"] >= 0.8, figures["kept"] <= MOST_KEPT) == (True, True), figures
    assert figures["throttled"] > 0
    assert figures["lost"] == 0


@pytest.fixture(params=["file", "dynamodb"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    if request.param == "file":
        return FileLedger(tmp_path / "budget")
    return DynamoDBLedger(item(request.getfixturevalue("aws")))


def item(aws: Ministack) -> DynamoDBLedgerConfig:
    """A new table, and the name of an item in it."""
    table = f"budgets-{uuid.uuid4().hex[:8]}"
    client = boto3.client(
        "dynamodb", region_name=aws.endpoint["region"], endpoint_url=aws.endpoint["endpoint_url"],
        aws_access_key_id="a", aws_secret_access_key="b",
    )  # fmt: skip
    client.create_table(
        TableName=table, BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "name", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "name", "AttributeType": "S"}],
    )  # fmt: skip
    return DynamoDBLedgerConfig(
        type="dynamodb",
        table=table,
        name="titan",
        region=aws.endpoint["region"],
        endpoint_url=aws.endpoint["endpoint_url"],
    )


def test_what_many_take_at_once_is_counted_once_each(ledger: Ledger) -> None:
    budget = Budget(FREE, ledger, PRICE)

    def take(_: int) -> None:
        budget.take(10, waits=True)
        budget.settle(-4)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, range(40)))
    assert budget.state().dollars_today == pytest.approx(40 * 6 * 0.001)


def test_two_names_are_two_budgets(aws: Ministack) -> None:
    config = item(aws)
    one, other = (Budget(FREE, DynamoDBLedger(config.model_copy(update={"name": name})), PRICE) for name in ("a", "b"))
    one.take(1000, waits=True)
    assert one.state().dollars_today == pytest.approx(1.0)
    assert other.state().dollars_today == 0


def test_a_missing_table_is_misconfigured_and_a_silent_one_is_away(aws: Ministack) -> None:
    config = item(aws)
    with pytest.raises(ConfigurationError, match="ResourceNotFound"):
        DynamoDBLedger(config.model_copy(update={"table": "none-such"})).read()
    with pytest.raises(UnavailableError, match="does not answer"):
        DynamoDBLedger(config.model_copy(update={"endpoint_url": "http://127.0.0.1:9"})).read()
