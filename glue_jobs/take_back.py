"""Stores that were set aside, or are new, taken back unattended: written again first, then caught up from the lake.

Live jobs write a returning store before the catch-up begins, and the guard decides between the two, so no gap is left. The
catch-up reads only what was missed, once the lake has landed it.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from typing import TYPE_CHECKING

from embeddings.remembered import config_of
from glue_jobs.landed import Reading, committed, unlanded
from glue_jobs.ownership import owner_of
from glue_jobs.rebuild_store import Rebuild, RebuildCounts
from glue_jobs.runtime import drift, files, real_time
from glue_jobs.runtime.backfills import number_of
from glue_jobs.runtime.set_aside import SetAside
from lake.landing import create_tables
from lake.layout import LakeLayout
from lake.storage import rows_of
from schemas.errors import UnavailableError
from sinks import open_sink

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import DataFrame

    from glue_jobs.runtime import JobContext
    from glue_jobs.runtime.set_aside import AsideRecord
    from sinks import SinkConfig
    from sinks.protocol import Sink
    from sources import SourceConfig

_LOG = logging.getLogger(__name__)
EVERY_SECONDS = 2.0
"""How often a store that is away is looked for."""
GRACE_SECONDS = real_time.BATCH_SECONDS + 2.0
"""From writing a store again to its catch-up: a batch that began before still tells what it left out."""


class TakeBack:
    """Looks after the stores that are not in step. Safe to stop anywhere: the record goes only after the catch-up."""

    def __init__(self, context: JobContext, fingerprint: str, dimensions: int) -> None:
        """Take the pipeline, and the identity of the model."""
        self._context = context
        self.aside = SetAside(context.config.checkpoint)
        self._model = (fingerprint, dimensions)

    def prepared(self) -> list[Sink]:
        """Open the stores, prepared for the job; one that is set aside may still be away, one that is new is caught up."""
        config = self._context.config
        fresh = not any(files.names(f"{self._context.checkpoint(f'index_{s.name}')}/offsets") for s in config.sources)
        away = self.aside.look()
        create_tables(LakeLayout(config.lake.path))  # the stores come to be of this lake
        sinks = [open_sink(sink, *self._model) for sink in config.sinks]
        for sink in sinks:
            try:
                sink.prepare(owner_of(config))
            except UnavailableError:
                if sink.name not in away:
                    raise
        for name in self.aside.configured([sink.name for sink in sinks], fresh=fresh):
            drift.forget(config.checkpoint, name)
            _LOG.warning("store is new, it is filled from the lake", extra={"context": {"store": name}})
        return sinks

    def reading(self, source: SourceConfig, read: Callable[..., DataFrame]) -> Callable[[], DataFrame]:
        """Read a source so that it is known what was read before: that, a store that is new gets from the lake."""

        def begin() -> DataFrame:
            frame = read(
                drain=self._context.available_now
            )  # under the query's lease, and with offsets of topics that are read no more left out
            before = committed(source, self._context.checkpoint(f"index_{source.name}"))
            self.aside.writes_begin(source.name, before or {})
            return frame

        return begin

    def run(self) -> None:
        """Take every store that can be one step further."""
        for record in self.aside.look().values() if self.aside.phases() else ():
            config = next((sink for sink in self._context.config.sinks if sink.name == record.store), None)
            if config is None:
                continue
            if record.phase == "aside":
                if self._answers(config):
                    self.aside.returning(record.store)
                    _tell("store answers again, live writes go to it", record)
            elif time.time() - record.returning_since >= GRACE_SECONDS and self._landed(record):
                self._catch_up(config, record)

    def _answers(self, config: SinkConfig) -> bool:
        try:
            with closing(open_sink(config, *self._model)) as sink:
                sink.prepare(owner_of(self._context.config))
        except UnavailableError:
            return False
        return True

    def _landed(self, record: AsideRecord) -> bool:
        """Whether the lake holds what the store missed: the last records of it, as a partition is landed in its order.

        A store that is new missed all that was read before it was written, of every partition of every source.
        """
        import pyarrow.dataset as ds

        config = self._context.config
        if record.added:
            if any(source.name not in record.read_before for source in config.sources):
                return False
            place, read = config.checkpoint.rstrip("/"), record.read_before
            if unlanded(Reading(source, place, read[source.name]) for source in config.sources):
                return False
        path = LakeLayout(config.lake.path).path("changes")
        for stream, partition, _, last in record.missed:
            there = (
                (ds.field("stream") == stream) & (ds.field("partition") == partition) & (ds.field("position") == last)
            )
            if not rows_of(path, ["position"], there):
                return False
        return True

    def _catch_up(self, config: SinkConfig, record: AsideRecord) -> None:
        pipeline = self._context.config
        assert pipeline.embedding is not None  # noqa: S101 - stores are filled with vectors
        spans = (
            None
            if record.added
            else {
                f"{stream}/{partition}": (number_of(first), number_of(last))
                for (stream, partition), (first, last) in record.spans().items()
            }
        )
        done = RebuildCounts()
        with closing(open_sink(config, *self._model)) as store:
            known = store.generations()
        for each in known.written if known else ():  # every model that fills the store
            embedding = config_of(each, pipeline.embedding)
            done += Rebuild(self._context.spark, pipeline, config, embedding, lambda *_: None, spans).run()
        if self.aside.taken_back(record):
            _tell(
                "store caught up and taken back",
                record,
                rows=done.rows,
                written=done.written,
                texts_sent=done.texts_sent,
            )


def _tell(what: str, record: AsideRecord, **context: object) -> None:
    away = round(time.time() - record.since)
    _LOG.warning(what, extra={"context": {"store": record.store, "since_s": away, **context}})
