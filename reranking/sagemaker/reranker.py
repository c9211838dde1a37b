"""Reranking behind SageMaker endpoints: TEI's `/rerank` body through InvokeEndpoint, with one retry layer."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from embeddings.clients import open_client
from embeddings.outcomes import Unanswered
from embeddings.sagemaker.runtime import request_to, sagemaker_outcomes
from reranking.attempts import check_scores, scored, sendable, spending_of

if TYPE_CHECKING:
    from reranking.sagemaker.config import SageMakerRerankingConfig

MAX_CHARS = 20_000
"""Of a text: 32 of them in JSON, at six bytes a character, are within a request's 6 MB. A reranker reads 512 tokens."""


class SageMakerReranker:
    """A `Reranker` over InvokeEndpoint. Pickles as its configuration; a process opens one client."""

    def __init__(self, config: SageMakerRerankingConfig) -> None:
        self._config = config

    @property
    def model(self) -> str:
        """The configured name of the model: the endpoint does not tell it."""
        return self._config.model

    @property
    def candidates(self) -> int:
        """How many of the best hits are worth scoring."""
        return self._config.candidates

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return a score a text, in order; see `Reranker`."""
        attempt, spend = functools.partial(self._attempt, query), functools.partial(spending_of, self._config, query)
        return scored(texts, self._config.max_items, attempt, self._config.timeout_seconds, spend)

    def check(self) -> None:
        """Score one word; see `Reranker`."""
        check_scores(self, self._config.where, "reranking.endpoint, reranking.region and reranking.endpoint_url")

    def _attempt(self, query: str, texts: Sequence[str]) -> list[tuple[int, float]]:
        payload = {
            "query": sendable(query, MAX_CHARS),
            "texts": [sendable(text, MAX_CHARS) for text in texts],
            "truncate": True,
        }
        with sagemaker_outcomes(self._config, "reranking"):
            answer: Any = _client(self._config).invoke_endpoint(
                **request_to(self._config, json.dumps(payload).encode())
            )
            raw: bytes = answer["Body"].read()
        try:
            return [(int(result["index"]), float(result["score"])) for result in orjson.loads(raw)]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            raise Unanswered("UnreadableScores") from None


@functools.cache
def _client(config: SageMakerRerankingConfig) -> Any:
    return open_client(config, "sagemaker-runtime", connections=8)
