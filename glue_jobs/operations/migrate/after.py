"""What follows a migration: the way back, giving one up, and dropping what readers do not use any more."""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from embeddings import open_embedder
from embeddings.registry import config_of
from glue_jobs.operations.migrate.stores import known_of, opened, own_model
from schemas.errors import ConfigurationError
from sinks.versions import UNDER_WAY, IndexVersions, State

if TYPE_CHECKING:
    from embeddings import EmbeddingConfig
    from glue_jobs.config.pipeline import PipelineConfig
    from glue_jobs.operations.migrate.steps import Step
    from sinks import SinkConfig

GRACE_SECONDS = 5.0
"""From telling writers that an index version goes to dropping it: a piece of work that began before ends in peace, as a rule."""


def target_of(config: PipelineConfig, sink: SinkConfig) -> EmbeddingConfig | None:
    """Where `--back` leads: the model of the newest index version that is kept; None where one that fills is to be given up."""
    with closing(opened(config, sink)) as store:
        known = known_of(store)
    if any(each.state in UNDER_WAY for each in known.every):
        return None
    kept = [each for each in known.every if each.state == "ready" and each.number != known.active_number]
    if not kept:
        raise ConfigurationError(
            f"sink {sink.name}: there is no index version to go back to", condition="NOTHING_KEPT",
            hint="it was collected, or the store was never migrated; `ragstream migrate --to MODEL` makes one anew",
        )  # fmt: skip
    return config_of(kept[-1], own_model(config))


def give_up(config: PipelineConfig, sink: SinkConfig, on_step: Step = lambda *_: None) -> list[int]:
    """Drop index versions that are not filled yet; as `collect`."""
    return _remove(config, sink, UNDER_WAY, on_step)


def collect(config: PipelineConfig, sink: SinkConfig, on_step: Step = lambda *_: None) -> list[int]:
    """Drop the index versions that are kept beside the one that readers use; their numbers.

    Writers are told first. Run again after a kill, it drops what is left.
    """
    return _remove(config, sink, frozenset({"ready"}), on_step)


def _remove(config: PipelineConfig, sink: SinkConfig, states: frozenset[State], on_step: Step) -> list[int]:
    def told(held: IndexVersions) -> IndexVersions:
        for each in held.every:
            held = held.reached(each.fingerprint, "dropping") if each.state in states else held
        return held

    with closing(opened(config, sink)) as store:
        known_of(store)
        known = store.change_index_versions(told)
        gone = [each.number for each in known.every if each.state == "dropping"]
        if gone:
            on_step(sink.name, "dropping")
            time.sleep(GRACE_SECONDS)
        for number in gone:
            store.drop(number)
            on_step(sink.name, "dropped")
            store.change_index_versions(partial(IndexVersions.without, number=number))
    return gone


def refuse_collect(config: PipelineConfig, sink: SinkConfig) -> None:
    """Raise ConfigurationError where the configuration names a model that would be gone."""
    with closing(opened(config, sink)) as store:
        served, own = known_of(store).active, open_embedder(own_model(config)).fingerprint
    if served.fingerprint != own:
        raise ConfigurationError(
            f"embedding: the configuration names {own}, but readers of {sink.name} use {served.fingerprint}",
            condition="OLD_MODEL_CONFIGURED",
            hint="set `embedding` to the model that readers use, start the jobs again with it, then collect",
        )
