"""Indexes a source in micro-batches: for drains, recorded files and `continuous: false`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from glue_jobs.config.pipeline import decode_context
from glue_jobs.continuous.start_positions import begun, for_micro_batches, is_broken_off, missed, numbers
from glue_jobs.runtime import Query
from glue_jobs.status.landed import committed
from indexing.report import missed_in
from indexing.spark_stage import IndexSettings, IndexStage
from schemas.errors import UnavailableError
from sources import idle_note, read_stream

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from glue_jobs.continuous.stores import Stores
    from glue_jobs.runtime import Batch, JobContext, Report
    from glue_jobs.status.index_reports import IndexReports
    from sources import SourceConfig
    from sources.feeds import Positions
    from transforms.documents.planning import DocumentSpec


class BatchQuery:
    """The query that indexes one source in micro-batches. A batch that runs again leaves the same documents."""

    def __init__(
        self,
        context: JobContext,
        source: SourceConfig,
        specs: Mapping[str, DocumentSpec],
        reports: IndexReports,
        stores: Stores,
    ) -> None:
        """Take the pipeline, one of its sources, and the state of all its stores."""
        config = context.config
        assert config.embedding is not None  # noqa: S101 - stores are filled with vectors
        self._context = context
        self._source = source
        self._reports = reports
        self._as_of = reports.as_of[source.name]
        self._stores = stores
        self._name = f"index_{source.name}"
        self._checkpoint = context.checkpoint(self._name)
        self._idle = idle_note(source)
        decoding = decode_context(config, source.name)
        self._index = IndexStage(IndexSettings(uuid.uuid4().hex, decoding, specs, config.sinks, config.embedding))
        self._starts: Positions | None = None
        self._has_begun = self._is_repeat = False
        self._behind: frozenset[str] = frozenset()
        self._lacking: frozenset[str] = frozenset()

    def query(self) -> Query:
        """The query for the runtime."""
        return Query(
            self._name,
            self.read,
            self.write,
            pool="index",
            as_of=self._as_of,
            empty_us=self._idle.empty_us if self._idle else None,
            again=self.is_to_start_again,
        )

    def read(self) -> DataFrame:
        """Resume from Spark's checkpoint, or from the positions of readers or of stores that were unavailable."""
        names = [sink.name for sink in self._context.config.sinks]
        start = for_micro_batches(self._source, self._checkpoint, names, self._stores.away, self._stores.backfills)
        self._starts, self._behind, self._lacking = start
        self._has_begun = start.starts is None
        self._as_of.without = self._behind
        self._is_repeat = is_broken_off(self._checkpoint)
        frame = read_stream(
            self._context.spark, self._source, self._checkpoint, idle=self._idle,
            drain=self._context.available_now, starts=start.starts,
        )  # fmt: skip
        # Records before these positions are not written to a new store; topics that are no longer read are left out.
        before = committed(self._source, self._checkpoint) if start.starts is None else numbers(start.starts)
        self._stores.backfills.begin(self._source.name, dict.fromkeys(names, before or {}))
        return frame

    def write(self, batch: Batch) -> Report:
        """Index one micro-batch; a store that stays unavailable resumes later from the start of this batch."""
        if not self._has_begun:
            begun(self._checkpoint, self._behind)
            self._has_begun = True
        self._miss(self._stores.away - self._behind)
        lacking = self._lacking | self._stores.backfills.stores
        if self._is_repeat:  # before a kill some stores may have got the vectors: take them instead of asking the model
            lacking |= {sink.name for sink in self._context.config.sinks}
        reports = self._index(batch.frame, without=self._behind, borrowing=lacking)
        self._is_repeat = False
        if (away := missed_in(reports)) and not self._miss(away):
            raise UnavailableError(f"sink {min(away)} does not answer, and no earlier batch was committed")
        return self._reports.take(reports)

    def is_to_start_again(self) -> bool:
        """Whether a store that was skipped answers again; a drain ends with it behind."""
        return not self._context.available_now and not self._behind <= self._stores.away

    def _miss(self, stores: frozenset[str]) -> bool:
        """Skip stores, which keep the positions at which this batch began; False where no positions are known."""
        if stores and not missed(self._source, self._checkpoint, stores, self._starts):
            return False
        self._behind |= stores
        self._as_of.without = self._behind
        self._stores.is_away(stores)
        return True
