"""The search interface of a vector store: `Index`, its questions, filters and hits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from embeddings.protocol import Vector
from sinks.versions import IndexVersion, IndexVersions
from transforms.filters.conditions import Condition
from transforms.values import exact_json


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its vector."""

    text: str
    vector: Vector


@dataclass(frozen=True, slots=True)
class Grant:
    """Documents that a caller may see: those of these tables for which all conditions hold."""

    tables: tuple[str, ...]
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Filters:
    """The documents to search: of these tables (empty: any), for which all conditions hold, and that a grant lets through."""

    tables: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    access: tuple[Grant, ...] | None = None
    """None where the pipeline has no rule of access; without any grant nothing is found."""


ANYTHING = Filters()


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk, and its similarity to the question in meaning and in words."""

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
    """The share, 0 to 1, of the question's information (idf) that the chunk's words carry."""
    version: str = ""
    """Its document's version (`version_of`)."""


@dataclass(frozen=True, slots=True)
class VisibleDocument:
    """A document that readers may see, all of it of one read."""

    document_id: str
    table: str
    key: Mapping[str, Any]
    metadata: Mapping[str, Any]
    chunk_texts: tuple[str, ...]
    """In order; none where the row has no text."""
    commit_time_us: int | None
    """When the newest change of the row was committed in its database, in microseconds since the epoch; None where its record
    does not say."""
    written_at_us: int
    """When the store took what it holds of the row, in microseconds since the epoch, by the clock of the store or its writer."""
    version: str


def visible_document(document_id: str, table: str, stored: Mapping[str, Any]) -> VisibleDocument:
    """A document from the fields of a store that keeps its chunks within it."""
    chunks = sorted(stored.get("chunks", ()), key=lambda chunk: chunk["chunk_index"])
    return VisibleDocument(
        document_id, table, exact_json.loads(stored["key"]), exact_json.loads(stored["metadata"]),
        tuple(chunk["chunk_text"] for chunk in chunks), stored["commit_time_us"], stored["written_at"] * 1000,
        version_of(stored["sequence"]),
    )  # fmt: skip


def version_of(sequence: str) -> str:
    """The version of a document whose row has this sequence: 16 hexadecimal digits that every newer change alters.

    A row that is written again at the same sequence, as by a replay or a rebuild, keeps its version.
    """
    return hashlib.blake2b(sequence.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Freshness:
    """The progress of an index and the store's clock, in microseconds since the epoch."""

    indexed_as_of_us: int | None
    """Every commit up to this time is searchable; None before anything was indexed."""
    now_us: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """The chunks that a store proposes for a question, and the state that they were read in."""

    active: IndexVersion
    """The index version that readers use, as read before the others."""
    freshness: Freshness
    """Read before the hits."""
    dense: list[Hit]
    lexical: list[Hit]


class Index(Protocol):
    """Reads one index version of a store.

    A hit is a chunk of a live document's newest version, never of a deleted or truncated row. Replayed writes change no hit.
    Filters are part of each query, not applied to its results: the k best of what they let through are found. Their values are
    bound, never part of a query's text.

    Every method raises `UnavailableError` if the store does not answer, `ConfigurationError` if it has another model, is
    missing, or refuses a right.
    """

    def check(self) -> None:
        """Connect; raise `ConfigurationError` if the store is missing or was filled by another model."""

    def index_versions(self) -> IndexVersions:
        """Return the current index versions; raise `ConfigurationError` if there is no store."""

    def search(self, question: Question, k: int, filters: Filters = ANYTHING) -> Candidates:
        """Return what `index_versions`, `freshness`, `dense` and `lexical` return: here by a request each, else by fewer."""
        active, freshness = self.index_versions().active, self.freshness()
        return Candidates(active, freshness, self.dense(question, k, filters), self.lexical(question, k, filters))

    def dense(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Return about k documents' chunks with the nearest vectors, nearest first, one chunk a document.

        A search begins with it: it weighs the question's words anew, and the other methods may use those weights for a while.
        """

    def lexical(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Return at most k documents' chunks with the greatest coverage, best first, one chunk a document."""

    def coverage(self, question: str, texts: Sequence[str]) -> list[float]:
        """Return the coverage of texts that need not be in the store, in order."""

    def live(self, chunk_ids: Sequence[str], filters: Filters = ANYTHING) -> set[str]:
        """Return those chunks that are part of a live document now, and of one that the filters let through now."""

    def versions(self, document_ids: Sequence[str], filters: Filters = ANYTHING) -> dict[str, str]:
        """Return the versions of those documents that are live now and that the filters let through now."""

    def document(self, document_id: str, filters: Filters = ANYTHING) -> VisibleDocument | None:
        """Return a document; None where it is not live now, or the filters do not let it through now."""

    def freshness(self) -> Freshness:
        """Return the index's progress."""

    def close(self) -> None:
        """Close connections; the next call opens others."""
