"""The query of a source that is indexed in micro-batches: drains, recorded files, and `continuous: false`."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from glue_jobs.continuous.query import IndexQuery
from glue_jobs.continuous.start_positions import for_micro_batches, is_interrupted, note_begin, note_missed
from glue_jobs.runtime import Query
from glue_jobs.status.landed import committed
from indexing.report import missed_in
from indexing.spark_stage import IndexSettings, IndexStage
from schemas.errors import UnavailableError
from sources import caught_up_probe, read_stream
from sources.positions import as_numbers

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from glue_jobs.runtime import Batch, Report
    from sources.feeds import Positions


class BatchQuery(IndexQuery):
    """The query of a source that is indexed in micro-batches. A batch run again leaves the same documents."""

    def __post_init__(self) -> None:
        """Begin before the first batch."""
        super().__post_init__()
        self._probe = caught_up_probe(self.source)
        sinks = self.context.config.sinks
        settings = IndexSettings(uuid.uuid4().hex, self.decoding, self.specs, sinks, self.embedding)
        self._index = IndexStage(settings)
        self._starts: Positions | None = None
        self._has_begun = self._is_repeat = False
        self._behind: frozenset[str] = frozenset()
        self._lacking: frozenset[str] = frozenset()

    def query(self) -> Query:
        """The query for the runtime."""
        return Query(
            self.name,
            self.read,
            self.write,
            pool="index",
            as_of=self.as_of,
            empty_us=self._probe.caught_up_us if self._probe else None,
            again=self.is_to_start_again,
        )

    def read(self) -> DataFrame:
        """Begin at Spark's checkpoint, or at the positions of readers or of stores that were away."""
        names = [sink.name for sink in self.context.config.sinks]
        start = for_micro_batches(self.source, self.checkpoint, names, self.stores.away, self.stores.backfills)
        self._starts, self._behind, self._lacking = start
        self._has_begun = start.starts is None
        self.as_of.without = self._behind
        self._is_repeat = is_interrupted(self.checkpoint)
        frame = read_stream(
            self.context.spark, self.source, self.checkpoint, probe=self._probe,
            drain=self.context.available_now, starts=start.starts,
        )  # fmt: skip
        # A new store lacks all before this; topics that are read no more are left out.
        before = committed(self.source, self.checkpoint) if start.starts is None else as_numbers(start.starts)
        self.stores.backfills.begin(self.source.name, dict.fromkeys(names, before or {}))
        return frame

    def write(self, batch: Batch) -> Report:
        """Index one micro-batch; a store that stays away goes on later at its start."""
        if not self._has_begun:
            note_begin(self.checkpoint, self._behind)
            self._has_begun = True
        self._miss(self.stores.away - self._behind)
        lacking = self._lacking | self.stores.backfills.stores
        if self._is_repeat:  # some stores have the vectors that were embedded before a kill
            lacking |= {sink.name for sink in self.context.config.sinks}
        rows = self._index(batch.frame, without=self._behind, use_peers=lacking)
        self._is_repeat = False
        if (away := missed_in(rows)) and not self._miss(away):
            raise UnavailableError(f"sink {min(away)} does not answer, and no earlier batch was committed")
        return self.reports.take(rows)

    def is_to_start_again(self) -> bool:
        """Whether a store that was left out answers again; a drain ends without it."""
        return not self.context.available_now and not self._behind <= self.stores.away

    def _miss(self, stores: frozenset[str]) -> bool:
        """Go on without stores, which keep the positions at which this batch began; False where there are none."""
        if stores and not note_missed(self.source, self.checkpoint, stores, self._starts):
            return False
        self._behind |= stores
        self.as_of.without = self._behind
        self.stores.leave_out(stores)
        return True
