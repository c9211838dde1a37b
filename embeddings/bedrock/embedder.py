"""The embedder for Amazon Bedrock: one botocore client a process, one codec a model family, retries by the governor."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embeddings.aws import open_client
from embeddings.batching import pack
from embeddings.bedrock.codecs import Codec, base_model_id, codec_for
from embeddings.bedrock.runtime import bedrock_outcomes
from embeddings.errors import EmbeddingRejectedError, EmbeddingUnavailableError
from embeddings.governor import Governor, Reply
from embeddings.parts import in_parts
from embeddings.protocol import (
    TEXT_TOO_LONG,
    Embedding,
    EmbeddingCounts,
    EmbeddingRejected,
    Purpose,
    Truncation,
    Vector,
)
from embeddings.vectors import checked
from schemas.errors import ConfigurationError
from transforms.documents.chunking import BYTES_A_TOKEN
from transforms.documents.words import is_blank

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime.client import BedrockRuntimeClient

    from embeddings.bedrock.config import BedrockEmbeddingConfig

MAX_BODY_BYTES = 20_000_000
"""Text bytes packed into a request; InvokeModel takes 25,000,000 bytes of JSON (botocore service model)."""

PROBE = ("ragstream",)
"""A text that every model takes; it tells whether the model answers at all."""


class BedrockEmbedder:
    """An `Embedder` over InvokeModel. Pickles as its configuration; a process shares one client and governor."""

    def __init__(self, config: BedrockEmbeddingConfig) -> None:
        self._config = config

    @property
    def fingerprint(self) -> str:
        """Name what a document vector depends on; not the region nor the route to the model."""
        config, codec = self._config, self._codec
        # Stores were filled under this name when texts were cut at the end; only vectors of longer texts differ.
        truncation = Truncation.END if config.truncation is Truncation.PARTS else config.truncation
        return (
            f"model={base_model_id(config.model)};dimensions={config.dimensions};purpose={Purpose.DOCUMENT};"
            f"truncation={truncation}/{self._max_chars};normalisation={codec.normalisation}"
        )

    @property
    def dimensions(self) -> int:
        """The length of every vector."""
        return self._config.dimensions

    @property
    def max_items(self) -> int:
        """The most texts the model family takes in one request."""
        return self._codec.max_items

    @property
    def max_tokens(self) -> int:
        """The family's limit, or fewer if `max_chars` may be fewer tokens."""
        return min(self._codec.max_tokens, self._max_chars // BYTES_A_TOKEN)

    def embed_documents(self, texts: Sequence[str]) -> list[Embedding]:
        """Return one embedding a text, in order; see `Embedder`."""
        return self._embed(texts, Purpose.DOCUMENT, seconds=None)

    def embed_query(self, text: str) -> Vector:
        """Return the vector of a question; see `Embedder`."""
        (embedding,) = self._embed([text], Purpose.QUERY, seconds=self._config.query_timeout_seconds)
        if isinstance(embedding, EmbeddingRejected):
            raise EmbeddingRejectedError(
                f"the question has no vector: {embedding.message}",
                condition=embedding.condition,
                hint="ask it in other words; if no question has one, check the model behind embedding.endpoint_url",
            )
        return embedding

    def check(self) -> None:
        """Embed one word, without waiting for an outage to end."""
        try:
            (embedding,) = self._embed(PROBE, Purpose.DOCUMENT, seconds=self._config.connect_timeout_seconds)
        except EmbeddingUnavailableError as error:
            raise ConfigurationError(
                f"embedding: the model {self._config.model!r} does not answer at {self._config.where}",
                condition=error.condition,
                hint="check embedding.region, embedding.endpoint_url and the network route to them",
            ) from error
        if isinstance(embedding, EmbeddingRejected):
            raise ConfigurationError(
                f"embedding: {self._config.model!r} at {self._config.where} refuses a plain word",
                condition=embedding.condition,
                hint="check that embedding.model is offered in this region and is an embedding model",
            )

    def counts(self) -> EmbeddingCounts:
        """Return the counts of this process."""
        return _channel(self._config).governor.counts()

    @property
    def _codec(self) -> Codec:
        return codec_for(self._config.model)

    @property
    def _max_chars(self) -> int:
        return min(self._codec.max_chars, self._config.max_chars or self._codec.max_chars)

    def _embed(self, texts: Sequence[str], purpose: Purpose, *, seconds: float | None) -> list[Embedding]:
        prepared = [self._prepared(text) for text in texts]
        sendable = [text for text in prepared if isinstance(text, str)]
        governor, send = _channel(self._config).governor, functools.partial(self._send, purpose)

        def vectors_of(distinct: Sequence[str]) -> dict[str, Embedding]:
            requests = list(pack(distinct, max_items=self.max_items, max_bytes=MAX_BODY_BYTES))
            return governor.run(requests, send, probe=PROBE, seconds=seconds)

        if self._config.truncation is Truncation.PARTS:
            vectors = in_parts(sendable, vectors_of, self._max_chars)
        else:
            vectors = vectors_of(sendable)
        return [vectors[text] if isinstance(text, str) else text for text in prepared]

    def _prepared(self, text: str) -> str | EmbeddingRejected:
        """Apply the family's limits here, where they cost no request."""
        if is_blank(text):
            return EmbeddingRejected("BLANK_TEXT", "the text is blank")
        if len(text) <= self._max_chars or self._config.truncation is Truncation.PARTS:
            return text
        if self._config.truncation is Truncation.NONE:
            return EmbeddingRejected(
                TEXT_TOO_LONG, f"the text has {len(text)} characters, the model takes {self._max_chars}"
            )
        return text[: self._max_chars]

    def _send(self, purpose: Purpose, texts: Sequence[str]) -> Reply:
        config, codec = self._config, self._codec
        body = codec.request(texts, purpose, config.dimensions, config.truncation)
        raw, headers = _channel(config).invoke(body)
        vectors = [checked(numbers, config.dimensions) for numbers in codec.vectors(raw)]
        return Reply(vectors, int(headers.get("x-amzn-bedrock-input-token-count", 0)))


@dataclass(frozen=True, slots=True)
class _Channel:
    """The client and the governor of one configuration in a process."""

    config: BedrockEmbeddingConfig
    client: BedrockRuntimeClient
    governor: Governor

    def invoke(self, body: bytes) -> tuple[bytes, dict[str, str]]:
        """Call InvokeModel; raises as the governor's `Send`."""
        with bedrock_outcomes(self.config, "embedding"):
            response = self.client.invoke_model(
                modelId=self.config.model, body=body, contentType="application/json", accept="application/json"
            )
            return response["body"].read(), response["ResponseMetadata"]["HTTPHeaders"]


@functools.cache
def _channel(config: BedrockEmbeddingConfig) -> _Channel:
    return _Channel(
        config, open_client(config, "bedrock-runtime", config.requests_in_flight), Governor(config.requests_in_flight)
    )
