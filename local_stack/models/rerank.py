"""Reranking by late interaction over the local encoder, behind Bedrock's Rerank and TEI's `/rerank`.

A text's score is the mean, over the question's tokens, of each one's greatest cosine with a token of the text (MaxSim, ColBERT).
The local encoder was not trained for it: the models on AWS score otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from embeddings.protocol import Vector
from local_stack.models.state import EndpointState
from local_stack.models.wire import ContainerError, WireError, malformed

MAX_CHARS = 32_000
MAX_SOURCES = 1_000
TEI_MAX_TEXTS = 32
"""MAX_CLIENT_BATCH_SIZE."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Text(_Body):
    text: str = Field(min_length=1, max_length=MAX_CHARS)


class _Query(_Body):
    type: Literal["TEXT"]
    textQuery: _Text  # noqa: N815 - the provider's name


class _Document(_Body):
    type: Literal["TEXT"]
    textDocument: _Text  # noqa: N815 - the provider's name


class _Source(_Body):
    type: Literal["INLINE"]
    inlineDocumentSource: _Document  # noqa: N815 - the provider's name


class _Model(_Body):
    modelArn: str  # noqa: N815 - the provider's name


class _BedrockConfiguration(_Body):
    modelConfiguration: _Model  # noqa: N815 - the provider's name
    numberOfResults: int | None = Field(default=None, ge=1, le=MAX_SOURCES)  # noqa: N815 - the provider's name


class _Configuration(_Body):
    type: Literal["BEDROCK_RERANKING_MODEL"]
    bedrockRerankingConfiguration: _BedrockConfiguration  # noqa: N815 - the provider's name


class _Rerank(_Body):
    queries: list[_Query] = Field(min_length=1, max_length=1)
    sources: list[_Source] = Field(min_length=1, max_length=MAX_SOURCES)
    rerankingConfiguration: _Configuration  # noqa: N815 - the provider's name
    nextToken: str | None = None  # noqa: N815 - the provider's name


class _TeiRerank(_Body):
    query: str
    texts: list[str]
    truncate: bool = False
    raw_scores: bool = False
    return_text: bool = False


class Reranking:
    """The two wire formats over one scorer."""

    def __init__(self, state: EndpointState, thread: ThreadPoolExecutor | None) -> None:
        self._state = state
        self._thread = thread

    async def rerank(self, request: web.Request) -> web.Response:
        """Answer bedrock-agent-runtime's Rerank; more results than a page holds are asked for by `nextToken`."""
        await self._state.strike(request)
        try:
            asked = _Rerank.model_validate_json(await request.read())
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise malformed(f"#/{'/'.join(map(str, first['loc']))}: {first['msg']}") from None
        settings = asked.rerankingConfiguration.bedrockRerankingConfiguration
        if not settings.modelConfiguration.modelArn.startswith("arn:"):
            raise WireError("ValidationException", "The provided model ARN is invalid.")
        texts = [source.inlineDocumentSource.textDocument.text for source in asked.sources]
        ranked = await self._ranked(asked.queries[0].textQuery.text, texts)
        ranked = ranked[: settings.numberOfResults or len(ranked)]
        begin, page = int(asked.nextToken or 0), self._state.faults.rerank_page or len(ranked)
        results = [{"index": index, "relevanceScore": score} for index, score in ranked[begin : begin + page]]
        more = {"nextToken": str(begin + page)} if begin + page < len(ranked) else {}
        return web.json_response({"results": results} | more)

    async def of_container(self, body: bytes) -> list[dict[str, Any]]:
        """Answer TEI's `/rerank`, best first."""
        try:
            asked = _TeiRerank.model_validate_json(body)
        except ValidationError as error:
            raise ContainerError(422, str(error.error_count()) + " fields are wrong", "Validation") from None
        if len(asked.texts) > TEI_MAX_TEXTS:
            reason = f"batch size {len(asked.texts)} > maximum allowed batch size {TEI_MAX_TEXTS}"
            raise ContainerError(422, reason, "Validation")
        if not asked.texts or not asked.query:
            raise ContainerError(400, "`texts` cannot be empty", "Empty")
        return [{"index": index, "score": score} for index, score in await self._ranked(asked.query, asked.texts)]

    async def _ranked(self, query: str, texts: Sequence[str]) -> list[tuple[int, float]]:
        if (error := self._state.faults.against([query, *texts])) is not None:
            raise error
        if self._thread is None:
            scores = self._scores(query, texts)
        else:
            scores = await asyncio.get_running_loop().run_in_executor(self._thread, self._scores, query, texts)
        self._state.counters.reranked += len(texts)
        return sorted(enumerate(scores), key=lambda pair: (-pair[1], pair[0]))

    def _scores(self, query: str, texts: Sequence[str]) -> list[float]:
        return late_interaction(self._state.token_vectors, query, texts)


def late_interaction(token_vectors: Callable[[str], Vector], query: str, texts: Sequence[str]) -> list[float]:
    """The score of each text."""
    asked = _unit(token_vectors(query))
    return [maxsim(asked, _unit(token_vectors(text))) for text in texts]


def maxsim(query: Vector, text: Vector) -> float:
    """The mean of each question token's greatest cosine with a token of the text, 0 at least."""
    return max(0.0, float((query @ text.T).max(axis=1).mean()))


def _unit(vectors: Vector) -> Vector:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vector = vectors / np.maximum(lengths, 1e-12)
    return unit
