"""The configuration of facts; it needs no client and parses no SQL."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from schemas.model import StrictModel

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]

type ParameterType = Literal["text", "integer", "decimal", "boolean", "date", "timestamp"]


class FactParameter(StrictModel):
    """Where the value of a parameter comes from: a column of a cited row, or a claim of the caller."""

    table: str | None = None
    """A source table: the value is of the best cited row of that table."""
    column: str | None = None
    """A key column or a metadata column of that row."""
    claim: str | None = None
    """A claim of the caller; without it the fact is not read."""
    type: ParameterType = "text"
    """The value is compared as this type."""

    @model_validator(mode="after")
    def _one_origin(self) -> FactParameter:
        from_row = self.table is not None and self.column is not None
        if from_row == (self.claim is not None) or (self.table is None) != (self.column is None):
            raise ValueError("give `table` and `column` of a cited row, or `claim`")
        return self


class FactConfig(StrictModel):
    """A SELECT that answers can cite."""

    name: Name
    description: str = Field(min_length=1)
    """What the fact says, in the words of a question: it is compared with the question."""
    sql: str = Field(min_length=1)
    """One SELECT over the warehouse's views, with `:name` for each parameter."""
    parameters: dict[Name, FactParameter] = Field(default_factory=dict)
    """By name, where the value comes from."""
    max_rows: int = Field(default=10, ge=1, le=100)
    """Rows of the result at most; the answer says when there are more."""
    timeout_seconds: float = Field(default=5.0, gt=0, le=60)
    """How long the warehouse may take; an answer is given without a fact that takes longer."""
    public: bool = False
    """Read from all rows whoever asks, where the pipeline has rules of access; others are read from the rows of the caller."""


class FactsConfig(StrictModel):
    """The facts of a pipeline, and the login that reads them, which may read the views and write nothing."""

    user: str | None = None
    """A database user with SELECT alone; with `password`, where the warehouse is reached by `host`."""
    password: SecretStr | None = None
    secret_arn: str | None = None
    """The secret with such a user, where the warehouse is reached by the Data API."""
    queries: tuple[FactConfig, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _plain(self) -> FactsConfig:
        names = [fact.name for fact in self.queries]
        if len(set(names)) < len(names):
            raise ValueError("two facts have the same `name`")
        login = self.user is not None and self.password is not None
        if login == (self.secret_arn is not None) or (self.user is None) != (self.password is None):
            raise ValueError("give `user` and `password`, or `secret_arn`, of a login that can only read")
        return self
