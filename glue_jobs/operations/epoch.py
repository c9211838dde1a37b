"""`ragstream epoch`: after tables were loaded once more, rows that the load did not bring go, in the lake and in the stores.

The epoch itself is configured (`epochs`), so that every reader knows it: changes committed since it began, and rows loaded
since, rank above all that came before. Only what the load left out needs an end (docs/adr/0051).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

from glue_jobs.config.pipeline import PipelineConfig, decode_context
from glue_jobs.operations.indexers import indexers
from glue_jobs.storage import lake_mark
from lake.landing.epochs import SinceEpoch, land_epochs, since_epoch
from lake.layout import LakeLayout
from schemas.changes import Change, Changes
from schemas.errors import ConfigurationError
from schemas.records import Record
from transforms.context import DecodeContext
from transforms.envelopes.decode import decode
from transforms.envelopes.epochs import record_of_epoch
from transforms.positions.sequence import epoch_at


@dataclass(frozen=True)
class Epoch:
    """An epoch of a source, and the tables that were loaded in it."""

    source: str
    start_us: int
    loaded: dict[str, int]
    """Rows of a load that have landed, by table; 0 for one that was loaded and is empty."""


def loaded_since(config: PipelineConfig, source: str, at: dt.datetime, empty: Collection[str] = ()) -> Epoch:
    """Look up the rows that a load in an epoch has landed; writes nothing. `empty` names loaded tables without rows.

    Raises:
        ConfigurationError: no such source, table or epoch; a job landed changes without knowing the epoch; nothing was loaded.
    """
    lake_mark.check(config)
    context, start_us = decode_context(config, source), round(at.timestamp() * 1_000_000)
    if start_us not in context.epoch_starts_us:
        raise _not_configured(source, at)
    since = since_epoch(LakeLayout(config.lake.path), source, epoch_at(context.epoch_starts_us, start_us), start_us)
    _refuse_misplaced(since, source, at)
    loaded = {table: since.loaded[table] for table in sorted(since.loaded) if table in context.tables}
    for table in empty:
        if config.owner(config.table(table)) != source or loaded.get(table):
            raise ConfigurationError(
                f"table {table} is another source's, or {loaded.get(table, 0)} rows of it were loaded.",
                condition="TABLE_NOT_EMPTY",
            )
        loaded[table] = 0
    if not loaded:
        raise ConfigurationError(
            f"no row that was loaded since {at.isoformat()} has landed from {source}.",
            condition="NOTHING_LOADED",
            hint="Reload the tables and let `land` run; name a table that has no rows by --empty.",
        )
    return Epoch(source, start_us, loaded)


def end_older_rows(config: PipelineConfig, epoch: Epoch) -> None:
    """Land a record that ends the older rows of each loaded table, and hide these rows in every store. Idempotent.

    Rows of the load that land later are newer than that end, so it loses none of them.

    Raises:
        UnavailableError: the lake or a store does not answer; run again, it completes what is left.
    """
    context = decode_context(config, epoch.source)
    records = [record_of_epoch(epoch.source, table, epoch.start_us) for table in epoch.loaded]
    ends = [(record, _change_of(record, context)) for record in records]
    land_epochs(LakeLayout(config.lake.path), epoch.source, ends)
    if config.sinks and config.embedding is not None:
        with indexers(config, config.embedding) as indexer_of:
            indexer_of(context).index(records)


def _change_of(record: Record, context: DecodeContext) -> Change:
    decoded = decode(record, context)
    assert isinstance(decoded, Changes), decoded  # noqa: S101 - its table and its epoch were looked up
    return decoded.changes[0]


def _not_configured(source: str, at: dt.datetime) -> ConfigurationError:
    return ConfigurationError(
        f"no epoch of {source} begins at {at.isoformat()}.",
        condition="EPOCH_NOT_CONFIGURED",
        hint=(
            f"Choose a time ahead, add {{at: {at.isoformat()}, source: {source}}} with that time to `epochs`, start all jobs "
            f"anew, reload the tables once the time has come, and run this again when the load has landed."
        ),
    )


def _refuse_misplaced(since: SinceEpoch, source: str, at: dt.datetime) -> None:
    if since.misplaced:
        counts = ", ".join(f"{table}: {number}" for table, number in sorted(since.misplaced.items()))
        raise ConfigurationError(
            f"changes of {source} since {at.isoformat()} were landed by a job that did not know the epoch ({counts}).",
            condition="EPOCH_TOO_EARLY",
            hint="They would be taken for older than the load: configure a later time, start all jobs anew, and reload again.",
        )
