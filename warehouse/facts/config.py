"""The configuration of facts; it needs no client and parses no SQL."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, model_validator

from schemas.model import StrictModel
from warehouse.facts.values import ParameterType, as_text, in_order

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]

_ORDERED = frozenset({"integer", "decimal", "date", "timestamp"})
"""Types whose values can have bounds."""


class FactParameter(StrictModel):
    """Where the value of a parameter comes from: a column of a cited row, a claim of the caller, or the text model."""

    table: str | None = None
    """A source table: the value is of the best cited row of that table."""
    column: str | None = None
    """A key column or a metadata column of that row."""
    claim: str | None = None
    """A claim of the caller; without it the fact is not read."""
    model: str | None = Field(default=None, min_length=1, max_length=1000)
    """What the value is, in words for the text model, which takes it from the question by a tool call. Never who asks or what
    they may see: that is `claim`."""
    type: ParameterType = "text"
    """The value is compared as this type; one that the model gives otherwise is refused."""
    choices: tuple[str | int, ...] = ()
    """The values that the model may give, of type `text` or `integer`."""
    minimum: int | float | str | None = None
    """The least value that the model may give; dates and times as ISO 8601 in quotes."""
    maximum: int | float | str | None = None
    """The greatest one."""
    max_length: int = Field(default=200, ge=1, le=10_000)
    """Characters of a text that the model may give."""

    @model_validator(mode="after")
    def _one_origin(self) -> FactParameter:
        from_row = self.table is not None and self.column is not None
        if (self.table is None) != (self.column is None) or (
            from_row + (self.claim is not None) + (self.model is not None) != 1
        ):
            raise ValueError("give `table` and `column` of a cited row, or `claim`, or `model`")
        limits = self.model_fields_set & {"choices", "minimum", "maximum", "max_length"}
        if limits and self.model is None:
            raise ValueError(f"`{min(limits)}` limits what a text model gives: it goes with `model`")
        bounds = [bound for bound in (self.minimum, self.maximum) if bound is not None]
        if (bounds and self.type not in _ORDERED) or (self.choices and self.type not in {"text", "integer"}):
            raise ValueError(f"a value of type `{self.type}` has no such limits")
        if any(as_text(value, self.type) is None for value in (*bounds, *self.choices)):
            raise ValueError(f"a bound or a choice is no value of type `{self.type}`")
        return self

    def accepts(self, text: str) -> bool:
        """Whether a value, as text of the parameter's type, is within the limits of what a model may give."""
        if self.type == "text" and len(text) > self.max_length:
            return False
        if self.choices and text not in {str(choice) for choice in self.choices}:
            return False
        value = in_order(text, self.type)
        least, greatest = (
            None if bound is None else in_order(str(as_text(bound, self.type)), self.type)
            for bound in (self.minimum, self.maximum)
        )
        return (least is None or value >= least) and (greatest is None or value <= greatest)


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

    @property
    def asked(self) -> dict[str, FactParameter]:
        """The parameters whose values a text model gives; a fact with any is read by its tool call alone."""
        return {name: parameter for name, parameter in self.parameters.items() if parameter.model is not None}


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
