"""The request and response bodies of the embedding containers that a SageMaker endpoint may run, with their own errors.

Which container answers is told by the endpoint's name: `tei-…`, `hf-…`, `jumpstart-…`. Sources: Text Embeddings Inference's
router, the handler of aws/sagemaker-huggingface-inference-toolkit (every error is 400), JumpStart's text embedding models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from local_stack.models.wire import ContainerError

TEI_MAX_TEXTS = 32
"""MAX_CLIENT_BATCH_SIZE."""
MAX_TOKENS = 512
"""Positions of a BERT."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _TeiBody(_Body):
    inputs: str | list[str]
    truncate: bool = False
    truncation_direction: Literal["left", "right"] = "right"
    normalize: bool = True
    prompt_name: str | None = None
    dimensions: int | None = None


class _HuggingFaceParameters(_Body):
    truncation: bool = False


class _HuggingFaceBody(_Body):
    inputs: str | list[str]
    parameters: _HuggingFaceParameters = _HuggingFaceParameters()


class _JumpStartBody(_Body):
    text_inputs: str | list[str]
    mode: Literal["embedding"] = "embedding"


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """A validated request: its texts, whether they are cut, and how their vectors are written down."""

    texts: list[str]
    too_long: Callable[[int], ContainerError]
    """The error of a text with so many tokens."""
    answer: Callable[[Sequence[Any]], Any]
    """Build the body from the vectors (or their faulty replacements)."""
    truncate: bool


def parse_container_request(endpoint: str, body: bytes) -> ContainerRequest | None:
    """Validate a request for an embedding container; None where the name tells of none."""
    match endpoint.partition("-")[0]:
        case "tei":
            parsed = _parsed(_TeiBody, body, 422)
            texts = _listed(parsed.inputs)
            if len(texts) > TEI_MAX_TEXTS:
                reason = f"batch size {len(texts)} > maximum allowed batch size {TEI_MAX_TEXTS}"
                raise ContainerError(422, reason, "Validation")
            if not all(texts):
                raise ContainerError(400, "`inputs` cannot be empty", "Empty")
            return ContainerRequest(texts, _tei_too_long, list, truncate=parsed.truncate)
        case "hf":
            asked = _parsed(_HuggingFaceBody, body, 400)
            return ContainerRequest(
                _listed(asked.inputs), _torch_too_long, _tokens, truncate=asked.parameters.truncation
            )
        case "jumpstart":
            text_inputs = _listed(_parsed(_JumpStartBody, body, 400).text_inputs)
            return ContainerRequest(
                text_inputs, _torch_too_long, lambda vectors: {"embedding": list(vectors)}, truncate=False
            )
        case _:
            return None


def _listed(inputs: str | list[str]) -> list[str]:
    return [inputs] if isinstance(inputs, str) else inputs


def _tei_too_long(tokens: int) -> ContainerError:
    return ContainerError(422, f"`inputs` must have less than {MAX_TOKENS} tokens. Given: {tokens}", "Validation")


def _torch_too_long(tokens: int) -> ContainerError:
    reason = (
        f"The size of tensor a ({tokens}) must match the size of tensor b ({MAX_TOKENS}) at non-singleton dimension 1"
    )
    return ContainerError(400, reason, "InternalServerException")


def _tokens(vectors: Sequence[Any]) -> list[Any]:
    """[1][tokens][dimensions] a text: three vectors whose mean is the text's own; a faulty one as it is."""
    answers: list[Any] = []
    for vector in vectors:
        if isinstance(vector, np.ndarray):
            aside = np.roll(vector, 1)
            answers.append([[vector + aside, vector - aside, vector]])
        else:
            answers.append([[vector]])
    return answers


def _parsed[Body: _Body](kind: type[Body], body: bytes, status: int) -> Body:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = "/".join(str(part) for part in first["loc"])
        raise ContainerError(status, f"{place}: {first['msg']}", "Validation") from None
