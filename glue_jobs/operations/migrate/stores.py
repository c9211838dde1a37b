"""The stores of a pipeline in a migration: opening them, their index versions, and notes for the operator."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from embeddings import open_embedder
from glue_jobs.status.outdated import outdated
from schemas.errors import ConfigurationError
from sinks import open_sink
from sinks.versions import UNDER_WAY

if TYPE_CHECKING:
    from embeddings import EmbeddingConfig
    from glue_jobs.config.pipeline import PipelineConfig
    from sinks import SinkConfig
    from sinks.protocol import Sink, VersionedStore
    from sinks.versions import IndexVersions


def open_store(config: PipelineConfig, sink: SinkConfig) -> Sink:
    """Open a store for the configured model; nothing is connected yet."""
    own = open_embedder(configured_model(config))
    return open_sink(sink, own.fingerprint, own.dimensions)


def configured_model(config: PipelineConfig) -> EmbeddingConfig:
    """The configured model."""
    assert config.embedding is not None  # noqa: S101 - the command looked
    return config.embedding


def index_versions_of(store: VersionedStore) -> IndexVersions:
    """The index versions of a store; raises ConfigurationError where the store does not exist."""
    versions = store.index_versions()
    if versions is None:
        raise ConfigurationError(
            f"sink {store.name}: there is no store yet, so there is nothing to move", condition="STORE_EMPTY",
            hint="configure the model you want, then `ragstream run`",
        )  # fmt: skip
    return versions


def outdated_note(config: PipelineConfig, sink: SinkConfig, path: str) -> str | None:
    """The note on a store's outdated documents; None where there are none, or no store yet."""
    with closing(open_store(config, sink)) as store:
        documents = outdated(config, store) if store.index_versions() is not None else None
    return documents.sentence(path, sink.name) if documents else None


def migration_note(config: PipelineConfig, sink: SinkConfig) -> str | None:
    """The note on the operator's next step of a migration; None where there is none."""
    with closing(open_store(config, sink)) as store:
        versions, own = store.index_versions(), open_embedder(configured_model(config)).fingerprint
    if versions is None or len(versions.every) == 1:
        return None
    if versions.active.fingerprint != own:
        return f"readers use {versions.active.fingerprint}: set `embedding` to it, or roll back by `migrate --back`"
    if any(version.state in UNDER_WAY for version in versions.every):
        return "an index version is being filled: `migrate --to` its model resumes, `migrate --back` cancels it"
    return "another index version is kept and written: `migrate --collect` drops it"
