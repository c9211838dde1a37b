"""Bedrock's errors as outcomes, for embedding, generation and reranking."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from embeddings.bedrock.config import BedrockConnection
from embeddings.clients import TOO_LONG, outcomes, retry_after, status_of
from embeddings.outcomes import Refused, Throttled, Unanswered
from schemas.errors import ConfigurationError

THROTTLES = frozenset(
    {"ThrottlingException", "ServiceQuotaExceededException", "ServiceUnavailableException", "ModelNotReadyException"}
)
"""Errors that ask for a later retry (botocore's service models of bedrock-runtime and bedrock-agent-runtime)."""
SILENCES = frozenset(
    {
        "InternalServerException", "ModelTimeoutException", "ModelErrorException", "ModelStreamErrorException",
        "BadGatewayException", "DependencyFailedException", "ConflictException",
    }
)  # fmt: skip
"""Errors of the model or its server."""
TOO_LARGE = "RequestEntityTooLargeException"
REFUSALS = frozenset({"ValidationException", TOO_LARGE})


def bedrock_outcomes(config: BedrockConnection, part: str) -> AbstractContextManager[None]:
    """Turn botocore's exceptions into `embeddings.outcomes`, or into a ConfigurationError of `part`."""
    unusable = partial(_unusable, config, part)
    return outcomes(partial(_outcome, unusable), unusable)


def _outcome(unusable: Any, response: Any) -> Exception:
    code = response["Error"]["Code"]
    code = code[:1].upper() + code[1:]  # within a stream an error is named by its member
    status = status_of(response)
    if status == 429 or code in THROTTLES:
        return Throttled(code, retry_after(response))
    if status >= 500 or code in SILENCES:
        return Unanswered(code)
    if code in REFUSALS:
        return Refused(code, code == TOO_LARGE or bool(TOO_LONG.search(response["Error"].get("Message", ""))))
    error: Exception = unusable(code)
    return error


def _unusable(config: BedrockConnection, part: str, code: str) -> ConfigurationError:
    return ConfigurationError(
        f"{part}: {config.model!r} cannot be used at {config.where}: {code}",
        condition=code.removesuffix("Exception"),
        hint=f"check {part}.model, {part}.region, the account's access to the model, and the right bedrock:InvokeModel",
    )
