"""The wire format of each container behind a SageMaker endpoint. Pure.

Sources: Text Embeddings Inference's `/invocations`; the handler of aws/sagemaker-huggingface-inference-toolkit with the
feature-extraction pipeline of transformers; JumpStart's text embedding models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import orjson

from embeddings.errors import ModelAnswerError
from embeddings.vectors import unit
from schemas.errors import ConfigurationError

type Pooling = Literal["mean", "cls", "none"]

PARALLEL_KEYS = ("embedding", "embeddings", "vectors")
"""Under these, containers with code of their own answer a list of vectors."""


class Container(Protocol):
    """The wire format of one container."""

    @property
    def max_items(self) -> int:
        """The most texts of a request by default."""

    def request(self, texts: Sequence[str], *, truncate: bool) -> bytes:
        """Write the request body."""

    def vectors(self, body: bytes, pooling: Pooling | None) -> list[object]:
        """Read the values in place of vectors, in order, unchecked; raise `ModelAnswerError` for an answer without any."""


class TextEmbeddingsInference:
    """TEI: unit vectors, pooled as the model's own settings say."""

    max_items = 32

    def request(self, texts: Sequence[str], *, truncate: bool) -> bytes:
        """Write the request body; a long text is an error 422 unless it is to be cut."""
        return json.dumps({"inputs": list(texts), "truncate": truncate, "normalize": True}).encode()

    def vectors(self, body: bytes, pooling: Pooling | None) -> list[object]:
        """Read one vector a text."""
        return [unit(row) for row in _rows(body)]


class HuggingFaceInference:
    """Hugging Face's inference container: `feature-extraction` answers [1][tokens][dimensions] for each text."""

    max_items = 1

    def request(self, texts: Sequence[str], *, truncate: bool) -> bytes:
        """Write the request body; its handler hands `parameters` to the pipeline."""
        return json.dumps({"inputs": list(texts), "parameters": {"truncation": truncate}}).encode()

    def vectors(self, body: bytes, pooling: Pooling | None) -> list[object]:
        """Read one vector a text, pooled from those of its tokens, as unit vectors."""
        return [unit(_pooled(row, pooling)) for row in _rows(body)]


class JumpStart:
    """JumpStart's text embedding models: `text_inputs` in, `embedding` out."""

    max_items = 16

    def request(self, texts: Sequence[str], *, truncate: bool) -> bytes:
        """Write the request body; what is too long is the model's to decide."""
        return json.dumps({"text_inputs": list(texts), "mode": "embedding"}).encode()

    def vectors(self, body: bytes, pooling: Pooling | None) -> list[object]:
        """Read one vector a text, as unit vectors."""
        return [unit(row) for row in _rows(body)]


CONTAINERS: Mapping[str, Container] = {
    "tei": TextEmbeddingsInference(),
    "huggingface": HuggingFaceInference(),
    "jumpstart": JumpStart(),
}
"""By `container` of the configuration."""


def _rows(body: bytes) -> list[Any]:
    """The values of an answer, one a text: a list, or a list under one of the known keys."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _unexpected("not JSON") from None
    if isinstance(answer, Mapping):
        answer = next((answer[key] for key in PARALLEL_KEYS if key in answer), None)
    if not isinstance(answer, list):
        raise _unexpected("no list of vectors")
    if answer and all(isinstance(number, int | float) for number in answer):
        return [answer]  # one text, and its vector not in a list of its own
    return answer


def _pooled(value: Any, pooling: Pooling | None) -> object:
    """One vector of the vectors of a text's tokens; anything else is returned unchanged, for the check of its shape."""
    depth = _depth(value)
    if pooling == "none":
        if depth > 1:
            raise _mismatch("a vector for each token", "set embedding.pooling to mean or cls, as the model was trained")
        return value
    if depth == 1:
        raise _mismatch("one vector a text", "set embedding.pooling to none: the endpoint pools by itself")
    try:
        tokens = np.asarray(value[0] if depth == 3 and len(value) == 1 else value, np.float64)
    except (TypeError, ValueError, IndexError):
        return value
    if tokens.ndim != 2:
        return value
    return tokens.mean(axis=0) if pooling == "mean" else tokens[0]


def _depth(value: Any) -> int:
    """How deep lists of numbers are nested; 0 for what has no number in it."""
    depth = 0
    while isinstance(value, list) and value:
        value, depth = value[0], depth + 1
    return depth if isinstance(value, int | float) else 0


def _mismatch(answers: str, hint: str) -> ConfigurationError:
    return ConfigurationError(
        f"embedding.pooling: the endpoint answers {answers}", condition="OTHER_POOLING", hint=hint
    )


def _unexpected(what: str) -> ModelAnswerError:
    return ModelAnswerError(
        f"the endpoint's answer cannot be read: {what}",
        condition="UNEXPECTED_MODEL_ANSWER",
        hint="check that embedding.container is what runs behind the endpoint",
    )
