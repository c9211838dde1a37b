"""The driver's side of readers: a tick of the clock hands out instructions and takes in how far all is written.

The positions are on disk before a tick ends, so after any kill reading begins at them; what was written since then is
written again, which the stores refuse.
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
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from glue_jobs.config.pipeline import decode_context
from glue_jobs.continuous import store_positions
from glue_jobs.continuous.readers import Harvested, Readers
from glue_jobs.continuous.start_positions import for_readers, numbers, past_gaps
from glue_jobs.runtime import Query, Report
from reader.channel import ask
from reader.messages import ReaderSettings, Stop
from reader.task import HARVEST_COLUMNS, harvest_task
from schemas.errors import UnavailableError
from sources.feeds import Reading, refreshed
from sources.files.config import FilesSourceConfig
from sources.kafka.config import KafkaSourceConfig

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
"""How often readers are asked: what `status` and `searchable_as_of` say is so old."""
REFRESH_SECONDS = 10.0
"""How often a stream is asked for new shards, besides when one has ended. Kafka is asked at each tick: nothing else tells of a
new partition, and what it holds is not searchable yet."""
_REFRESH_PATIENCE_SECONDS = 0.25
"""How long a tick waits for the source's answer; it is taken in at a later one."""
STOP_SECONDS = 1.0
"""How long readers are waited for when the query ends; they end by themselves as well."""


def has_readers(context: JobContext, source: SourceConfig) -> bool:
    """Whether a source is read by readers: a drain ends, recorded files do not go on, and the configuration may not want it."""
    return context.config.continuous and not context.available_now and not isinstance(source, FilesSourceConfig)


class ReaderQuery:
    """The query of one source that is read by readers. Doing a tick again is harmless."""

    def __init__(
        self,
        context: JobContext,
        source: SourceConfig,
        specs: Mapping[str, DocumentSpec],
        reports: IndexReports,
        stores: Stores,
    ) -> None:
        """Take the pipeline, one of its sources, and what the driver knows of all its stores."""
        config = context.config
        assert config.embedding is not None  # noqa: S101 - stores are filled with vectors
        self._spark = context.spark
        self._source = source
        self._reports = reports
        self._backfills = stores.backfills
        self._name = f"index_{source.name}"
        self._checkpoint = context.checkpoint(self._name)
        is_local = str(context.spark.sparkContext.master).startswith("local[")
        self._settings = ReaderSettings(
            source, decode_context(config, source.name), specs, config.sinks, config.embedding, self._checkpoint,
            bind="127.0.0.1" if is_local else "",
        )  # fmt: skip
        self._tells_of_partitions = not isinstance(source, KafkaSourceConfig)
        self._secret = secrets.token_bytes(32)
        self._readers = Readers(config.readers, "", Reading(None, {}))
        self._kept: StorePositions | None = None
        self._asking: Future[Reading] | None = None
        self._asked_at = 0.0
        self._told_away: dict[str, str] = {}

    def query(self) -> Query:
        """The query as the runtime keeps it running."""
        as_of = self._reports.as_of[self._source.name]
        return Query(self._name, self.read, self.write, TICK_SECONDS, pool="index", as_of=as_of, end=self.end)

    def read(self) -> None:
        """Begin anew from what is on disk; raises UnavailableError while the source does not answer."""
        stores = [sink.name for sink in self._settings.sinks]
        start, behind = for_readers(self._source, self._checkpoint, stores)
        self._asking, self._asked_at = None, time.time()
        reading = refreshed(self._source, self._checkpoint, start)
        reading = reading._replace(stores=past_gaps(self._source, reading.stores, self._backfills))
        self._backfills.begin(self._source.name, {store: numbers(at) for store, at in reading.stores.items()})
        before = self._readers
        self._readers = Readers(
            before.most, uuid.uuid4().hex, reading, addresses=before.addresses, dealing=before.dealing
        )
        self._readers.behind = dict.fromkeys(range(before.most), behind)
        self._know_partitions()
        self._keep()

    def write(self, batch: Batch) -> Report:
        """Do one tick: one small job, whose tasks ask the readers."""
        self._ask_source()
        report, harvests = Report(), list[Harvested]()
        if instructions := self._readers.instructions(batch.batch_id, self._backfills.stores):
            answered = self._ask(instructions)
            report = self._reports.take(answered)  # first: positions that are on disk are never told of again
            harvests = [json.loads(str(harvest)) for harvest in pc.drop_null(answered["harvest"]).to_pylist()]
        for harvest in harvests:
            for store, gaps in harvest["gaps"].items():
                self._backfills.add(store, self._source.name, self._readers.lost_to(store, gaps))
        if self._readers.harvested(harvests):
            self._asked_at = 0.0
            self._ask_source()  # at once: the next tick instructs the children of a shard that has ended
        for address in sorted(self._readers.left):
            _LOG.warning("reader is replaced", extra={"context": {"address": address, "query": self._name}})
        self._stop(self._readers.left)  # it may live on and pay for texts as well, until it notices that nobody asks it
        self._read_on()
        self._keep()
        for name, as_of in self._reports.as_of[self._source.name].stores.items():
            as_of.looked(self._readers.as_of_us(name))
        self._tell_away()
        return replace(report, error="; ".join(sorted(self._readers.away.values())))

    def end(self) -> None:
        """Stop the readers; one that cannot be reached ends by itself."""
        wait(self._stop(frozenset(self._readers.addresses.values())), STOP_SECONDS)

    def _stop(self, addresses: frozenset[str]) -> list[Future[None]]:
        return [_beside(partial(ask, address, self._secret, Stop(), STOP_SECONDS)) for address in sorted(addresses)]

    def _ask(self, instructions: list[Instruction]) -> pa.Table:
        number = len(instructions)
        task = harvest_task(self._settings, dict(enumerate(instructions)), self._secret)
        try:
            return self._spark.range(0, number, 1, number).mapInArrow(task, HARVEST_COLUMNS).toArrow()
        except Exception:
            self._read_on()  # that a topic was made again says more than that its records are gone
            raise

    def _keep(self) -> None:
        kept = self._readers.kept()
        if kept != self._kept:
            store_positions.write(self._checkpoint, kept)
            self._kept = kept

    def _ask_source(self) -> None:
        """Ask, beside the tick, what there is to read: the source may take seconds to answer."""
        due = REFRESH_SECONDS if self._tells_of_partitions else 0.0
        if self._asking is None and time.time() - self._asked_at >= due:
            self._asked_at, reading = time.time(), self._readers.reading
            self._asking = _beside(lambda: refreshed(self._source, self._checkpoint, reading))

    def _read_on(self) -> None:
        """Take in what the source has answered."""
        if self._asking is None or not wait([self._asking], _REFRESH_PATIENCE_SECONDS).done:
            return
        asked, self._asking = self._asking, None
        try:
            self._readers.read_on(asked.result())
        except UnavailableError as error:
            _LOG.debug("source is asked again: %s", error.condition)
        else:
            self._know_partitions()

    def _know_partitions(self) -> None:
        if not self._tells_of_partitions:
            self._readers.partitions_as_of_us = round(self._asked_at * 1_000_000)

    def _tell_away(self) -> None:
        """Log what does not answer when that changes, and not each time it is asked."""
        away = self._readers.away
        for what in sorted(away.keys() - self._told_away.keys()):
            _LOG.warning("does not answer", extra={"context": {"what": what, "error": away[what], "query": self._name}})
        for what in sorted(self._told_away.keys() - away.keys()):
            _LOG.warning("answers again", extra={"context": {"what": what, "query": self._name}})
        self._told_away = dict(away)


def _beside[T](work: Callable[[], T]) -> Future[T]:
    """Work on a thread that keeps no process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is taken
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
