"""The first load of a store in the driver of `index_documents`: begun while the store is empty, ended once the streams are read.

Its state is in the store, so whichever driver sees that it is over ends it; a load that a killed command left is ended too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from schemas.errors import PipelineError
from sinks import open_sink
from sinks.bulk_loads import SETTLED_SECONDS, Build, Look, filling, is_abandoned, is_settled
from sinks.versions import BulkLoad

if TYPE_CHECKING:
    from glue_jobs.continuous.stores import Stores
    from glue_jobs.runtime import StoresAsOf
    from sinks import SinkConfig
    from sinks.protocol import Sink

_LOG = logging.getLogger(__name__)
EVERY_SECONDS = 2.0
_CAUGHT_UP_US = 10_000_000
"""A store that has all but the last ten seconds of its streams has caught up."""
_LOG_SECONDS = _SELDOM_SECONDS = 30.0


class BulkLoads:
    """The loads of a driver's stores. Safe to stop anywhere: PostgreSQL goes on building, and the next driver waits for it."""

    def __init__(
        self,
        sinks: Sequence[SinkConfig],
        model: tuple[str, int],
        as_of: Mapping[str, StoresAsOf],
        stores: Stores,
        *,
        drains: bool,
    ) -> None:
        """Take the stores, the identity of the model, the as-of times by source, and whether the driver ends with its streams."""
        self._sinks, self._model, self._as_of, self._stores, self._drains = sinks, model, as_of, stores, drains
        self._looks: dict[str, Look] = {}
        self._look_at: dict[str, float] = {}
        """When a store that had no load is looked at again (monotonic): a command may have left one."""
        self._building: dict[str, threading.Thread] = {}
        self._errors: dict[str, PipelineError] = {}

    def begin(self, sinks: Sequence[Sink]) -> None:
        """Begin a load of every store that is empty."""
        for sink in sinks:
            if sink.name in self._stores.away:
                continue
            if sink.begin_bulk_load(BulkLoad("first load", time.time_ns() // 1000)):
                _LOG.info("store is loaded without its vector index", extra={"context": {"store": sink.name}})

    def end(self) -> None:
        """End the loads that are over."""
        for config in self._sinks:
            name = config.name
            if (error := self._errors.pop(name, None)) is not None:
                raise error
            is_due = self._drains or time.monotonic() >= self._look_at.get(name, 0.0)
            if not is_due or name in self._stores.unready or not self._has_caught_up(name):
                continue
            thread = self._building.get(name)
            if (thread is None or not thread.is_alive()) and self._is_over(config):
                self._build(config)

    def _has_caught_up(self, store: str) -> bool:
        since_us = time.time_ns() // 1000 - _CAUGHT_UP_US
        return all(as_of.stores[store].at_us >= since_us for as_of in self._as_of.values())

    def _is_over(self, config: SinkConfig) -> bool:
        with closing(self._open(config)) as sink:
            load, now_us = sink.bulk_load_now(), time.time_ns() // 1000
            if load is None:
                self._look_at[sink.name] = time.monotonic() + _SELDOM_SECONDS
                return False
            if load.renewed_us is not None and not is_abandoned(load, now_us):
                return False
            now = Look(time.monotonic(), sink.stored_vectors())
            before = self._looks.setdefault(sink.name, now)
            if now.at - before.at >= SETTLED_SECONDS:
                self._looks[sink.name] = now
            return now.vectors >= sink.least_indexed and (self._drains or is_settled(before, now))

    def _build(self, config: SinkConfig) -> None:
        """Build in a thread that keeps no driver from ending; a drain waits for it."""
        thread = threading.Thread(target=self._run, args=(config,), daemon=True, name=f"vector index of {config.name}")
        self._building[config.name] = thread
        thread.start()
        if self._drains:
            thread.join()

    def _run(self, config: SinkConfig) -> None:
        began = time.monotonic()
        try:
            with closing(self._open(config)) as sink:
                if sink.end_bulk_load(_logging(config.name)):
                    context = {"store": config.name, "seconds": round(time.monotonic() - began, 1)}
                    _LOG.info("vector index is built", extra={"context": context})
        except PipelineError as error:
            self._errors[config.name] = error

    def _open(self, config: SinkConfig) -> Sink:
        return open_sink(config, *self._model)


def _logging(store: str) -> Callable[[Build], object]:
    """A listener that logs now and then how far an index is built."""
    logged = time.monotonic()

    def report(build: Build) -> None:
        nonlocal logged
        if time.monotonic() - logged >= _LOG_SECONDS:
            logged = time.monotonic()
            _LOG.info("store: %s", filling(None, 0, build), extra={"context": {"store": store}})

    return report
