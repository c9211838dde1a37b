"""A source indexed in micro-batches over its own stream: drains, recorded files, and wherever no reader is wanted."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from glue_jobs import start_positions
from glue_jobs.config import decode_context
from glue_jobs.landed import committed
from glue_jobs.runtime import Query
from sinks.index_partition import IndexSettings, IndexStage
from sources import idle_note, read_stream

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from glue_jobs.index_reports import IndexReports
    from glue_jobs.runtime import Batch, JobContext, Report
    from glue_jobs.stores import Stores
    from sources import SourceConfig
    from transforms.documents import Recipe


class BatchQuery:
    """The query of one source that is read in micro-batches. A batch run again leaves the same documents."""

    def __init__(
        self,
        context: JobContext,
        source: SourceConfig,
        recipes: Mapping[str, Recipe],
        reports: IndexReports,
        stores: Stores,
    ) -> None:
        """Take the pipeline, one of its sources, and what the driver knows of all its stores."""
        config = context.config
        assert config.embedding is not None  # noqa: S101 - stores are filled with vectors
        self._context = context
        self._source = source
        self._reports = reports
        self._backfills = stores.backfills
        self._name = f"index_{source.name}"
        self._checkpoint = context.checkpoint(self._name)
        self._idle = idle_note(source)
        decoding = decode_context(config, source.name)
        self._index = IndexStage(IndexSettings(uuid.uuid4().hex, decoding, recipes, config.sinks, config.embedding))
        self._has_begun = False

    def query(self) -> Query:
        """The query as the runtime keeps it running."""
        return Query(
            self._name,
            self.read,
            self.write,
            pool="index",
            as_of=self._reports.as_of[self._source.name],
            empty_us=self._idle.empty_us if self._idle else None,
        )

    def read(self) -> DataFrame:
        """Go on from Spark's checkpoint, or from where readers have come to."""
        self._has_begun = False
        starts = start_positions.for_micro_batches(self._source, self._checkpoint)
        frame = read_stream(
            self._context.spark, self._source, self._checkpoint, idle=self._idle,
            drain=self._context.available_now, starts=starts,
        )  # fmt: skip
        # With topics that are read no more left out: what was read before this is not written to a store that is new.
        before = committed(self._source, self._checkpoint) if starts is None else start_positions.numbers(starts)
        self._backfills.begin(self._source.name, {sink.name: before or {} for sink in self._context.config.sinks})
        return frame

    def write(self, batch: Batch) -> Report:
        """Index one micro-batch."""
        if not self._has_begun:
            start_positions.begun(self._checkpoint)
            self._has_begun = True
        return self._reports.take(self._index(batch.frame))
