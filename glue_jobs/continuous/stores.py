"""The stores of a pipeline in the driver of `index_documents`: which are away, and which are backfilled.

A store that does not answer is left out until it does; then it goes on from its own positions. Records that the stream has
lost meanwhile, or that were read before a store was added, come from the lake; the guard decides between them and live writes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Set as AbstractSet
from contextlib import closing

from embeddings.registry import config_of
from glue_jobs.continuous.backfills import Backfill, Backfills
from glue_jobs.continuous.start_positions import has_begun
from glue_jobs.operations.ownership import owner_of
from glue_jobs.operations.rebuild import Rebuild, RebuildCounts
from glue_jobs.runtime import JobContext
from glue_jobs.status import drift
from glue_jobs.status.landed import Reading
from lake.landing.batch import create_tables
from lake.layout import LakeLayout
from schemas.errors import UnavailableError
from sinks import SinkConfig, open_sink
from sinks.protocol import Sink

_LOG = logging.getLogger(__name__)
EVERY_SECONDS = 2.0
"""How often a store that is away is asked, and a backfill is tried."""


class Stores:
    """The stores that are away, new, or with a backfill. Safe to stop anywhere."""

    def __init__(self, context: JobContext, fingerprint: str, dimensions: int) -> None:
        """Take the pipeline, and the identity of the model."""
        self._context = context
        self._config = context.config
        self._model = (fingerprint, dimensions)
        self._away: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self.backfills = Backfills(context.config.checkpoint)

    @property
    def away(self) -> frozenset[str]:
        """Stores that did not answer last time; none of them is written."""
        return self._away

    @property
    def unready(self) -> frozenset[str]:
        """Stores that are away or have a backfill: their freshness is not written to them, and no vectors are swept."""
        return self._away | self.backfills.stores

    def leave_out(self, stores: AbstractSet[str]) -> None:
        """Leave stores out until they answer again."""
        with self._lock:
            for name in stores - self._away:
                _LOG.warning("store is away, the others go on without it", extra={"context": {"store": name}})
            self._away |= stores

    def prepare(self) -> list[Sink]:
        """Open and prepare the stores; a new one gets a backfill of all that was read before.

        Raises UnavailableError when a new store is away, or all are; another one is left out.
        """
        config, known, away = self._config, self.backfills.known(), dict[str, UnavailableError]()
        fresh = not any(has_begun(self._context.checkpoint(f"index_{s.name}")) for s in config.sources)
        create_tables(LakeLayout(config.lake.path))  # so that the stores' owner names this lake
        sinks = [open_sink(sink, *self._model) for sink in config.sinks]
        for sink in sinks:
            try:
                sink.prepare(owner_of(config))
            except UnavailableError as error:
                away[sink.name] = error
                if sink.name not in known or len(away) == len(sinks):
                    raise
        for name in self.backfills.register([sink.name for sink in sinks], config.sources, fresh=fresh):
            drift.forget(config.checkpoint, name)
            _LOG.warning("store is new, it is backfilled from the lake", extra={"context": {"store": name}})
        self.leave_out(away.keys())
        return sinks

    def check_away(self) -> None:
        """Ask the stores that are away; those that answer are written again."""
        for sink in self._config.sinks:
            if sink.name in self._away and self._answers(sink):
                with self._lock:
                    self._away -= {sink.name}
                _LOG.warning("store answers again", extra={"context": {"store": sink.name}})

    def backfill(self) -> None:
        """Backfill every store whose missing records the lake has by now."""
        failed = None
        for record in self.backfills.read().values():
            config = next((sink for sink in self._config.sinks if sink.name == record.store), None)
            if config is not None and record.store not in self._away and self._is_landed(record):
                try:
                    self._fill(config, record)
                except UnavailableError as error:
                    failed = error
        if failed is not None:
            raise failed

    def _answers(self, config: SinkConfig) -> bool:
        try:
            with closing(open_sink(config, *self._model)) as sink:
                sink.prepare(owner_of(self._config))
        except UnavailableError:
            return False
        return True

    def _is_landed(self, record: Backfill) -> bool:
        """Whether the lake has all that the store lacks, of the sources that are still configured."""
        place = self._config.checkpoint.rstrip("/")
        for source in self._config.sources:
            gap = record.gaps.get(source.name)
            if gap is not None and (gap.until is None or not Reading(source, place, gap.until).is_landed):
                return False
        return True

    def _fill(self, config: SinkConfig, record: Backfill) -> None:
        assert self._config.embedding is not None  # noqa: S101 - stores are filled with vectors
        done = RebuildCounts()
        with closing(open_sink(config, *self._model)) as store:
            index_versions = store.index_versions()
        for index_version in index_versions.written if index_versions else ():  # every model that fills the store
            embedding = config_of(index_version, self._config.embedding)
            rebuild = Rebuild(self._context.spark, self._config, config, embedding, lambda *_: None, record.spans())
            done += rebuild.run()
        if self.backfills.done(record):
            context = {"store": record.store, "since_s": round(time.time() - record.since), "rows": done.rows}
            context |= {"written": done.written, "texts_sent": done.texts_sent}
            _LOG.warning("store is backfilled from the lake", extra={"context": context})
