"""The wire format of each Bedrock model family. Pure.

A further family is one codec class and one line of `CODECS`. Limits are those of AWS's page on each model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson

from embeddings.errors import ModelAnswerError
from embeddings.protocol import Purpose, Truncation
from embeddings.vectors import unit
from schemas.errors import ConfigurationError


class Codec(Protocol):
    """The wire format of one model family, and its limits."""

    @property
    def max_items(self) -> int:
        """The most texts of a request."""

    @property
    def max_chars(self) -> int:
        """The most characters of a text."""

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text, by the model's own count."""

    @property
    def dimensions(self) -> frozenset[int]:
        """The vector lengths that the model offers."""

    @property
    def normalisation(self) -> str:
        """`unit` if unit vectors are requested, `model` if the model decides."""

    def request(self, texts: Sequence[str], purpose: Purpose, dimensions: int, truncation: Truncation) -> bytes:
        """Write the request body for at most `max_items` texts."""

    def vectors(self, body: bytes) -> list[object]:
        """Read the values in place of vectors, in order, unchecked; raise `ModelAnswerError` for an answer without any."""


class TitanTextV2:
    """Amazon Titan Text Embeddings V2: one text a request, unit vectors in three sizes, no truncation of its own."""

    max_items = 1
    max_chars = 50_000
    max_tokens = 8_192
    dimensions = frozenset({256, 512, 1024})
    normalisation = "unit"

    def request(self, texts: Sequence[str], purpose: Purpose, dimensions: int, truncation: Truncation) -> bytes:
        """Write the request body; the model has neither purpose nor truncation."""
        del purpose, truncation
        (text,) = texts
        return json.dumps({"inputText": text, "dimensions": dimensions, "normalize": True}).encode()

    def vectors(self, body: bytes) -> list[object]:
        """Read the one vector, from `embeddingsByType` if present: `embedding` may then be absent."""
        answer = _object(body)
        by_type = answer.get("embeddingsByType")
        typed = by_type.get("float") if isinstance(by_type, Mapping) else None
        return [typed or answer.get("embedding")]


class TitanTextV1:
    """Amazon Titan Embeddings G1 Text: one text a request, one size; its vectors are scaled to unit length here."""

    max_items = 1
    max_chars = 50_000
    max_tokens = 8_192
    dimensions = frozenset({1536})
    normalisation = "unit"

    def request(self, texts: Sequence[str], purpose: Purpose, dimensions: int, truncation: Truncation) -> bytes:
        """Write the request body; the model has no settings."""
        del purpose, dimensions, truncation
        (text,) = texts
        return json.dumps({"inputText": text}).encode()

    def vectors(self, body: bytes) -> list[object]:
        """Read the one vector."""
        return [unit(_object(body).get("embedding"))]


class NovaMultimodal:
    """Amazon Nova Multimodal Embeddings, for text: one text a request, unit vectors in four sizes, a purpose for each use."""

    max_items = 1
    max_chars = 8_192
    max_tokens = 8_192
    dimensions = frozenset({256, 384, 1024, 3072})
    normalisation = "model"

    def request(self, texts: Sequence[str], purpose: Purpose, dimensions: int, truncation: Truncation) -> bytes:
        """Write the request body; questions look for text alone."""
        (text,) = texts
        mode = "END" if truncation is Truncation.END else "NONE"
        params = {
            "embeddingPurpose": "GENERIC_INDEX" if purpose is Purpose.DOCUMENT else "TEXT_RETRIEVAL",
            "embeddingDimension": dimensions,
            "text": {"truncationMode": mode, "value": text},
        }
        body = {"schemaVersion": "nova-multimodal-embed-v1", "taskType": "SINGLE_EMBEDDING"}
        return json.dumps(body | {"singleEmbeddingParams": params}).encode()

    def vectors(self, body: bytes) -> list[object]:
        """Read the one vector."""
        rows = _object(body).get("embeddings")
        if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
            raise _unexpected("no list of embeddings under `embeddings`")
        return [row.get("embedding") for row in rows]


class CohereEmbedV3:
    """Cohere Embed v3: up to 96 texts a request, a different encoding for documents and for queries."""

    max_items = 96
    max_chars = 2_048
    max_tokens = 512
    dimensions = frozenset({1024})
    normalisation = "model"

    def request(self, texts: Sequence[str], purpose: Purpose, dimensions: int, truncation: Truncation) -> bytes:
        """Write the request body; the model has one size."""
        del dimensions
        body = {
            "texts": list(texts),
            "input_type": f"search_{purpose}",
            "truncate": "END" if truncation is Truncation.END else "NONE",
        }
        return json.dumps(body).encode()

    def vectors(self, body: bytes) -> list[object]:
        """Read either form: a list of vectors, or one list a type."""
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
        """Write the request body, with the vector's length."""
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
    "amazon.titan-embed-text-v1": TitanTextV1(),
    "amazon.titan-embed-g1-text-02": TitanTextV1(),
    "amazon.nova-2-multimodal-embeddings": NovaMultimodal(),
    "cohere.embed-english-v3": CohereEmbedV3(),
    "cohere.embed-multilingual-v3": CohereEmbedV3(),
    "cohere.embed-v4": CohereEmbedV4(),
}
"""Codecs by the prefix of the model's id."""

_PROFILE_PREFIXES = frozenset({"us", "us-gov", "eu", "apac", "jp", "au", "ca", "global"})
"""Region prefixes of cross-region inference profile ids."""


def base_model_id(model: str) -> str:
    """Return the foundation model's id within an ARN or inference profile id; vectors depend on it, not on the route."""
    name = model.rsplit("/", 1)[-1]
    prefix, _, rest = name.partition(".")
    return rest if prefix in _PROFILE_PREFIXES else name


def codec_for(model: str) -> Codec:
    """Return the codec of a model id; raise `ConfigurationError` for an unknown family."""
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
