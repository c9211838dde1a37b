"""How each Bedrock model family writes a request and an answer down; pure.

Adding a family is one codec class and one line of `CODECS`. Limits are those of the model pages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson

from embeddings.errors import ModelAnswerError
from embeddings.protocol import Purpose, Truncation
from schemas.errors import ConfigurationError


class Codec(Protocol):
    """The wire form of one model family, and its limits."""

    @property
    def max_items(self) -> int:
        """Texts a request may hold."""
        ...

    @property
    def max_chars(self) -> int:
        """Characters a text may have."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens a text may have, by the model's own count."""
        ...

    @property
    def dimensions(self) -> frozenset[int]:
        """Vector lengths the model offers."""
        ...

    @property
    def normalisation(self) -> str:
        """`unit` when the model is asked for unit vectors, `model` when it decides itself."""
        ...

    def request(self, texts: Sequence[str], purpose: Purpose, dimensions: int, truncation: Truncation) -> bytes:
        """Write the request body for at most `max_items` texts."""
        ...

    def vectors(self, body: bytes) -> list[object]:
        """Read what stands for each vector, in order, whatever it is; raises `ModelAnswerError` for an answer without any."""
        ...


class TitanTextV2:
    """Amazon Titan Text Embeddings V2: one text a request, unit vectors in three sizes, no truncation of its own."""

    max_items = 1
    max_chars = 50_000
    max_tokens = 8_192
    dimensions = frozenset({256, 512, 1024})
    normalisation = "unit"

    def request(self, texts: Sequence[str], purpose: Purpose, dimensions: int, truncation: Truncation) -> bytes:
        """Write the one text down; the model knows neither purpose nor truncation."""
        del purpose, truncation
        (text,) = texts
        return json.dumps({"inputText": text, "dimensions": dimensions, "normalize": True}).encode()

    def vectors(self, body: bytes) -> list[object]:
        """Read the one vector: `embeddingsByType` wins, because `embedding` may be absent beside it."""
        answer = _object(body)
        by_type = answer.get("embeddingsByType")
        typed = by_type.get("float") if isinstance(by_type, Mapping) else None
        return [typed or answer.get("embedding")]


class CohereEmbedV3:
    """Cohere Embed v3: up to 96 texts a request, a different encoding for documents and for queries."""

    max_items = 96
    max_chars = 2_048
    max_tokens = 512
    dimensions = frozenset({1024})
    normalisation = "model"

    def request(self, texts: Sequence[str], purpose: Purpose, dimensions: int, truncation: Truncation) -> bytes:
        """Write the texts down; the model has one size only."""
        del dimensions
        body = {
            "texts": list(texts),
            "input_type": f"search_{purpose}",
            "truncate": "END" if truncation is Truncation.END else "NONE",
        }
        return json.dumps(body).encode()

    def vectors(self, body: bytes) -> list[object]:
        """Read either form: a bare list of vectors, or one list a type."""
        rows = _object(body).get("embeddings")
        if isinstance(rows, Mapping):
            rows = rows.get("float")
        if not isinstance(rows, list):
            raise _unexpected("no list of vectors under `embeddings`")
        return rows


class CohereEmbedV4(CohereEmbedV3):
    """Cohere Embed v4: as v3, in four sizes, with long texts and truncation at the right."""

    max_chars = 400_000
    max_tokens = 128_000
    dimensions = frozenset({256, 512, 1024, 1536})

    def request(self, texts: Sequence[str], purpose: Purpose, dimensions: int, truncation: Truncation) -> bytes:
        """Write the texts down; the size is part of the request."""
        body = {
            "texts": list(texts),
            "input_type": f"search_{purpose}",
            "truncate": "RIGHT" if truncation is Truncation.END else "NONE",
            "embedding_types": ["float"],
            "output_dimension": dimensions,
        }
        return json.dumps(body).encode()


CODECS: Mapping[str, Codec] = {
    "amazon.titan-embed-text-v2": TitanTextV2(),
    "cohere.embed-english-v3": CohereEmbedV3(),
    "cohere.embed-multilingual-v3": CohereEmbedV3(),
    "cohere.embed-v4": CohereEmbedV4(),
}
"""The codec of each model, by the beginning of its id."""

_PROFILE_PREFIXES = frozenset({"us", "us-gov", "eu", "apac", "jp", "au", "ca", "global"})
"""Regions that lead the id of a cross-region inference profile."""


def base_model_id(model: str) -> str:
    """Return the foundation model's id within an ARN or an inference profile: it decides the vectors, the route does not."""
    name = model.rsplit("/", 1)[-1]
    prefix, _, rest = name.partition(".")
    return rest if prefix in _PROFILE_PREFIXES else name


def codec_for(model: str) -> Codec:
    """Return the codec of a model id; raises `ConfigurationError` for a family nobody has written down yet."""
    name = base_model_id(model)
    for prefix, codec in CODECS.items():
        if name.startswith(prefix):
            return codec
    raise ConfigurationError(
        f"embedding.model: no codec for the Bedrock model {model!r}",
        condition="UNKNOWN_EMBEDDING_MODEL",
        hint=f"use a model whose id starts with one of: {', '.join(CODECS)}",
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _unexpected("not JSON") from None
    if not isinstance(answer, dict):
        raise _unexpected("not a JSON object")
    return answer


def _unexpected(what: str) -> ModelAnswerError:
    return ModelAnswerError(
        f"the model's answer cannot be read: {what}",
        condition="UNEXPECTED_MODEL_ANSWER",
        hint="check that embedding.model and embedding.endpoint_url name the same model family",
    )
