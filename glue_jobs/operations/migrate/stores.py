"""The stores of a pipeline as a migration sees them: opened, their index versions, and what an operator should know of them."""

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


def opened(config: PipelineConfig, sink: SinkConfig) -> Sink:
    """Open a store by the model that the configuration names; nothing is connected yet."""
    own = open_embedder(own_model(config))
    return open_sink(sink, own.fingerprint, own.dimensions)


def own_model(config: PipelineConfig) -> EmbeddingConfig:
    """The model that the configuration names."""
    assert config.embedding is not None  # noqa: S101 - the command looked
    return config.embedding


def known_of(store: VersionedStore) -> IndexVersions:
    """The index versions of a store that is there; raise ConfigurationError where there is none."""
    known = store.index_versions()
    if known is None:
        raise ConfigurationError(
            f"sink {store.name}: there is no store yet, so there is nothing to move", condition="STORE_EMPTY",
            hint="configure the model you want, then `ragstream run`",
        )  # fmt: skip
    return known


def outdated_note(config: PipelineConfig, sink: SinkConfig, path: str) -> str | None:
    """What was made by another template; None where nothing was, or where there is no store yet."""
    with closing(opened(config, sink)) as store:
        found = outdated(config, store) if store.index_versions() is not None else None
    return found.sentence(path, sink.name) if found else None


def note_of(config: PipelineConfig, sink: SinkConfig) -> str | None:
    """What an operator should change since a store was moved, or is being moved; None where nothing is to be."""
    with closing(opened(config, sink)) as store:
        known, own = store.index_versions(), open_embedder(own_model(config)).fingerprint
    if known is None or len(known.every) == 1:
        return None
    if known.active.fingerprint != own:
        return f"readers use {known.active.fingerprint}: set `embedding` to it, unless you go back by `migrate --back`"
    if any(each.state in UNDER_WAY for each in known.every):
        return "an index version is being filled: `migrate --to` its model goes on, `migrate --back` gives it up"
    return "another index version is kept and written: `migrate --collect` drops it"
