"""The configuration of a budget; it needs no client."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from embeddings.connection import AwsAccess
from schemas.model import StrictModel


class FileLedgerConfig(StrictModel):
    """The budget's state in a file of this machine, guarded by a lock of the kernel."""

    type: Literal["file"]
    path: Annotated[Path, AfterValidator(lambda path: path.expanduser().resolve())]
    """The file; whatever names it shares the budget."""


class DynamoDBLedgerConfig(AwsAccess):
    """The budget's state in an item of a DynamoDB table, for processes on several machines."""

    type: Literal["dynamodb"]
    table: str = Field(min_length=3, max_length=255, pattern=r"^[a-zA-Z0-9_.-]+$")
    """A table with the partition key `name`, a string."""
    name: str = Field(min_length=1)
    """The item's key; whatever names it shares the budget."""


type LedgerConfig = Annotated[FileLedgerConfig | DynamoDBLedgerConfig, Field(discriminator="type")]
"""Where a budget's state lives."""


class BudgetConfig(StrictModel):
    """What all processes together may ask of a model. At the limit new texts wait; questions are counted and do not wait."""

    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """As the provider counts them, estimated at four bytes a token until it has."""
    dollars_per_day: float | None = Field(default=None, gt=0)
    """Of a day in UTC, by the price of the model's tokens."""
    dollars_per_1000_tokens: float | None = Field(default=None, gt=0)
    """The price, in place of the on-demand price in us-east-1."""
    ledger: LedgerConfig
    """Where the budget's state lives."""

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if not (self.requests_per_minute or self.tokens_per_minute or self.dollars_per_day):
            raise ValueError("name requests_per_minute, tokens_per_minute or dollars_per_day")
        return self
