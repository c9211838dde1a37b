"""Whose the stores are: this pipeline as they remember it, and how they come to be its own."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from embeddings import open_embedder
from lake.identity import lake_id
from schemas.errors import ConfigurationError
from schemas.ownership import Owner
from sinks import open_sink

if TYPE_CHECKING:
    from glue_jobs.config.pipeline import PipelineConfig


def owner_of(config: PipelineConfig) -> Owner:
    """The pipeline with its lake as it is now."""
    return Owner(config.name, lake_id(config.lake.path))


def adopt(config: PipelineConfig, part: str) -> Owner | None:
    """Make a store, or the warehouse, this pipeline's, whosever it was; gives whose. The lake is created where it is missing.

    Done again it changes nothing. A job of the pipeline before goes on until it is started again: then it is refused.

    Raises:
        ConfigurationError: the configuration has no such part, nothing stands there that could be adopted, or the lake is not
            the checkpoint's: it may be found again.
    """
    from glue_jobs.storage import lake_mark
    from lake.landing.batch import create_tables
    from lake.layout import LakeLayout

    sink = next((each for each in config.sinks if each.name == part), None)
    if (sink is None or config.embedding is None) and (part != "warehouse" or config.warehouse is None):
        names = [each.name for each in config.sinks] + ["warehouse"] * (config.warehouse is not None)
        raise ConfigurationError(
            f"there is no part {part!r} that has an owner",
            condition="STORE_UNKNOWN",
            hint=f"It has {', '.join(names) or 'none'}.",
        )
    lake_mark.confirm(config)
    create_tables(LakeLayout(config.lake.path))
    mine = owner_of(config)
    if sink is None:
        return _adopt_warehouse(config, mine)
    assert config.embedding is not None  # noqa: S101 - looked at above
    embedder = open_embedder(config.embedding)
    with closing(open_sink(sink, embedder.fingerprint, embedder.dimensions)) as store:
        if store.index_versions() is None:
            raise ConfigurationError(
                f"sink {part}: there is no store yet, so there is nothing to adopt", condition="STORE_EMPTY",
                hint="run `ragstream run`; it makes the store this pipeline's",
            )  # fmt: skip
        held = store.owner()
        store.claim(mine, held)
        return held


def _adopt_warehouse(config: PipelineConfig, mine: Owner) -> Owner | None:
    from warehouse.checks import owner_of as held_by
    from warehouse.clients import open_client
    from warehouse.loader import claimed, prepare
    from warehouse.sql import Registry

    assert config.warehouse is not None  # noqa: S101 - the caller looked
    registry = Registry(config.warehouse.schema_name)
    with closing(open_client(config.warehouse)) as client:
        held = held_by(client, registry)
        prepare(client, registry)
        claimed(client, registry, mine, held)
        return held
