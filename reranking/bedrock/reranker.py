"""Reranking on Amazon Bedrock, by Rerank of bedrock-agent-runtime (botocore's service model), with one retry layer."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from embeddings.bedrock.runtime import bedrock_outcomes
from embeddings.clients import open_client
from reranking.attempts import check_scores, scored, sendable, spending_of

if TYPE_CHECKING:
    from reranking.bedrock.config import BedrockRerankingConfig

MAX_CHARS = 32_000
"""Of the question, and of each text."""
MAX_TEXTS = 1_000


class BedrockReranker:
    """A `Reranker` over Rerank. Pickles as its configuration; a process opens one client."""

    def __init__(self, config: BedrockRerankingConfig) -> None:
        self._config = config

    @property
    def model(self) -> str:
        """The model's id."""
        return self._config.model

    @property
    def candidates(self) -> int:
        """How many of the best hits are worth scoring."""
        return self._config.candidates

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return a score a text, in order; see `Reranker`."""
        attempt, spend = functools.partial(self._attempt, query), functools.partial(spending_of, self._config, query)
        return scored(texts, MAX_TEXTS, attempt, self._config.timeout_seconds, spend)

    def check(self) -> None:
        """Score one word; see `Reranker`."""
        check_scores(self, self._config.where, "reranking.model, reranking.region and reranking.endpoint_url")

    def _attempt(self, query: str, texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        model = {"modelConfiguration": {"modelArn": self._config.model_arn}, "numberOfResults": len(texts)}
        request: dict[str, Any] = {
            "queries": [{"type": "TEXT", "textQuery": {"text": sendable(query, MAX_CHARS)}}],
            "sources": [_source(text) for text in texts],
            "rerankingConfiguration": {"type": "BEDROCK_RERANKING_MODEL", "bedrockRerankingConfiguration": model},
        }
        while True:
            with bedrock_outcomes(self._config, "reranking"):
                answer: Any = _client(self._config).rerank(**request)
            yield from ((result["index"], result["relevanceScore"]) for result in answer["results"])
            if not answer.get("nextToken"):
                return
            request["nextToken"] = answer["nextToken"]


def _source(text: str) -> dict[str, Any]:
    return {
        "type": "INLINE",
        "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": sendable(text, MAX_CHARS)}},
    }


@functools.cache
def _client(config: BedrockRerankingConfig) -> Any:
    return open_client(config, "bedrock-agent-runtime", connections=8)
