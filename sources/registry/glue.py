"""AWS Glue Schema Registry: a schema version by its id (GetSchemaVersion)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from schemas.errors import ConfigurationError, UnavailableError
from sources.registry.config import GlueRegistryConfig
from transforms.envelopes.registry import RegisteredSchema

_TIMEOUT_SECONDS = 5.0
_ATTEMPTS = 3
_REFUSED = frozenset(
    {
        "AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException",
        "InvalidClientTokenId", "SignatureDoesNotMatch",
    }
)  # fmt: skip


def fetch(config: GlueRegistryConfig, name: str) -> RegisteredSchema | None:
    """A schema version; None where there is none.

    Raises ConfigurationError where AWS refuses the request, UnavailableError where it does not answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        version = _client(config).get_schema_version(SchemaVersionId=name)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code == "EntityNotFoundException":
            return None
        if code in _REFUSED:
            raise ConfigurationError(
                f"registry: AWS Glue refuses GetSchemaVersion ({code})",
                condition="REGISTRY_REFUSES",
                hint="give the role glue:GetSchemaVersion on the registry and its schemas (docs/glue.md)",
            ) from None
        raise _unavailable(code) from None
    except BotoCoreError as error:
        raise _unavailable(type(error).__name__) from None
    return RegisteredSchema(str(version["DataFormat"]), str(version["SchemaDefinition"]))


@lru_cache(maxsize=16)
def _client(config: GlueRegistryConfig) -> Any:
    """One client for all threads of a process: boto3's clients may be shared."""
    import boto3
    from botocore.config import Config

    retries: Any = {"total_max_attempts": _ATTEMPTS, "mode": "standard"}
    settings = Config(connect_timeout=_TIMEOUT_SECONDS, read_timeout=_TIMEOUT_SECONDS, retries=retries)
    return boto3.client("glue", config=settings, **config.client_options())


def _unavailable(reason: str) -> UnavailableError:
    return UnavailableError(
        f"registry: AWS Glue Schema Registry does not answer ({reason})",
        hint="check the Region and the network route to AWS Glue (an interface endpoint `glue` in a subnet without NAT)",
    )
