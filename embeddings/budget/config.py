"""The configuration of a budget; it needs no client."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from embeddings.prices import Price, price_of
from schemas.aws import AwsAccess
from schemas.durations import Duration
from schemas.model import StrictModel


class FileLedgerConfig(StrictModel):
    """The budget's state in a file of this machine, guarded by a lock of the kernel."""

    type: Literal["file"]
    path: Annotated[Path, AfterValidator(lambda path: path.expanduser().resolve())]
    """The file; whatever names it shares the budget."""


class DynamoDBLedgerConfig(AwsAccess):
    """The budget's state in an item of a DynamoDB table, for processes on several machines."""

    type: Literal["dynamodb"]
    region: str = "us-east-1"
    table: str = Field(min_length=3, max_length=255, pattern=r"^[a-zA-Z0-9_.-]+$")
    """A table with the partition key `name`, a string."""
    name: str = Field(min_length=1)
    """The item's key; whatever names it shares the budget."""


type LedgerConfig = Annotated[FileLedgerConfig | DynamoDBLedgerConfig, Field(discriminator="type")]
"""Where a budget's state lives."""


class TokenPrices(StrictModel):
    """Dollars of a million tokens."""

    input: float = Field(ge=0)
    """Of what is sent."""
    output: float = Field(default=0.0, ge=0)
    """Of what is answered."""


class BudgetConfig(StrictModel):
    """What all processes together may ask of a model. At the limit new texts wait; questions are counted and do not wait."""

    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """As the provider counts them, estimated at four bytes a token until it has."""
    dollars_per_day: float | None = Field(default=None, gt=0)
    """Of a day in UTC, by the model's price."""
    price_per_million_tokens: TokenPrices | None = None
    """The price of tokens, in place of the on-demand price in us-east-1; a model whose price is not known needs it for
    `dollars_per_day`."""
    price_per_1000_requests: float | None = Field(default=None, ge=0)
    """The price of requests, for a model that is paid by them, as rerankers are: up to 100 texts count as one."""
    ledger: LedgerConfig
    """Where the budget's state lives."""

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if not (self.requests_per_minute or self.tokens_per_minute or self.dollars_per_day):
            raise ValueError("name requests_per_minute, tokens_per_minute or dollars_per_day")
        return self

    def price(self, model: str) -> Price | None:
        """The price of a model: the configured one, or the one that is known; None where there is neither."""
        tokens, requests = self.price_per_million_tokens, self.price_per_1000_requests
        if tokens is None and requests is None:
            return price_of(model)
        return Price(tokens.input if tokens else 0.0, tokens.output if tokens else 0.0, requests or 0.0)

    def fault(self, model: str) -> str | None:
        """What is wrong with the budget for a model."""
        if self.dollars_per_day is None or self.price(model) is not None:
            return None
        return (
            f"budget.dollars_per_day: the price of {model} is not known; set budget.price_per_million_tokens: {{input, output}} "
            "(a reranker: budget.price_per_1000_requests), or leave dollars_per_day out"
        )


class AnswerBudgetConfig(BudgetConfig):
    """What all processes together may ask of a text model or reranker. A request waits for its turn for a bounded time."""

    wait: Duration = 5.0
    """How long a request waits for its turn, before it is refused as `BUDGET_USED_UP`."""


class RerankingBudgetConfig(AnswerBudgetConfig):
    """What all processes together may ask of a reranker. A search that is out of turn keeps the order it had."""

    wait: Duration = 0.5


class BudgetedAnswers(StrictModel):
    """A text model or reranker with a budget."""

    model: str
    budget: AnswerBudgetConfig | None = None
    """What all processes of the pipelines that share its ledger may ask of the model."""

    @model_validator(mode="after")
    def _is_priced(self) -> Self:
        refuse_unpriced(self.budget, self.model)
        return self


def refuse_unpriced(budget: BudgetConfig | None, model: str) -> None:
    """Raise ValueError where dollars are limited and the model's price is not known."""
    if budget is not None and (fault := budget.fault(model)):
        raise ValueError(fault)
