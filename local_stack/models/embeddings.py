"""The request and response bodies of Bedrock's embedding models, with the models' own errors.

Limits and messages follow the model pages of Titan Text Embeddings G1 and V2, Nova Multimodal Embeddings, Cohere Embed v3 and v4;
tokens are those of the local model's own tokenizer.
The 384 dimensions of the model behind are zero-padded to those asked for, which keeps every cosine; Titan's 256 are an
orthonormal projection, which moves a cosine by about 0.03 (one standard deviation).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from embeddings.protocol import Vector
from local_stack.models.wire import WireError, malformed

TITAN_MAX_CHARS = 50_000
TITAN_V1_DIMENSIONS = 1_536
TITAN_V1_LENGTH = np.float32(7)
"""About as long as the model's vectors are, which are not of unit length."""
COHERE_MAX_CHARS = 2_048
COHERE_V4_MAX_CHARS = 400_000
COHERE_MAX_TEXTS = 96
COHERE_DIMENSIONS = 1_024
TITAN_MAX_TOKENS = 8_192
COHERE_MAX_TOKENS = 512
COHERE_V4_MAX_TOKENS = 128_000


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A validated request: the texts to encode and how to write their vectors down."""

    texts: Sequence[str]
    dimensions: int
    max_tokens: int | None
    """Tokens a text may have; None where the model cuts the rest off."""
    answer: Callable[[Sequence[Any], int], dict[str, Any]]
    """Build the response body from the vectors (or their faulty replacements) and the number of tokens."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _TitanBody(_Body):
    inputText: str  # noqa: N815 - the provider's name
    dimensions: Literal[256, 512, 1024] = 1024
    normalize: bool = True
    embeddingTypes: list[Literal["float"]] = ["float"]  # noqa: N815 - the provider's name


class _TitanV1Body(_Body):
    inputText: str  # noqa: N815 - the provider's name


class _NovaText(_Body):
    truncationMode: Literal["START", "END", "NONE"]  # noqa: N815 - the provider's name
    value: str


class _NovaParams(_Body):
    embeddingPurpose: Literal["GENERIC_INDEX", "GENERIC_RETRIEVAL", "TEXT_RETRIEVAL"]  # noqa: N815 - the provider's name
    embeddingDimension: Literal[256, 384, 1024, 3072] = 3072  # noqa: N815 - the provider's name
    text: _NovaText


class _NovaBody(_Body):
    schemaVersion: Literal["nova-multimodal-embed-v1"]  # noqa: N815 - the provider's name
    taskType: Literal["SINGLE_EMBEDDING"]  # noqa: N815 - the provider's name
    singleEmbeddingParams: _NovaParams  # noqa: N815 - the provider's name


class _CohereBody(_Body):
    texts: list[str]
    input_type: Literal["search_document", "search_query", "classification", "clustering"]
    truncate: Literal["NONE", "START", "END"] = "NONE"
    embedding_types: list[Literal["float"]] | None = None


class _CohereV4Body(_Body):
    texts: list[str]
    input_type: Literal["search_document", "search_query", "classification", "clustering"]
    truncate: Literal["NONE", "LEFT", "RIGHT"] = "NONE"
    embedding_types: list[Literal["float"]] | None = None
    output_dimension: Literal[512, 1024, 1536] = 1536  # 256 would need a projection: not worth one here


def parse_embedding_request(model_id: str, body: bytes) -> EmbeddingRequest | None:
    """Validate a request for an embedding model.

    Returns None when the id names no embedding model. Raises WireError as the model itself would.
    """
    name = base_model_id(model_id)
    if name == "amazon.titan-embed-text-v2:0":
        return _titan(_parsed(_TitanBody, body))
    if name == "amazon.titan-embed-text-v1":
        return _titan_v1(_parsed(_TitanV1Body, body))
    if name == "amazon.nova-2-multimodal-embeddings-v1:0":
        return _nova(_parsed(_NovaBody, body).singleEmbeddingParams)
    if name in {"cohere.embed-english-v3", "cohere.embed-multilingual-v3"}:
        return _cohere(_parsed(_CohereBody, body), COHERE_DIMENSIONS, COHERE_MAX_CHARS, COHERE_MAX_TOKENS)
    if name == "cohere.embed-v4:0":
        v4 = _parsed(_CohereV4Body, body)
        return _cohere(v4, v4.output_dimension, COHERE_V4_MAX_CHARS, COHERE_V4_MAX_TOKENS)
    return None


def base_model_id(model_id: str) -> str:
    """Return the foundation model's id within an ARN or a cross-region inference profile."""
    name = model_id.rsplit("/", 1)[-1]
    region, _, rest = name.partition(".")
    return rest if region in {"us", "eu", "apac", "global"} else name


def _titan(body: _TitanBody) -> EmbeddingRequest:
    text = _titan_text(body.inputText)

    def answer(vectors: Sequence[Any], tokens: int) -> dict[str, Any]:
        fields = {"embedding": vectors[0], "embeddingsByType": {"float": vectors[0]}} if vectors else {}
        return fields | {"inputTextTokenCount": tokens}

    return EmbeddingRequest([text], body.dimensions, TITAN_MAX_TOKENS, answer)


def _titan_text(text: str) -> str:
    if not text:
        raise malformed("expected minLength: 1, actual: 0")
    if len(text) > TITAN_MAX_CHARS:
        raise malformed(f"expected maxLength: {TITAN_MAX_CHARS}, actual: {len(text)}")
    return text


def _titan_v1(body: _TitanV1Body) -> EmbeddingRequest:
    text = _titan_text(body.inputText)

    def answer(vectors: Sequence[Any], tokens: int) -> dict[str, Any]:
        longer = [vector * TITAN_V1_LENGTH if isinstance(vector, np.ndarray) else vector for vector in vectors]
        return {"embedding": longer[0] if longer else None, "inputTextTokenCount": tokens}

    return EmbeddingRequest([text], TITAN_V1_DIMENSIONS, TITAN_MAX_TOKENS, answer)


def _nova(params: _NovaParams) -> EmbeddingRequest:
    text = params.text.value
    if not text or len(text) > TITAN_MAX_CHARS:
        raise malformed(f"expected length: 1 to {TITAN_MAX_CHARS}, actual: {len(text)}")

    def answer(vectors: Sequence[Any], _: int) -> dict[str, Any]:
        return {"embeddings": [{"embeddingType": "TEXT", "embedding": vector} for vector in vectors]}

    limit = TITAN_MAX_TOKENS if params.text.truncationMode == "NONE" else None
    return EmbeddingRequest([text], params.embeddingDimension, limit, answer)


def too_many_tokens(limit: int, tokens: int) -> WireError:
    """Build Titan's error for a text of too many tokens."""
    reason = f"Too many input tokens. Max input tokens: {limit}, request input token count: {tokens} "
    return WireError("ValidationException", f"400 Bad Request: {reason}")


def _cohere(body: _CohereBody | _CohereV4Body, dimensions: int, max_chars: int, max_tokens: int) -> EmbeddingRequest:
    if not 1 <= len(body.texts) <= COHERE_MAX_TEXTS:
        raise malformed(f"#/texts: expected maximum item count: {COHERE_MAX_TEXTS}, found: {len(body.texts)}")
    for index, text in enumerate(body.texts):
        if not text.strip():
            raise malformed(f"#/texts/{index}: expected minLength: 1, actual: 0")
        if len(text) > max_chars:
            raise malformed(f"#/texts/{index}: expected maxLength: {max_chars}, actual: {len(text)}")

    def answer(vectors: Sequence[Any], _: int) -> dict[str, Any]:
        floats = list(vectors)
        if body.embedding_types is None:
            return {"id": "local", "texts": body.texts, "embeddings": floats, "response_type": "embeddings_floats"}
        typed = {"float": floats}
        return {"id": "local", "texts": body.texts, "embeddings": typed, "response_type": "embeddings_by_type"}

    return EmbeddingRequest(body.texts, dimensions, max_tokens if body.truncate == "NONE" else None, answer)


def _parsed[Body: _Body](kind: type[Body], body: bytes) -> Body:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = "/".join(str(part) for part in first["loc"])
        raise malformed(f"#/{place}: {first['msg']}") from None


def resized(vector: Vector, dimensions: int) -> Vector:
    """Return the unit vector in more dimensions (zeros added) or fewer (projected and normalised again)."""
    native = len(vector)
    if dimensions < native:
        shorter: Vector = vector @ _projection(native, dimensions)
        unit: Vector = shorter / np.linalg.norm(shorter)
        return unit
    padded = np.zeros(dimensions, np.float32)
    padded[:native] = vector
    return padded


@functools.cache
def _projection(native: int, dimensions: int) -> Vector:
    gaussian = np.random.Generator(np.random.PCG64(0)).standard_normal((native, dimensions))
    orthonormal: Vector = np.linalg.qr(gaussian)[0].astype(np.float32)
    return orthonormal
