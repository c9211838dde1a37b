"""Ownership of stores and the warehouse: each records its pipeline and lake, and refuses any other."""

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
    """This pipeline with the id of its lake."""
    return Owner(config.name, lake_id(config.lake.path))


def adopt(config: PipelineConfig, part: str) -> Owner | None:
    """Make this pipeline the owner of a store or the warehouse; returns the previous owner. Creates the lake if missing.

    Idempotent. A running job of the previous owner continues until its next start, which is refused.

    Raises:
        ConfigurationError: the configuration has no such part, the store does not exist, or the lake is not the checkpoint's.
    """
    from glue_jobs.storage import lake_mark
    from lake.landing.batch import create_tables
    from lake.layout import LakeLayout

    sink = next((candidate for candidate in config.sinks if candidate.name == part), None)
    if (sink is None or config.embedding is None) and (part != "warehouse" or config.warehouse is None):
        names = [candidate.name for candidate in config.sinks] + ["warehouse"] * (config.warehouse is not None)
        raise ConfigurationError(
            f"there is no part {part!r} that has an owner",
            condition="STORE_UNKNOWN",
            hint=f"It has {', '.join(names) or 'none'}.",
        )
    lake_mark.check(config)
    create_tables(LakeLayout(config.lake.path))
    owner = owner_of(config)
    if sink is None:
        return _adopt_warehouse(config, owner)
    assert config.embedding is not None  # noqa: S101 - looked at above
    embedder = open_embedder(config.embedding)
    with closing(open_sink(sink, embedder.fingerprint, embedder.dimensions)) as store:
        if store.index_versions() is None:
            raise ConfigurationError(
                f"sink {part}: there is no store yet, so there is nothing to adopt", condition="STORE_EMPTY",
                hint="run `ragstream run`; it makes the store this pipeline's",
            )  # fmt: skip
        previous = store.owner()
        store.claim(owner, previous)
        return previous


def _adopt_warehouse(config: PipelineConfig, owner: Owner) -> Owner | None:
    from warehouse.checks import owner_of as stored_owner
    from warehouse.clients import open_client
    from warehouse.loader import claimed, prepare
    from warehouse.sql import Registry

    assert config.warehouse is not None  # noqa: S101 - the caller looked
    registry = Registry(config.warehouse.schema_name)
    with closing(open_client(config.warehouse)) as client:
        previous = stored_owner(client, registry)
        prepare(client, registry)
        claimed(client, registry, owner, previous)
        return previous
