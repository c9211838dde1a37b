"""An embedding model's configuration as a store remembers it, without secrets, so that others than its own pipeline find it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from embeddings import Embedder, EmbeddingConfig, open_embedder
from schemas.errors import ConfigurationError

_SECRETS = ("access_key", "secret_key")
"""Never remembered: whoever uses a model does so by rights of its own."""
_ADAPTER: TypeAdapter[EmbeddingConfig] = TypeAdapter(EmbeddingConfig)


class Remembered(Protocol):
    """What a store tells of a model that fills it."""

    @property
    def fingerprint(self) -> str:
        """The model's identity."""
        ...

    @property
    def embedding(self) -> Mapping[str, Any] | None:
        """Its configuration without secrets, where the store knows it."""
        ...


def remembered(config: EmbeddingConfig) -> dict[str, Any]:
    """A configuration as plain JSON without secrets."""
    return config.model_dump(mode="json", exclude=set(_SECRETS), exclude_defaults=True) | {"type": config.type}


def recalled(told: Mapping[str, Any], own: EmbeddingConfig) -> EmbeddingConfig:
    """A remembered configuration, with the secrets of the configuration that the caller runs with.

    Raises:
        ConfigurationError: it is of a release that this one does not understand.
    """
    known = {name: getattr(own, name) for name in _SECRETS if getattr(own, name, None) is not None}
    try:
        return _ADAPTER.validate_python(dict(told) | (known if told.get("type") == own.type else {}))
    except ValidationError:
        raise ConfigurationError(
            "the store tells of an embedding model that this release cannot use", condition="MODEL_UNKNOWN",
            hint="run the release of ragstream that migrated the store, or a newer one",
        ) from None  # fmt: skip


def config_of(told: Remembered, own: EmbeddingConfig) -> EmbeddingConfig:
    """The configuration of a model that a store tells of: the caller's own where that is the one.

    Raises:
        ConfigurationError: the store does not know it.
    """
    if open_embedder(own).fingerprint == told.fingerprint:
        return own
    if told.embedding is None:
        raise ConfigurationError(
            f"the store was filled by another model ({told.fingerprint}) than the pipeline's", condition="OTHER_MODEL",
            hint="configure that model under `embedding`, then move the store by `ragstream migrate CONFIG --to MODEL`",
        )  # fmt: skip
    return recalled(told.embedding, own)


def embedder_of(told: Remembered, own: EmbeddingConfig) -> Embedder:
    """Open the model that fills a store, or one of its index versions."""
    return open_embedder(config_of(told, own))
