"""The bodies of requests and answers, as they are validated and as OpenAPI describes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.model import StrictModel

_MOST_FAULTS = 5
_MOST_WATCHED = 500
_LONGEST_ID = 4096
_PRINTABLE = r"^[^\x00-\x1f\x7f]*$"


class AskRequest(StrictModel):
    """A question."""

    question: str = Field(min_length=1)
    session: str | None = None
    """The conversation to continue, or to begin; without one the question is answered on its own."""
    turn_id: str | None = None
    """Your own name of the turn in its session: repeated, it gives the same answer."""
    tables: tuple[str, ...] = ()
    """Search the documents of these tables alone."""
    filters: tuple[str, ...] = ()
    """Search documents for which all of these hold: `status = open`, `price >= 10`."""


class SearchRequest(StrictModel):
    """A search."""

    query: str = Field(min_length=1)
    k: int = Field(default=10, ge=1, le=200, strict=True)
    """Most results."""
    tables: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()


class Watched(StrictModel):
    """A cited document, as an answer names it."""

    document_id: str = Field(min_length=1, max_length=_LONGEST_ID, pattern=_PRINTABLE)
    version: str = Field(max_length=_LONGEST_ID)


class WatchRequest(StrictModel):
    """The cited documents to watch."""

    citations: tuple[Watched, ...] = Field(default=(), max_length=_MOST_WATCHED)
    """None: freshness alone."""


class ProfileRequest(StrictModel):
    """A profile in place of the one that is kept."""

    values: dict[str, str | int | float | bool]
    version: int = Field(ge=0, strict=True)
    """The version that the values were made from; 0 for none."""


class FeedbackRequest(StrictModel):
    """What a user thinks of an answer."""

    session: str
    turn: int = Field(ge=1, strict=True)
    rating: Literal["up", "down"]
    comment: str = ""


class _Answer(BaseModel):
    """The base of answers: described here, made by the library."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Fault(_Answer):
    """What is wrong."""

    condition: str
    """What is wrong, as a stable name."""
    message: str
    hint: str
    """How to mend it."""


class Error(_Answer):
    """An answer that is none."""

    error: Fault


class Freshness(_Answer):
    """How far the index has come."""

    searchable_as_of: str | None
    """Every commit up to this time is searchable; null while unknown."""
    lag_seconds: float | None


class Citation(_Answer):
    """A cited row."""

    table: str
    key: dict[str, Any]
    document_id: str
    chunk_index: int
    version: str
    """Opaque; another one once the row has changed."""


class CitationEvent(Citation):
    """Event `citation`."""

    number: int
    """From 1."""


class Sentence(_Answer):
    """A sentence of an answer, and event `sentence`: sent once its support was checked and its rows looked up again."""

    text: str
    citations: list[int]
    """Numbers of citations, from 1."""
    facts: list[int] = []
    """Numbers of facts, from 1; left out of answers that an earlier release kept."""
    unsupported: list[str]
    """Numbers and names that no cited row holds, where the pipeline marks them."""


class Fact(_Answer):
    """The result of a SELECT over the warehouse."""

    fact: str
    """Its name in the configuration."""
    columns: list[str]
    rows: list[list[Any]]
    truncated: bool
    """Whether there are more rows."""
    loaded_at: str | None
    """When the warehouse was last loaded."""
    parameters: dict[str, Any]
    """The values that a text model gave."""


class FactEvent(Fact):
    """Event `fact`."""

    number: int
    """From 1."""


class Answer(_Answer):
    """An answer, and the last event `answer`."""

    answer: str
    abstained: bool
    answerer: str
    sentences: list[Sentence]
    citations: list[Citation]
    facts: list[Fact]
    freshness: Freshness
    session: str | None = None
    turn: int | None = None
    turn_id: str | None = None
    standalone_question: str | None = None
    """The question as it was searched."""


class Started(_Answer):
    """Event `started`."""

    session: str | None = None
    turn: int | None = None
    turn_id: str | None = None
    standalone_question: str


class Result(_Answer):
    """A document that was found."""

    document_id: str
    table: str
    key: dict[str, Any]
    chunk_index: int
    chunk_text: str
    score: float
    version: str


class SearchAnswer(_Answer):
    """The results of a search, best first."""

    query_id: str | None
    abstained: bool
    results: list[Result]
    not_reranked: str | None
    """The condition for which the reranker gave no scores, such as `BUDGET_USED_UP`."""
    freshness: Freshness


class Row(_Answer):
    """A document as it is now."""

    document_id: str
    table: str
    key: dict[str, Any]
    metadata: dict[str, Any]
    chunks: list[str]
    """Its text, in order; neighbours may overlap."""
    committed_at: str | None
    searchable_at: str | None
    version: str


class State(_Answer):
    """Event `state` of a watched document."""

    document_id: str
    state: Literal["changed", "gone"]
    at: str


class SessionLine(_Answer):
    """A session."""

    session: str
    turns: int
    last_asked_at: str


class Sessions(_Answer):
    """The caller's sessions, the last asked first."""

    sessions: list[SessionLine]


class Rating(_Answer):
    """What the user thinks of an answer."""

    rating: Literal["up", "down"]
    comment: str


class Exchange(_Answer):
    """A question and how it ended."""

    turn: int
    asked_at: str
    question: str
    state: Literal["answered", "unanswered", "in progress"]
    answer: Answer | None
    rating: Rating | None


class Exchanges(_Answer):
    """The last exchanges of a session."""

    session: str
    exchanges: list[Exchange]


class Deleted(_Answer):
    """What was deleted."""

    session: str
    deleted_messages: int


class Profile(_Answer):
    """What is kept of the caller."""

    version: int
    """0 if nothing is."""
    values: dict[str, str | int | float | bool]
    fields: dict[str, dict[str, Any]]
    """The declaration of each field."""


class Feedback(_Answer):
    """The rating that is kept."""

    session: str
    turn: int
    rating: Literal["up", "down"]
    comment: str


class Me(_Answer):
    """The caller, and what this service has."""

    user: str | None
    sign_in: Literal["none", "key", "jwt"]
    pipeline: str
    answerer: str
    memory: bool
    tables: list[str]


class Health(_Answer):
    """How the service is."""

    live: bool
    ready: bool
    """Whether requests are answered now."""
    parts: dict[str, str]
    """By part: `ok`, or the condition that it is in."""


def faults_of(error: ValidationError, extra: str) -> str:
    """What is wrong with a message, without a value or a name of the client's; `extra` is said of a key that is not taken."""
    details = error.errors(include_input=False, include_url=False, include_context=False)[:_MOST_FAULTS]
    return "; ".join(
        extra if detail["type"] == "extra_forbidden" else f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
        for detail in details
    )
