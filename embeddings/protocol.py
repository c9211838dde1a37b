"""What an embedder is, and what it gives back for a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

type Vector = NDArray[np.float32]


class Purpose(StrEnum):
    """What a vector is for: some models encode a stored text and a question differently."""

    DOCUMENT = "document"
    QUERY = "query"


class Truncation(StrEnum):
    """What happens to a text longer than the model takes."""

    PARTS = "parts"
    """It is embedded in parts, and its vector is the mean of theirs."""
    END = "end"
    """Its end is cut off."""
    NONE = "none"
    """It is rejected."""


@dataclass(frozen=True, slots=True)
class EmbeddingRejected:
    """The reason why one text has no vector and never will; it holds nothing of the text."""

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
    """What an embedder asked of its model in this process; subtract two readings to get what happened between."""

    requests: int = 0
    """Requests answered with vectors."""
    texts: int = 0
    """Texts in those requests."""
    tokens: int = 0
    """Input tokens as the provider counted them; 0 where it does not say."""
    throttles: int = 0
    """Requests the provider asked to send later."""
    failures: int = 0
    """Requests without an answer, or refused with another error; each was sent again, in parts, or rejected."""

    def __add__(self, more: Self) -> EmbeddingCounts:
        """Return both readings together."""
        return EmbeddingCounts(
            self.requests + more.requests,
            self.texts + more.texts,
            self.tokens + more.tokens,
            self.throttles + more.throttles,
            self.failures + more.failures,
        )

    def __sub__(self, earlier: Self) -> EmbeddingCounts:
        """Return what was counted since an earlier reading."""
        return EmbeddingCounts(
            self.requests - earlier.requests,
            self.texts - earlier.texts,
            self.tokens - earlier.tokens,
            self.throttles - earlier.throttles,
            self.failures - earlier.failures,
        )


class Embedder(Protocol):
    """Turns texts into vectors.

    Instances are pickled to Spark's executors: they hold configuration, and open clients lazily, once a process.
    The same text under the same fingerprint has the same vector, so results may be cached for ever.
    """

    @property
    def fingerprint(self) -> str:
        """Name everything a document vector depends on besides the text: another fingerprint is another index."""
        ...

    @property
    def dimensions(self) -> int:
        """The length of every vector."""
        ...

    @property
    def max_items(self) -> int:
        """The most texts the provider takes in one request."""
        ...

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text, as `transforms.documents.chunking.tokens` estimates them, that the model takes."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> list[Embedding]:
        """Return one embedding a text, in order; equal texts are sent once, packed to `max_items` a request.

        Throttles and outages are waited out, however long. A vector has `dimensions` finite numbers, not all zero.
        A text the model refuses, or answers no such vector for, becomes `EmbeddingRejected` in
        its place and costs no other text its vector. Raises `ConfigurationError` when no retry can help.
        """
        ...

    def embed_query(self, text: str) -> Vector:
        """Return the vector of a question.

        Raises `EmbeddingRejectedError` for a text the model refuses, `EmbeddingUnavailableError` after the
        configured time.
        """
        ...

    def check(self) -> None:
        """Embed one word; raise `ConfigurationError` with a hint when the model cannot be used as configured."""
        ...

    def counts(self) -> EmbeddingCounts:
        """Return what this process asked of the model so far."""
        ...
