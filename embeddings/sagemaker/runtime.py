"""One request to a SageMaker endpoint, and its errors as outcomes, for embedding, generation and reranking."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from embeddings.clients import TOO_LONG, outcomes, retry_after, status_of
from embeddings.outcomes import Refused, Throttled, Unanswered
from embeddings.sagemaker.config import SageMakerConnection
from schemas.errors import ConfigurationError

MAX_BODY_BYTES = 6_291_456
"""Of a request and of an answer (botocore's service model of sagemaker-runtime)."""
MAX_TEXT_BYTES = 1_000_000
"""Text bytes packed into a request: JSON may write a byte of text as six."""

THROTTLES = frozenset({"ThrottlingException", "ServiceUnavailable", "ModelNotReadyException"})
SILENCES = frozenset({"InternalFailure", "InternalDependencyException", "ModelStreamError", "InternalStreamFailure"})
MODEL_ERROR = "ModelError"
"""The container's own error: `OriginalStatusCode` and `OriginalMessage` are what it answered."""
_CONTAINER_TOO_LONG = re.compile(
    r"must have less than|maximum context length|must match the size of tensor|index out of range|sequence length",
    re.IGNORECASE,
)
"""How containers word it: TEI's and TGI's validation, vLLM's, PyTorch's where a model has too few positions."""
_OVERLOADED = re.compile(r"out of memory|cuda error|overloaded", re.IGNORECASE)
"""Hugging Face's container answers 400 to every error of its handler, these too."""


def sagemaker_outcomes(config: SageMakerConnection, part: str) -> AbstractContextManager[None]:
    """Turn botocore's exceptions into `embeddings.outcomes`, or into a ConfigurationError of `part`."""
    unusable = partial(_unusable, config, part)
    return outcomes(partial(_outcome, unusable), unusable)


def request_to(config: SageMakerConnection, body: bytes) -> dict[str, Any]:
    """The arguments of InvokeEndpoint, and of InvokeEndpointWithResponseStream."""
    request = {"EndpointName": config.endpoint, "Body": body, "ContentType": "application/json"}
    return request | ({"InferenceComponentName": config.inference_component} if config.inference_component else {})


def _outcome(unusable: Any, response: Any) -> Exception:
    code, message = response["Error"]["Code"], response["Error"].get("Message", "")
    if code == MODEL_ERROR:
        return _of_container(response.get("OriginalStatusCode", 0), response.get("OriginalMessage", message))
    status = status_of(response)
    if status == 429 or code in THROTTLES:
        return Throttled(code, retry_after(response))
    if status >= 500 or code in SILENCES:
        return Unanswered(code)
    if status == 413 or (code == "ValidationError" and TOO_LONG.search(message)):
        return Refused(code, too_long=True)
    error: Exception = unusable(code)
    return error


def _of_container(status: int, message: str) -> Exception:
    condition = f"{MODEL_ERROR}{status}"
    if status in {429, 503}:
        return Throttled(condition)
    if status == 424 or status >= 500 or _OVERLOADED.search(message):
        return Unanswered(condition)
    return Refused(condition, bool(TOO_LONG.search(message) or _CONTAINER_TOO_LONG.search(message)) or status == 413)


def _unusable(config: SageMakerConnection, part: str, code: str) -> ConfigurationError:
    return ConfigurationError(
        f"{part}: {config.model!r} cannot be used at {config.where}: {code}",
        condition=code.removesuffix("Exception"),
        hint=f"check {part}.endpoint, {part}.region, that the endpoint is in service, and the right sagemaker:InvokeEndpoint",
    )
