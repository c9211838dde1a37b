"""The Bedrock runtime client and its errors, for embedding and generation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from embeddings.outcomes import Refused, Throttled, Unanswered
from schemas.errors import ConfigurationError
from schemas.transport import is_this_machine

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime.client import BedrockRuntimeClient

    from embeddings.bedrock.config import BedrockConnection

THROTTLES = frozenset(
    {"ThrottlingException", "ServiceQuotaExceededException", "ServiceUnavailableException", "ModelNotReadyException"}
)
"""Errors that ask for a later retry (botocore's service model of bedrock-runtime)."""
SILENCES = frozenset({"InternalServerException", "ModelTimeoutException", "ModelErrorException"})
"""Errors of the model or its server."""
TOO_LARGE = "RequestEntityTooLargeException"
REFUSALS = frozenset({"ValidationException", TOO_LARGE})
_TOO_LONG = re.compile(
    r"too (many|long|large)|max\w*[ _-]?(input |context )?(token|length|size)|exceed|token limit", re.IGNORECASE
)
"""Models' messages on a text that is too long, such as "Too many input tokens. Max input tokens: 8192" and "expected maxLength:
2048, actual: 3900"."""


def open_client(config: BedrockConnection, connections: int) -> BedrockRuntimeClient:
    """Open a client with `connections` pooled connections, without botocore's retries: the caller has the one retry layer."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    settings: dict[str, Any] = {
        "connect_timeout": config.connect_timeout_seconds,
        "read_timeout": config.read_timeout_seconds,
        "max_pool_connections": connections,
        "retries": {"total_max_attempts": 1},
    }
    parts = urlsplit(config.endpoint_url or "")
    if parts.scheme == "http" and is_this_machine(parts.hostname or ""):
        # A local endpoint checks no signature, and botocore's search for credentials takes seconds where there are none.
        settings["signature_version"] = UNSIGNED
    return boto3.Session().client(
        "bedrock-runtime",
        region_name=config.region,
        endpoint_url=config.endpoint_url,
        aws_access_key_id=config.access_key,
        aws_secret_access_key=config.secret_key.get_secret_value() if config.secret_key else None,
        config=Config(**settings),
    )


@contextmanager
def bedrock_outcomes(config: BedrockConnection, part: str) -> Iterator[None]:
    """Turn botocore's exceptions into `embeddings.outcomes`, or into a ConfigurationError of `part`."""
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        raise _outcome(error.response, config, part) from None
    except (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        exceptions.CredentialRetrievalError,
    ) as error:
        raise Unanswered(type(error).__name__) from None
    except exceptions.BotoCoreError as error:
        raise _unusable(type(error).__name__, config, part) from None


def _outcome(response: Any, config: BedrockConnection, part: str) -> Exception:
    code = response["Error"]["Code"]
    answer = response.get("ResponseMetadata", {})
    status = answer.get("HTTPStatusCode", 0)
    if status == 429 or code in THROTTLES:
        return Throttled(code, _seconds(answer.get("HTTPHeaders", {}).get("retry-after")))
    if status >= 500 or code in SILENCES:
        return Unanswered(code)
    if code in REFUSALS:
        return Refused(code, code == TOO_LARGE or bool(_TOO_LONG.search(response["Error"].get("Message", ""))))
    return _unusable(code, config, part)


def _seconds(retry_after: str | None) -> float | None:
    """Read Retry-After in seconds; AWS does not use its other form, a date."""
    try:
        return float(retry_after) if retry_after is not None else None
    except ValueError:
        return None


def _unusable(code: str, config: BedrockConnection, part: str) -> ConfigurationError:
    return ConfigurationError(
        f"{part}: {config.model!r} cannot be used at {config.where}: {code}",
        condition=code.removesuffix("Exception"),
        hint=f"check {part}.model, {part}.region, the account's access to the model, and the right bedrock:InvokeModel",
    )
