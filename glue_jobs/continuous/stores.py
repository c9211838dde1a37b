"""The stores of a pipeline, as the driver of `index_documents` knows them: which answer, and what some lack.

A store that does not answer is left out until it does; then it goes on from its own positions. What the stream has lost
meanwhile, and all that was read before a store was new, comes from the lake: live writes go on beside it, and the guard
decides between the two.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Set as AbstractSet
from contextlib import closing
from typing import TYPE_CHECKING

from embeddings.registry import config_of
from glue_jobs.continuous.backfills import Backfills
from glue_jobs.continuous.start_positions import has_begun
from glue_jobs.operations.ownership import owner_of
from glue_jobs.operations.rebuild import Rebuild, RebuildCounts
from glue_jobs.status import drift
from glue_jobs.status.landed import Reading
from lake.landing.batch import create_tables
from lake.layout import LakeLayout
from schemas.errors import UnavailableError
from sinks import open_sink

if TYPE_CHECKING:
    from glue_jobs.continuous.backfills import Backfill
    from glue_jobs.runtime import JobContext
    from sinks import SinkConfig
    from sinks.protocol import Sink

_LOG = logging.getLogger(__name__)
EVERY_SECONDS = 2.0
"""How often a store that is away is asked, and the lake is looked at for one that lacks something."""


class Stores:
    """Looks after the stores that are away, new or short of something. Safe to stop anywhere."""

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
        """Stores that did not answer when they were last asked; none of them is to be written."""
        return self._away

    @property
    def unready(self) -> frozenset[str]:
        """Stores that are away or lack something: they are neither told how fresh they are nor swept."""
        return self._away | self.backfills.stores

    def is_away(self, stores: AbstractSet[str]) -> None:
        """Leave stores out until they answer again."""
        with self._lock:
            for name in stores - self._away:
                _LOG.warning("store is away, the others go on without it", extra={"context": {"store": name}})
            self._away |= stores

    def prepared(self) -> list[Sink]:
        """Open the stores, prepared for the job; a new one lacks all that was read before.

        A store that the pipeline had before may be away while another answers, else that raises UnavailableError.
        """
        config, known, away = self._config, self.backfills.known(), dict[str, UnavailableError]()
        fresh = not any(has_begun(self._context.checkpoint(f"index_{s.name}")) for s in config.sources)
        create_tables(LakeLayout(config.lake.path))  # the stores come to be of this lake
        sinks = [open_sink(sink, *self._model) for sink in config.sinks]
        for sink in sinks:
            try:
                sink.prepare(owner_of(config))
            except UnavailableError as error:
                away[sink.name] = error
                if sink.name not in known or len(away) == len(sinks):
                    raise
        for name in self.backfills.configured([sink.name for sink in sinks], config.sources, fresh=fresh):
            drift.forget(config.checkpoint, name)
            _LOG.warning("store is new, it is backfilled from the lake", extra={"context": {"store": name}})
        self.is_away(away.keys())
        return sinks

    def look(self) -> None:
        """Ask the stores that are away whether they are back."""
        for sink in self._config.sinks:
            if sink.name in self._away and self._answers(sink):
                with self._lock:
                    self._away -= {sink.name}
                _LOG.warning("store answers again", extra={"context": {"store": sink.name}})

    def backfill(self) -> None:
        """Give every store what it lacks of the stream, once the lake holds that."""
        failed = None
        for record in self.backfills.look().values():
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
        """Whether the lake holds all that the store lacks; a source that is configured no more adds nothing to it."""
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
