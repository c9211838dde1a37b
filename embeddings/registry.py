"""The model registry: a store has the configuration of its embedding model, without secrets, for any pipeline to open it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from embeddings import Embedder, EmbeddingConfig, open_embedder
from schemas.errors import ConfigurationError

_SECRETS = ("access_key", "secret_key", "budget")
"""Never stored: each user of a model has its own credentials, and its own budget."""
_ADAPTER: TypeAdapter[EmbeddingConfig] = TypeAdapter(EmbeddingConfig)


class RegisteredModel(Protocol):
    """A model in the registry of a store."""

    @property
    def fingerprint(self) -> str:
        """The model's identity."""

    @property
    def embedding(self) -> Mapping[str, Any] | None:
        """Its configuration without secrets; None before a first migration."""


def registry_entry(config: EmbeddingConfig) -> dict[str, Any]:
    """The stored JSON value of a configuration."""
    return config.model_dump(mode="json", exclude=set(_SECRETS), exclude_defaults=True) | {"type": config.type}


def config_of(model: RegisteredModel, own: EmbeddingConfig) -> EmbeddingConfig:
    """The configuration of a registered model: the caller's if it is that model, else the stored one with the caller's secrets.

    Raises:
        ConfigurationError: no configuration is stored, or this release cannot read it.
    """
    if open_embedder(own).fingerprint == model.fingerprint:
        return own
    if model.embedding is None:
        raise ConfigurationError(
            f"the store was filled by another model ({model.fingerprint}) than the pipeline's", condition="OTHER_MODEL",
            hint="configure that model under `embedding`, then move the store by `ragstream migrate CONFIG --to MODEL`",
        )  # fmt: skip
    secrets = {name: getattr(own, name) for name in _SECRETS if getattr(own, name, None) is not None}
    try:
        return _ADAPTER.validate_python(
            dict(model.embedding) | (secrets if model.embedding.get("type") == own.type else {})
        )
    except ValidationError:
        raise ConfigurationError(
            "the store tells of an embedding model that this release cannot use", condition="MODEL_UNKNOWN",
            hint="run the release of ragstream that migrated the store, or a newer one",
        ) from None  # fmt: skip


def embedder_of(model: RegisteredModel, own: EmbeddingConfig) -> Embedder:
    """Open a registered model; raises as `config_of`."""
    return open_embedder(config_of(model, own))
