"""After a migration: rollback, cancellation, and dropping inactive index versions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

from embeddings import open_embedder
from embeddings.registry import config_of
from glue_jobs.operations.migrate.stores import configured_model, index_versions_of, open_store
from schemas.errors import ConfigurationError
from sinks.versions import UNDER_WAY, IndexVersions, State

if TYPE_CHECKING:
    from embeddings import EmbeddingConfig
    from glue_jobs.config.pipeline import PipelineConfig
    from glue_jobs.operations.migrate.steps import Step
    from sinks import SinkConfig

GRACE_SECONDS = 5.0
"""The drain period between marking an index version for writers and dropping it: work units in flight usually end in it."""


def rollback_target(config: PipelineConfig, sink: SinkConfig) -> EmbeddingConfig | None:
    """The model that `--back` rolls back to, that of the newest inactive index version; None to cancel a migration instead."""
    with closing(open_store(config, sink)) as store:
        versions = index_versions_of(store)
    if any(version.state in UNDER_WAY for version in versions.every):
        return None
    inactive = [version for version in versions.every if version.number != versions.active_number]
    ready = [version for version in inactive if version.state == "ready"]
    if not ready:
        raise ConfigurationError(
            f"sink {sink.name}: there is no index version to go back to", condition="NOTHING_KEPT",
            hint="it was collected, or the store was never migrated; `ragstream migrate --to MODEL` makes one anew",
        )  # fmt: skip
    return config_of(ready[-1], configured_model(config))


def cancel(config: PipelineConfig, sinks: Sequence[SinkConfig]) -> dict[str, list[int]]:
    """Drop index versions that are not ready; as `collect`."""
    return _remove(config, sinks, UNDER_WAY, lambda *_: None)


def collect(
    config: PipelineConfig, sinks: Sequence[SinkConfig], on_step: Step = lambda *_: None
) -> dict[str, list[int]]:
    """Drop the ready index versions beside the active ones; returns their numbers by store.

    They are marked for writers of every store first. Run again after a kill, it drops the rest.
    """
    return _remove(config, sinks, frozenset({"ready"}), on_step)


def _remove(
    config: PipelineConfig, sinks: Sequence[SinkConfig], states: frozenset[State], on_step: Step
) -> dict[str, list[int]]:
    def mark_dropping(versions: IndexVersions) -> IndexVersions:
        for version in versions.every:
            versions = versions.reached(version.fingerprint, "dropping") if version.state in states else versions
        return versions

    numbers: dict[str, list[int]] = {}
    with ExitStack() as opened:
        stores = [opened.enter_context(closing(open_store(config, sink))) for sink in sinks]
        for store in stores:
            index_versions_of(store)
            versions = store.change_index_versions(mark_dropping)
            numbers[store.name] = [version.number for version in versions.every if version.state == "dropping"]
            if numbers[store.name]:
                on_step(store.name, "dropping")
        if any(numbers.values()):
            time.sleep(GRACE_SECONDS)
        for store in stores:
            for number in numbers[store.name]:
                store.drop(number)
                on_step(store.name, "dropped")
                store.change_index_versions(partial(IndexVersions.without, number=number))
    return numbers


def refuse_collect(config: PipelineConfig, sink: SinkConfig) -> None:
    """Raise ConfigurationError where the configured model is not the active one."""
    with closing(open_store(config, sink)) as store:
        active, own = index_versions_of(store).active, open_embedder(configured_model(config)).fingerprint
    if active.fingerprint != own:
        raise ConfigurationError(
            f"embedding: the configuration names {own}, but readers of {sink.name} use {active.fingerprint}",
            condition="OLD_MODEL_CONFIGURED",
            hint="set `embedding` to the model that readers use, start the jobs again with it, then collect",
        )
