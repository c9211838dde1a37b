"""The bulk loads of stores in the driver of `index_documents`: of an empty store, and of one for whose backlog that is worth it.

Their state is in the store, so whichever driver sees that one is over ends it; a load that a killed command left is ended too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from glue_jobs.continuous.start_positions import for_readers
from schemas.errors import PipelineError, UnavailableError
from sinks import open_sink
from sinks.bulk_loads import (
    HEADROOM,
    SETTLED_SECONDS,
    Build,
    Look,
    Progress,
    expected_vectors,
    filling,
    is_abandoned,
    is_outgrown,
    is_settled,
)
from sinks.versions import BulkLoad
from sources.positions import as_numbers, records_after

if TYPE_CHECKING:
    from glue_jobs.continuous.stores import Stores
    from glue_jobs.runtime import JobContext, StoresAsOf
    from sinks import SinkConfig
    from sinks.protocol import Sink

_LOG = logging.getLogger(__name__)
EVERY_SECONDS = 2.0
_CAUGHT_UP_US = 10_000_000
"""A store that has all but the last ten seconds of its streams has caught up."""
_LOG_SECONDS = _SELDOM_SECONDS = 30.0
_PAUSE_MULTIPLE = 20
"""The pause after a store was counted, as a multiple of how long that took."""


class BulkLoads:
    """The loads of a driver's stores. Safe to stop anywhere: PostgreSQL goes on building, and the next driver waits for it."""

    def __init__(
        self, context: JobContext, model: tuple[str, int], as_of: Mapping[str, StoresAsOf], stores: Stores
    ) -> None:
        """Take the pipeline, the identity of the model, the as-of times by source, and the state of the stores."""
        self._context, self._model, self._as_of, self._stores = context, model, as_of, stores
        self._began_us = time.time_ns() // 1000
        self._caught_up: dict[str, bool] = {}
        self._next_look: dict[str, float] = {}
        """When a store is looked at again (monotonic), unless it catches up or falls behind before."""
        self._looks: dict[str, Look] = {}
        self._progress: dict[str, Progress] = {}
        """Of a store that is behind: where it was when new documents began to come."""
        self._building: dict[str, threading.Thread] = {}
        self._errors: dict[str, PipelineError] = {}

    def begin(self, sinks: Sequence[Sink]) -> None:
        """Begin a load of every store that is empty."""
        for sink in sinks:
            if sink.name not in self._stores.away:
                self._begin(sink, "first load")

    def look(self) -> None:
        """End the loads that are over, and begin one of a store for whose backlog it is worth its while."""
        for config in self._context.config.sinks:
            name = config.name
            if (error := self._errors.pop(name, None)) is not None:
                raise error
            caught_up, thread = self._has_caught_up(name), self._building.get(name)
            if caught_up != self._caught_up.get(name):
                self._caught_up[name] = caught_up
                self._next_look.pop(name, None)
                self._looks.pop(name, None)
                self._progress.pop(name, None)
            is_due = time.monotonic() >= self._next_look.get(name, 0.0)
            is_building = thread is not None and thread.is_alive()
            if not is_due or is_building or name in self._stores.unready:
                continue
            with suppress(UnavailableError):  # it is asked again
                self._look_at(config, caught_up=caught_up)

    def _has_caught_up(self, store: str) -> bool:
        """Whether a store has all but the last seconds of its streams; in a drain, all that they had when it began."""
        drains = self._context.available_now
        since_us = self._began_us if drains else time.time_ns() // 1000 - _CAUGHT_UP_US
        return all(as_of.stores[store].at_us >= since_us for as_of in self._as_of.values())

    def _look_at(self, config: SinkConfig, *, caught_up: bool) -> None:
        """End the store's load if it is over; without a load, a backlog may begin one."""
        seldom = time.monotonic() + _SELDOM_SECONDS
        if not caught_up:
            self._next_look[config.name] = seldom
        with closing(open_sink(config, *self._model)) as sink:
            load = sink.bulk_load_now()
            if load is None:
                self._looks.pop(sink.name, None)
                self._next_look[sink.name] = seldom
                if not caught_up:
                    self._look_at_backlog(sink)
                return
            self._progress.pop(sink.name, None)
            if caught_up:
                is_over = self._is_over(sink, load)
            else:
                is_over = load.expected is not None and is_outgrown(load, sink.stored_vectors(), sink.most_compared)
        if is_over:
            self._build(config)

    def _is_over(self, sink: Sink, load: BulkLoad) -> bool:
        """Whether the load of a store that has caught up is over: nobody else is at it, and few vectors come."""
        if load.renewed_us is not None and not is_abandoned(load, time.time_ns() // 1000):
            return False
        now = Look(time.monotonic(), sink.stored_vectors())
        before = self._looks.setdefault(sink.name, now)
        if now.at - before.at >= SETTLED_SECONDS:
            self._looks[sink.name] = now
        return now.vectors >= sink.least_indexed and (self._context.available_now or is_settled(before, now))

    def _look_at_backlog(self, sink: Sink) -> None:
        """Begin a load where what came of a store's backlog says that the rest is worth it."""
        if HEADROOM * sink.stored_vectors() >= sink.most_compared:
            return
        began = time.monotonic()
        summary = sink.summary()
        try:
            read, left = self._positions(sink.name)
        except PipelineError:
            return  # the source's query says what is wrong with it
        now = Progress(summary.documents, summary.chunks, read, left)
        first = self._progress.setdefault(sink.name, now)
        self._next_look[sink.name] = time.monotonic() + _PAUSE_MULTIPLE * (time.monotonic() - began)
        if now.documents <= first.documents:
            self._progress[sink.name] = now
        elif new := expected_vectors(first, now):
            self._begin(sink, "catching up", new)

    def _positions(self, store: str) -> tuple[int, int | None]:
        """How many records were written to a store, from any point on, and how many are left, where all sources say that."""
        read, left = 0, list[int | None]()
        for source in self._context.config.sources:
            start, _ = for_readers(source, self._context.checkpoint(f"index_{source.name}"), [store])
            positions = as_numbers(start.stores[store])
            read += sum(positions.values())
            left.append(records_after(source, positions))
        known = [records for records in left if records is not None]
        return read, sum(known) if len(known) == len(left) else None

    def _begin(self, sink: Sink, by: str, new: int = 0) -> None:
        if sink.begin_bulk_load(BulkLoad(by, time.time_ns() // 1000), new):
            context = {"store": sink.name, "load": by}
            _LOG.info("store is loaded without its vector index", extra={"context": context})

    def _build(self, config: SinkConfig) -> None:
        """Build in a thread that keeps no driver from ending; a drain waits for it."""
        thread = threading.Thread(target=self._run, args=(config,), daemon=True, name=f"vector index of {config.name}")
        self._building[config.name] = thread
        thread.start()
        if self._context.available_now:
            thread.join()

    def _run(self, config: SinkConfig) -> None:
        began = time.monotonic()
        try:
            with closing(open_sink(config, *self._model)) as sink:
                if sink.end_bulk_load(_logging(config.name)):
                    context = {"store": config.name, "seconds": round(time.monotonic() - began, 1)}
                    _LOG.info("vector index is built", extra={"context": context})
        except PipelineError as error:
            self._errors[config.name] = error


def _logging(store: str) -> Callable[[Build], object]:
    """A listener that logs now and then how far an index is built."""
    logged = time.monotonic()

    def report(build: Build) -> None:
        nonlocal logged
        if time.monotonic() - logged >= _LOG_SECONDS:
            logged = time.monotonic()
            _LOG.info("store: %s", filling(None, 0, build), extra={"context": {"store": store}})

    return report
