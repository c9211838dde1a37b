"""The queries that index a source, and that of readers: each tick instructs the readers and takes in their harvests.

The positions are on disk before a tick ends, so after any kill reading begins there; what was written later is written again,
and the stores refuse it.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from glue_jobs.continuous import store_positions
from glue_jobs.continuous.announced import with_announced
from glue_jobs.continuous.readers import HarvestRow, Readers
from glue_jobs.continuous.start_positions import for_readers, past_gaps
from glue_jobs.runtime import Query, Report
from reader.channel import ask
from reader.messages import ReaderSettings, Stop
from reader.task import HARVEST_COLUMNS, harvest_task
from schemas.errors import UnavailableError
from sources.feeds import SourcePositions, refreshed
from sources.files.config import FilesSourceConfig
from sources.kafka.config import KafkaSourceConfig
from sources.positions import as_numbers

if TYPE_CHECKING:
    import pyarrow as pa

    from glue_jobs.continuous.store_positions import StorePositions
    from glue_jobs.continuous.stores import Stores
    from glue_jobs.runtime import Batch, JobContext
    from glue_jobs.status.index_reports import IndexReports
    from reader.messages import Instruction
    from sources import SourceConfig
    from transforms.documents.planning import DocumentSpec

_LOG = logging.getLogger(__name__)
TICK_SECONDS = 1.0
"""Between two ticks: `status` and `searchable_as_of` are that old."""
REFRESH_SECONDS = 10.0
"""How often a stream is asked for new shards, besides when one has ended. Kafka is asked at each tick: its new partitions show
nowhere else, and their records are not searchable yet."""
_REFRESH_PATIENCE_SECONDS = 0.25
"""How long a tick waits for the source's answer; a later tick takes it in."""
STOP_SECONDS = 1.0
"""How long the end of the query waits for its readers; they end by themselves as well."""


def has_readers(context: JobContext, source: SourceConfig) -> bool:
    """Whether a source is read by readers: not in a drain, not recorded files, and not with `continuous: false`."""
    return context.config.continuous and not context.available_now and not isinstance(source, FilesSourceConfig)


@dataclass(eq=False)
class IndexQuery:
    """A query that indexes one source of a pipeline, beside others that have the same reports and stores."""

    context: JobContext
    source: SourceConfig
    specs: Mapping[str, DocumentSpec]
    reports: IndexReports
    stores: Stores

    def __post_init__(self) -> None:
        """Name the query and its checkpoint."""
        assert self.context.config.embedding is not None  # noqa: S101 - stores are filled with vectors
        self.embedding = self.context.config.embedding
        self.name = f"index_{self.source.name}"
        self.checkpoint = self.context.checkpoint(self.name)
        self.as_of = self.reports.as_of[self.source.name]
        self.decoding = with_announced(self.context.config, self.source.name)


class ReaderQuery(IndexQuery):
    """The query of a source that is read by readers. A tick that is run again changes nothing."""

    def __post_init__(self) -> None:
        """Begin without readers."""
        super().__post_init__()
        config = self.context.config
        is_local = str(self.context.spark.sparkContext.master).startswith("local[")
        self._settings = ReaderSettings(
            self.source, self.decoding, self.specs, config.sinks, self.embedding, self.checkpoint,
            bind="127.0.0.1" if is_local else "",
        )  # fmt: skip
        self._announces_partitions = not isinstance(self.source, KafkaSourceConfig)
        self._secret = secrets.token_bytes(32)
        self._readers = Readers(config.readers, "", SourcePositions(None, {}))
        self._written: StorePositions | None = None
        self._refresh: Future[SourcePositions] | None = None
        self._refreshed_at = 0.0
        self._logged_away: dict[str, str] = {}

    def query(self) -> Query:
        """The query as the runtime keeps it running."""
        return Query(self.name, self.read, self.write, TICK_SECONDS, pool="index", as_of=self.as_of, end=self.end)

    def read(self) -> None:
        """Begin at the positions on disk; raises UnavailableError while the source does not answer."""
        stores = [sink.name for sink in self._settings.sinks]
        start, behind = for_readers(self.source, self.checkpoint, stores)
        self._refresh, self._refreshed_at = None, time.time()
        positions = refreshed(self.source, self.checkpoint, start)
        positions = positions._replace(stores=past_gaps(self.source, positions.stores, self.stores.backfills))
        self.stores.backfills.begin(self.source.name, {store: as_numbers(at) for store, at in positions.stores.items()})
        before = self._readers
        behind_by_reader = dict.fromkeys(range(before.most), behind)
        self._readers = Readers(
            before.most, uuid.uuid4().hex, positions, behind_by_reader, before.addresses, before.assignment
        )
        self._note_partitions()
        self._write_positions()

    def write(self, batch: Batch) -> Report:
        """Run one tick: a small job, whose tasks instruct the readers."""
        self._start_refresh()
        report, harvests = Report(), list[HarvestRow]()
        if instructions := self._readers.instructions(batch.batch_id, self.stores.backfills.stores):
            rows = self._harvest(instructions)
            report = self.reports.take(rows)  # first: no harvest repeats results before positions that are on disk
            harvests = [json.loads(str(harvest)) for harvest in pc.drop_null(rows["harvest"]).to_pylist()]
        for harvest in harvests:
            for store, gaps in harvest["gaps"].items():
                self.stores.backfills.add(store, self.source.name, self._readers.gap(store, gaps))
        if self._readers.take(harvests):
            self._refreshed_at = 0.0
            self._start_refresh()  # at once: the next tick instructs the children of a shard that has ended
        for address in sorted(self._readers.replaced):
            _LOG.warning("reader is replaced", extra={"context": {"address": address, "query": self.name}})
        self._stop(self._readers.replaced)  # else it may embed texts too, until it ends as an orphan
        self._take_refreshed()
        self._write_positions()
        for name, as_of in self.as_of.stores.items():
            as_of.looked(self._readers.as_of_us(name))
        self._log_away()
        return replace(report, error="; ".join(sorted(self._readers.away.values())))

    def end(self) -> None:
        """Stop the readers; one that cannot be reached ends by itself."""
        wait(self._stop(frozenset(self._readers.addresses.values())), STOP_SECONDS)

    def _stop(self, addresses: frozenset[str]) -> list[Future[None]]:
        return [_in_thread(partial(ask, address, self._secret, Stop(), STOP_SECONDS)) for address in sorted(addresses)]

    def _harvest(self, instructions: list[Instruction]) -> pa.Table:
        number = len(instructions)
        task = harvest_task(self._settings, dict(enumerate(instructions)), self._secret)
        try:
            return self.context.spark.range(0, number, 1, number).mapInArrow(task, HARVEST_COLUMNS).toArrow()
        except Exception:
            self._take_refreshed()  # its error that a topic was made again explains why records are gone
            raise

    def _write_positions(self) -> None:
        positions = self._readers.store_positions()
        if positions != self._written:
            store_positions.write(self.checkpoint, positions)
            self._written = positions

    def _start_refresh(self) -> None:
        """Ask the source for its partitions on another thread: it may take seconds to answer."""
        due = REFRESH_SECONDS if self._announces_partitions else 0.0
        if self._refresh is None and time.time() - self._refreshed_at >= due:
            self._refreshed_at, positions = time.time(), self._readers.positions
            self._refresh = _in_thread(lambda: refreshed(self.source, self.checkpoint, positions))

    def _take_refreshed(self) -> None:
        """Take in the source's answer, if it has come."""
        if self._refresh is None or not wait([self._refresh], _REFRESH_PATIENCE_SECONDS).done:
            return
        refresh, self._refresh = self._refresh, None
        try:
            self._readers.refresh(refresh.result())
        except UnavailableError as error:
            _LOG.debug("source is asked again: %s", error.condition)
        else:
            self._note_partitions()

    def _note_partitions(self) -> None:
        if not self._announces_partitions:
            self._readers.partitions_as_of_us = round(self._refreshed_at * 1_000_000)

    def _log_away(self) -> None:
        """Log what is away, and what answers again, once each."""
        away = self._readers.away
        for what in sorted(away.keys() - self._logged_away.keys()):
            _LOG.warning("does not answer", extra={"context": {"what": what, "error": away[what], "query": self.name}})
        for what in sorted(self._logged_away.keys() - away.keys()):
            _LOG.warning("answers again", extra={"context": {"what": what, "query": self.name}})
        self._logged_away = dict(away)


def _in_thread[T](work: Callable[[], T]) -> Future[T]:
    """Run on a thread that keeps no process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is taken
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
