"""The embedder interface: `Embedder`, and the embedding or rejection of a text."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

type Vector = NDArray[np.float32]


class Purpose(StrEnum):
    """The use of a vector: some models encode documents and queries differently."""

    DOCUMENT = "document"
    QUERY = "query"


class Truncation(StrEnum):
    """What happens to a text longer than the model takes."""

    PARTS = "parts"
    """Embedded in parts; its vector is the mean of theirs."""
    END = "end"
    """Cut at the end."""
    NONE = "none"
    """Rejected."""


@dataclass(frozen=True, slots=True)
class EmbeddingRejected:
    """The reason why a text can never have a vector; it contains nothing of the text."""

    condition: str
    """Stable, for counting and routing: BLANK_TEXT, TEXT_TOO_LONG, MODEL_REFUSED_TEXT, MODEL_FAILS_ON_TEXT,
    BAD_VECTOR, WRONG_VECTOR_LENGTH."""
    message: str


TEXT_TOO_LONG = "TEXT_TOO_LONG"
"""The condition of a text that the model refuses for its length."""

type Embedding = Vector | EmbeddingRejected
"""A float32 vector, or the reason there is none."""


@dataclass(frozen=True, slots=True)
class EmbeddingCounts:
    """Counts of an embedder's requests in this process; the difference of two readings is what happened between them."""

    requests: int = 0
    """Requests answered with vectors."""
    texts: int = 0
    """Texts in those requests."""
    tokens: int = 0
    """Input tokens as the provider counted them; 0 where it does not say."""
    throttles: int = 0
    """Requests that the provider throttled."""
    failures: int = 0
    """Requests that failed otherwise; each was retried, split, or its text rejected."""

    def __add__(self, more: Self) -> EmbeddingCounts:
        return EmbeddingCounts(*map(operator.add, astuple(self), astuple(more)))

    def __sub__(self, earlier: Self) -> EmbeddingCounts:
        return EmbeddingCounts(*map(operator.sub, astuple(self), astuple(earlier)))


class Embedder(Protocol):
    """Turns texts into vectors.

    The same text under the same fingerprint has the same vector, so a replay may take it from a cache of any age.
    Instances are pickled to Spark's executors as their configuration; a process opens one client, on first use.
    """

    @property
    def fingerprint(self) -> str:
        """Name everything that a document vector depends on besides the text; another fingerprint needs another index version."""

    @property
    def dimensions(self) -> int:
        """The length of every vector."""

    @property
    def max_items(self) -> int:
        """The most texts the provider takes in one request."""

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text, as `transforms.documents.chunking.tokens` estimates them, that the model takes."""

    def embed_documents(self, texts: Sequence[str]) -> list[Embedding]:
        """Return one embedding a text, in order; equal texts are sent once, packed to `max_items` a request.

        Throttles and outages are retried without end. A vector has `dimensions` finite float32 numbers, not all zero.
        A text that the model refuses, or returns no such vector for, is `EmbeddingRejected` in its place, and affects no
        other text. Raises `ConfigurationError` when no retry can help.
        """

    def embed_query(self, text: str) -> Vector:
        """Return the vector of a question.

        Raises `EmbeddingRejectedError` for a text that the model refuses, `EmbeddingUnavailableError` after the
        configured time.
        """

    def check(self) -> None:
        """Embed one word; raise `ConfigurationError` with a hint when the model cannot be used as configured."""

    def counts(self) -> EmbeddingCounts:
        """Return the counts of this process."""
