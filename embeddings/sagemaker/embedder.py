"""The embedder for SageMaker endpoints: one botocore client a process, one codec a container, retries by the governor."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embeddings.budget.budget import budget_of
from embeddings.clients import open_client
from embeddings.governor import Governor, Reply
from embeddings.protocol import EmbeddingRejected, Purpose, Truncation
from embeddings.remote import PROBE, RemoteEmbedder
from embeddings.sagemaker.codecs import CONTAINERS, Container
from embeddings.sagemaker.runtime import MAX_TEXT_BYTES, request_to, sagemaker_outcomes
from embeddings.vectors import checked
from schemas.errors import ConfigurationError
from transforms.documents.chunking import BYTES_A_TOKEN

if TYPE_CHECKING:
    from embeddings.sagemaker.config import SageMakerEmbeddingConfig

LONGER = "A longer text stands beside it, so that a container that pads would show."


class SageMakerEmbedder(RemoteEmbedder):
    """An `Embedder` over InvokeEndpoint. Pickles as its configuration; a process shares one client and governor."""

    max_bytes = MAX_TEXT_BYTES
    check_hint = "embedding.endpoint, embedding.region, embedding.endpoint_url"

    def __init__(self, config: SageMakerEmbeddingConfig) -> None:
        super().__init__(config)
        self._config = config

    @property
    def fingerprint(self) -> str:
        """Name what a document vector depends on; not the endpoint, nor the container, which only serves the model."""
        config = self._config
        truncation = Truncation.END if config.truncation is Truncation.PARTS else config.truncation
        prefix = f";prefix={config.document_prefix!r}" if config.document_prefix else ""
        pooling = config.pooling if config.pooling in {"mean", "cls"} else "model"
        return (
            f"model={config.model};dimensions={config.dimensions};purpose={Purpose.DOCUMENT};"
            f"truncation={truncation}/{config.max_tokens} tokens;normalisation=unit;pooling={pooling}{prefix}"
        )

    @property
    def max_items(self) -> int:
        """The most texts of a request."""
        return self._config.max_items or self._container.max_items

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text, or fewer if `max_chars` may be fewer."""
        return min(self._config.max_tokens, self._config.max_chars // BYTES_A_TOKEN)

    @property
    def max_chars(self) -> int:
        """The most characters of a text that are sent at once."""
        return self._config.max_chars

    def check(self) -> None:
        """Embed one word, alone and beside a longer text: a mean over padding would differ."""
        super().check()
        if self._config.container != "huggingface" or self.max_items == 1:
            return
        seconds = self._config.connect_timeout_seconds
        (alone,) = self._embed(PROBE, Purpose.DOCUMENT, seconds=seconds)
        beside = self._embed((*PROBE, LONGER), Purpose.DOCUMENT, seconds=seconds)[0]
        if isinstance(alone, EmbeddingRejected) or isinstance(beside, EmbeddingRejected):
            return
        if not np.allclose(alone, beside, atol=1e-3):
            raise ConfigurationError(
                f"embedding: a text has another vector beside a longer one at {self._config.where}",
                condition="PADDED_TOKENS",
                hint="the container pads texts, and a vector would count the padding: set embedding.max_items to 1",
            )

    @property
    def _container(self) -> Container:
        return CONTAINERS[self._config.container]

    @property
    def _governor(self) -> Governor:
        return _channel(self._config).governor

    def _send(self, purpose: Purpose, texts: Sequence[str]) -> Reply:
        config = self._config
        prefix = config.document_prefix if purpose is Purpose.DOCUMENT else config.query_prefix
        body = self._container.request([prefix + text for text in texts], truncate=config.truncation is Truncation.END)
        values = self._container.vectors(_channel(config).invoke(body), config.pooling)
        return Reply([checked(value, config.dimensions) for value in values])


@dataclass(frozen=True, slots=True)
class _Channel:
    """The client and the governor of one configuration in a process."""

    config: SageMakerEmbeddingConfig
    client: Any
    governor: Governor

    def invoke(self, body: bytes) -> bytes:
        """Call InvokeEndpoint; raises as the governor's `Send`."""
        with sagemaker_outcomes(self.config, "embedding"):
            answer: Any = self.client.invoke_endpoint(**request_to(self.config, body))
            raw: bytes = answer["Body"].read()
            return raw


@functools.cache
def _channel(config: SageMakerEmbeddingConfig) -> _Channel:
    client = open_client(config, "sagemaker-runtime", config.requests_in_flight)
    return _Channel(config, client, Governor(config.requests_in_flight, budget=budget_of(config.budget, config.model)))
