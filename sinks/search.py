"""What search needs of a store, whatever store it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from embeddings.protocol import Vector
from sinks.versions import IndexVersions


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its vector."""

    text: str
    vector: Vector


@dataclass(frozen=True, slots=True)
class Filters:
    """Which documents may be found: of these tables, with these metadata values; empty means any."""

    tables: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


ANYTHING = Filters()


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found, and both ways in which it resembles the question."""

    document_id: str
    table: str
    key: Mapping[str, Any]
    chunk_id: str
    chunk_index: int
    chunk_text: str
    metadata: Mapping[str, Any]
    similarity: float
    """Cosine of the chunk's vector and the question's."""
    coverage: float
    """The part, from 0 to 1, of the question's information that the chunk's own words carry."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far an index has come, on the store's own clock, in microseconds since the epoch."""

    indexed_as_of_us: int | None
    """Every commit up to here is searchable; None when nothing was indexed yet."""
    now_us: int


class Index(Protocol):
    """Reads one index version of a store, that of the model that asks.

    A hit is always a chunk of a live document's newest version, never of a deleted or truncated row.
    Raises `UnavailableError` when the store does not answer, `ConfigurationError` when it is not what it should be.
    """

    def check(self) -> None:
        """Connect; raise `ConfigurationError` for a store that another model filled, or none at all."""
        ...

    def index_versions(self) -> IndexVersions:
        """Return the store's index versions as they are now; raise `ConfigurationError` where there is no store."""
        ...

    def dense(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Return about k documents' chunks with the nearest vectors, nearest first, one chunk a document."""
        ...

    def lexical(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Return at most k documents' chunks with the greatest coverage, best first, one chunk a document."""
        ...

    def coverage(self, question: str, texts: Sequence[str]) -> list[float]:
        """Return the coverage of texts that need not be in the store, in order."""
        ...

    def live(self, chunk_ids: Sequence[str]) -> set[str]:
        """Return those chunks that are still part of a live document at this moment."""
        ...

    def freshness(self) -> Freshness:
        """Return how far the index has come."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
