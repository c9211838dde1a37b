"""What the embedders of providers have in common: texts prepared, packed, sent by the governor, and vectors checked."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from embeddings.batching import pack
from embeddings.budget.budget import Budget
from embeddings.errors import EmbeddingRejectedError, EmbeddingUnavailableError
from embeddings.governor import Governor, Reply
from embeddings.parts import in_parts
from embeddings.prices import Usage
from embeddings.protocol import (
    TEXT_TOO_LONG,
    Embedding,
    EmbeddingCounts,
    EmbeddingRejected,
    Purpose,
    Truncation,
    Vector,
)
from embeddings.usage import TALLY, Asked
from schemas.errors import ConfigurationError
from transforms.documents.chunking import tokens
from transforms.documents.words import is_blank

PROBE = ("ragstream",)
"""A text that every model takes; it tells whether the model answers at all."""


class RemoteConfig(Protocol):
    """The settings that every provider's configuration has."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def dimensions(self) -> int:
        """The length of every vector."""

    @property
    def truncation(self) -> Truncation:
        """What happens to a text longer than the model takes."""

    @property
    def query_timeout_seconds(self) -> float:
        """How long a question may wait for its vector."""

    @property
    def connect_timeout_seconds(self) -> float:
        """How long `check` waits."""

    @property
    def where(self) -> str:
        """The place, for a message."""


class RemoteEmbedder(ABC):
    """An `Embedder` over a network; a provider adds its limits, its fingerprint and one request."""

    max_bytes: int
    """Text bytes packed into a request."""
    check_hint: str
    """Which keys to check where the model does not answer."""

    def __init__(self, config: RemoteConfig) -> None:
        self._settings = config

    @property
    @abstractmethod
    def max_items(self) -> int:
        """The most texts the provider takes in one request."""

    @property
    @abstractmethod
    def max_chars(self) -> int:
        """The most characters of a text that are sent at once."""

    @property
    @abstractmethod
    def _governor(self) -> Governor:
        """The governor of this model in this process."""

    @abstractmethod
    def _send(self, purpose: Purpose, texts: Sequence[str]) -> Reply:
        """Send one request; raises as the governor's `Send`."""

    @property
    def dimensions(self) -> int:
        """The length of every vector."""
        return self._settings.dimensions

    @property
    def budget(self) -> Budget | None:
        """What all processes together may ask of the model."""
        return self._governor.budget

    def embed_documents(self, texts: Sequence[str]) -> list[Embedding]:
        """Return one embedding a text, in order; see `Embedder`."""
        return self._embed(texts, Purpose.DOCUMENT, seconds=None)

    def embed_query(self, text: str) -> Vector:
        """Return the vector of a question; see `Embedder`."""
        (embedding,) = self._embed([text], Purpose.QUERY, seconds=self._settings.query_timeout_seconds)
        if isinstance(embedding, EmbeddingRejected):
            raise EmbeddingRejectedError(
                f"the question has no vector: {embedding.message}",
                condition=embedding.condition,
                hint="ask it in other words; if no question has one, check the model behind embedding.endpoint_url",
            )
        return embedding

    def check(self) -> None:
        """Embed one word, without waiting for an outage to end."""
        settings = self._settings
        try:
            (embedding,) = self._embed(PROBE, Purpose.DOCUMENT, seconds=settings.connect_timeout_seconds)
        except EmbeddingUnavailableError as error:
            raise ConfigurationError(
                f"embedding: the model {settings.model!r} does not answer at {settings.where}",
                condition=error.condition,
                hint=f"check {self.check_hint} and the network route to them",
            ) from error
        if isinstance(embedding, EmbeddingRejected):
            raise ConfigurationError(
                f"embedding: {settings.model!r} at {settings.where} refuses a plain word",
                condition=embedding.condition,
                hint="check that embedding.model is offered in this region and is an embedding model",
            )

    def counts(self) -> EmbeddingCounts:
        """Return the counts of this process."""
        return self._governor.counts()

    def _embed(self, texts: Sequence[str], purpose: Purpose, *, seconds: float | None) -> list[Embedding]:
        prepared = [self._prepared(text) for text in texts]
        sendable = [text for text in prepared if isinstance(text, str)]
        governor, send = self._governor, functools.partial(self._counted, purpose)

        def vectors_of(distinct: Sequence[str]) -> dict[str, Embedding]:
            requests = list(pack(distinct, max_items=self.max_items, max_bytes=self.max_bytes))
            return governor.run(requests, send, probe=PROBE, seconds=seconds)

        if self._settings.truncation is Truncation.PARTS:
            vectors = in_parts(sendable, vectors_of, self.max_chars)
        else:
            vectors = vectors_of(sendable)
        return [vectors[text] if isinstance(text, str) else text for text in prepared]

    def _counted(self, purpose: Purpose, texts: Sequence[str]) -> Reply:
        """Send one request, which is counted; its tokens are estimated where the provider does not say them."""
        estimate = Usage(sum(map(tokens, texts)))
        with TALLY.request(Asked(self._settings.model, purpose.value), estimate) as receipt:
            reply = self._send(purpose, texts)
            receipt.used = Usage(reply.tokens) if reply.tokens else estimate
            return reply

    def _prepared(self, text: str) -> str | EmbeddingRejected:
        """Apply the model's limits here, where they cost no request."""
        if is_blank(text):
            return EmbeddingRejected("BLANK_TEXT", "the text is blank")
        if len(text) <= self.max_chars or self._settings.truncation is Truncation.PARTS:
            return text
        if self._settings.truncation is Truncation.NONE:
            return EmbeddingRejected(
                TEXT_TOO_LONG, f"the text has {len(text)} characters, the model takes {self.max_chars}"
            )
        return text[: self.max_chars]
