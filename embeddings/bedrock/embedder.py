"""The embedder for Amazon Bedrock: one botocore client a process, one codec a model family, retries by the governor."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embeddings.bedrock.codecs import Codec, base_model_id, codec_for
from embeddings.bedrock.runtime import bedrock_outcomes
from embeddings.budget.budget import budget_of
from embeddings.clients import open_client
from embeddings.governor import Governor, Reply
from embeddings.protocol import Purpose, Truncation
from embeddings.remote import RemoteEmbedder
from embeddings.vectors import checked
from transforms.documents.chunking import BYTES_A_TOKEN

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime.client import BedrockRuntimeClient

    from embeddings.bedrock.config import BedrockEmbeddingConfig


class BedrockEmbedder(RemoteEmbedder):
    """An `Embedder` over InvokeModel. Pickles as its configuration; a process shares one client and governor."""

    max_bytes = 20_000_000
    """Text bytes packed into a request; InvokeModel takes 25,000,000 bytes of JSON (botocore service model)."""
    check_hint = "embedding.region, embedding.endpoint_url"

    def __init__(self, config: BedrockEmbeddingConfig) -> None:
        super().__init__(config)
        self._config = config

    @property
    def fingerprint(self) -> str:
        """Name what a document vector depends on; not the region nor the route to the model."""
        config, codec = self._config, self._codec
        # Stores were filled under this name when texts were cut at the end; only vectors of longer texts differ.
        truncation = Truncation.END if config.truncation is Truncation.PARTS else config.truncation
        return (
            f"model={base_model_id(config.model)};dimensions={config.dimensions};purpose={Purpose.DOCUMENT};"
            f"truncation={truncation}/{self.max_chars};normalisation={codec.normalisation}"
        )

    @property
    def max_items(self) -> int:
        """The most texts the model family takes in one request."""
        return self._codec.max_items

    @property
    def max_tokens(self) -> int:
        """The family's limit, or fewer if `max_chars` may be fewer tokens."""
        return min(self._codec.max_tokens, self.max_chars // BYTES_A_TOKEN)

    @property
    def max_chars(self) -> int:
        """The family's limit of characters, or the configured one."""
        return min(self._codec.max_chars, self._config.max_chars or self._codec.max_chars)

    @property
    def _codec(self) -> Codec:
        return codec_for(self._config.model)

    @property
    def _governor(self) -> Governor:
        return _channel(self._config).governor

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
    client = open_client(config, "bedrock-runtime", config.requests_in_flight)
    return _Channel(config, client, Governor(config.requests_in_flight, budget=budget_of(config.budget, config.model)))
