"""The configuration of a schema registry; it needs no client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from schemas.aws import AwsAccess
from schemas.transport import EncryptedPart, weak_url


class GlueRegistryConfig(AwsAccess):
    """AWS Glue Schema Registry, as its Kafka Connect converters write: the value names its schema version."""

    type: Literal["glue"]
    name: str = Field(default="default-registry", pattern=r"^[A-Za-z0-9_$#.-]{1,255}$")
    """Registry in which the connector of `ragstream capture` registers schemas; readers look each up by its id alone."""


class ConfluentRegistryConfig(EncryptedPart):
    """A registry with the REST API of Confluent's: Confluent's own, Karapace, Apicurio (`/apis/ccompat/v7`)."""

    type: Literal["confluent"]
    url: str = Field(pattern=r"^https?://[^@]+$")
    """Address of the registry's REST interface, without a user."""
    username: str | None = None
    """Of HTTP's basic authentication; Confluent Cloud's API key."""
    password: SecretStr | None = None

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        return self

    def weaknesses(self) -> Iterator[str]:
        """Tell an http:// address of another machine."""
        yield from weak_url("url", self.url)


RegistryConfig = Annotated[GlueRegistryConfig | ConfluentRegistryConfig, Field(discriminator="type")]
"""Every registry a source can name under `registry`."""
