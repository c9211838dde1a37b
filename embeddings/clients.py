"""The clients of AWS services that run models, and botocore's errors as outcomes, for embedding, generation and reranking."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from embeddings.connection import AwsConnection
from embeddings.outcomes import Unanswered
from schemas.aws import AwsAccess
from schemas.transport import is_this_machine

TOO_LONG = re.compile(
    r"too (many|long|large)|max\w*[ _-]?(input |context )?(token|length|size)|exceed|token limit", re.IGNORECASE
)
"""Models' messages on a text that is too long, such as "Too many input tokens. Max input tokens: 8192" and "expected maxLength:
2048, actual: 3900"."""


def open_client(config: AwsConnection, service: str, connections: int) -> Any:
    """Open a client with `connections` pooled connections, without botocore's retries: the caller has the one retry layer."""
    from botocore import UNSIGNED

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
    return client_of(config, service, settings)


def client_of(config: AwsAccess, service: str, settings: Mapping[str, Any]) -> Any:
    """Open a client where a configuration says, with settings of botocore's `Config`."""
    import boto3
    from botocore.config import Config

    session: Any = boto3.Session()  # its overloads want the service's name as a literal
    return session.client(service, config=Config(**settings), **config.client_options())


@contextmanager
def outcomes(of_response: Callable[[Any], Exception], unusable: Callable[[str], Exception]) -> Iterator[None]:
    """Turn botocore's exceptions into `embeddings.outcomes`.

    `of_response` judges a service's error answer, `unusable` makes the error of a request that botocore itself does not send.
    """
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        raise of_response(error.response) from None
    except (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        exceptions.CredentialRetrievalError,
    ) as error:
        raise Unanswered(type(error).__name__) from None
    except exceptions.BotoCoreError as error:
        raise unusable(type(error).__name__) from None


def status_of(response: Any) -> int:
    """The HTTP status of an error answer, 0 for an error within a stream."""
    status: int = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status


def retry_after(response: Any) -> float | None:
    """Read Retry-After in seconds; AWS does not use its other form, a date."""
    named = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after")
    try:
        return float(named) if named is not None else None
    except ValueError:
        return None
