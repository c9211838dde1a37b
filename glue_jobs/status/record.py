"""Status records: the counts of each query since the pipeline's first run, as one small JSON file a query.

`<checkpoint>/status/<query>.json` is written by the driver that has the query's lease and read by `ragstream status`. Counts
of a batch that runs again replace the counts of its first run; a kill loses at most the last second of counts.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from glue_jobs.runtime.jobs import Report
from glue_jobs.status.as_of import StoresAsOf
from glue_jobs.status.freshness import Freshness
from glue_jobs.storage import files
from schemas.errors import UnavailableError

if TYPE_CHECKING:
    from glue_jobs.runtime.streaming import RunningQuery

_LOG = logging.getLogger(__name__)
_LOCAL_SECONDS = 0.5
_REMOTE_SECONDS = 3.0
"""On S3, where each write is a put. Together with the age of a tick and the runner's pause it stays under the 5 s after which
`status` treats a record as stale."""
FOLDER = "status"

type Counts = dict[str, dict[str, int]]


@dataclass
class QueryRecord:
    """The sums of one query."""

    query: str
    updated_at: float = 0.0
    pid: int = 0
    running: bool = False
    batches: int = 0
    batch_id: int = -1
    counts: Counts = field(default_factory=dict)
    batch_counts: Counts = field(default_factory=dict)
    """Counts of the batch `batch_id`, subtracted if it runs again."""
    embedding: dict[str, int] = field(default_factory=dict)
    columns_missing: dict[str, list[Any]] = field(default_factory=dict)
    """By table: the sequence of the newest complete row, and the document's columns that it lacks."""
    freshness: dict[str, Freshness] = field(default_factory=dict)
    batch_seconds: Freshness = field(default_factory=Freshness)
    last_error: str = ""
    waiting: bool = False
    """Whether the query is between a failure and its restart."""
    idle_at: float = 0.0
    """The last time at which the source held nothing new, in seconds since the epoch."""
    as_of_us: int = 0
    """Everything committed up to this time, in microseconds since the epoch, is written; 0: not known yet."""
    stores_as_of_us: dict[str, int] = field(default_factory=dict)
    """The same for each store."""
    ticked_at: float = 0.0
    """For a query of the clock: the last update of `as_of_us`, in seconds since the epoch."""

    def add(self, batch_id: int | None, report: Report, seconds: float, now: float) -> None:
        """Add a batch's report; a `batch_id` of None never runs again."""
        if batch_id is None or batch_id != self.batch_id:
            self.batch_counts = {}
        _add(self.counts, self.batch_counts, -1)
        _add(self.counts, report.counts, 1)
        if batch_id is not None:
            self.batch_id = batch_id
            self.batch_counts = {table: dict(counted) for table, counted in report.counts.items()}
        self.batches += 1
        for name, count in report.embedding.items():
            self.embedding[name] = self.embedding.get(name, 0) + count
        for table, (sequence, names) in report.columns_missing.items():
            self.columns_missing[table] = max([sequence, list(names)], self.columns_missing.get(table, []))
        for table, milliseconds in report.freshness_ms.items():
            self.freshness.setdefault(table, Freshness()).add(milliseconds, int(now // 60))
        self.batch_seconds.add([seconds * 1000], int(now // 60))
        self.last_error, self.waiting = report.error, False

    def to_json(self) -> dict[str, Any]:
        """The form in the file."""
        stored = dict(self.__dict__)
        stored["freshness"] = {table: freshness.to_json() for table, freshness in self.freshness.items()}
        stored["batch_seconds"] = self.batch_seconds.to_json()
        return stored

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> QueryRecord:
        """Read what `to_json` returned; keys of another version are ignored."""
        fields = {name: value for name, value in stored.items() if name in cls.__dataclass_fields__}
        fields["freshness"] = {
            table: Freshness.from_json(freshness) for table, freshness in fields.get("freshness", {}).items()
        }
        fields["batch_seconds"] = Freshness.from_json(fields.get("batch_seconds", {}))
        return cls(**fields)


class StatusRecords:
    """The records of one driver's queries; safe to use from their threads."""

    def __init__(self, checkpoint: str) -> None:
        """Take the pipeline's checkpoint; nothing is read before a query begins."""
        self._folder = folder_of(checkpoint)
        self._records: dict[str, QueryRecord] = {}
        self._written: dict[str, float] = {}
        self._interval = _REMOTE_SECONDS if files.is_remote(checkpoint) else _LOCAL_SECONDS
        self._lock = threading.Lock()

    def begin(self, query: str) -> None:
        """Load the query's record, or begin one."""
        with self._lock:
            record = _read(self._folder, query) or QueryRecord(query)
            record.pid, record.running = os.getpid(), True
            self._records[query] = record
            self._write(record)

    def add(self, query: str, batch_id: int | None, report: Report | None, seconds: float) -> None:
        """Add a batch's report; written at once when it has model requests, since a rerun would not count them again."""
        with self._lock:
            record = self._records[query]
            record.add(batch_id, report or Report(), seconds, time.time())
            if self._due(query) or (report is not None and report.embedding and self._interval == _LOCAL_SECONDS):
                self._write(record)

    def failed(self, query: str, error: str) -> None:
        """Store the failure that a query is restarted after."""
        with self._lock:
            record = self._records[query]
            record.last_error, record.waiting = error, True
            self._write(record)

    def observe(self, query: str, running: RunningQuery, *, at_once: bool = False) -> None:
        """Store the as-of times of a query, at most once an interval."""
        if query not in self._records or not (at_once or self._due(query)):
            return
        with self._lock:
            record = self._records[query]
            record.idle_at = max(record.idle_at, running.idle_at)
            record.ticked_at = running.ticked_at
            record.as_of_us = max(record.as_of_us, running.as_of.at_us)
            if isinstance(running.as_of, StoresAsOf):
                record.stores_as_of_us = {name: store.at_us for name, store in running.as_of.stores.items()}
            self._write(record)

    def end(self) -> None:
        """Write every record a last time."""
        with self._lock:
            for record in self._records.values():
                record.running = False
                self._write(record)

    def _due(self, query: str) -> bool:
        return time.monotonic() - self._written.get(query, 0.0) >= self._interval

    def _write(self, record: QueryRecord) -> None:
        """Write a record; a failure is logged and does not stop the query."""
        record.updated_at = time.time()
        self._written[record.query] = time.monotonic()
        try:
            files.write(f"{self._folder}/{record.query}.json", json.dumps(record.to_json()))
        except (OSError, UnavailableError) as error:
            _LOG.warning(
                "status cannot be written", extra={"context": {"query": record.query, "error": type(error).__name__}}
            )


def folder_of(checkpoint: str) -> str:
    """The folder of a pipeline's records."""
    return f"{checkpoint.rstrip('/')}/{FOLDER}"


def read_all(checkpoint: str) -> Iterator[QueryRecord]:
    """The records of every query that ran with this checkpoint."""
    folder = folder_of(checkpoint)
    for name in files.names(folder):
        if name.endswith(".json") and (record := _read(folder, name.removesuffix(".json"))) is not None:
            yield record


def _read(folder: str, query: str) -> QueryRecord | None:
    text = files.read(f"{folder}/{query}.json")
    return None if text is None else QueryRecord.from_json(json.loads(text))


def _add(total: Counts, more: Mapping[str, Mapping[str, int]], sign: int) -> None:
    for table, counted in more.items():
        sums = total.setdefault(table, {})
        for name, count in counted.items():
            sums[name] = sums.get(name, 0) + sign * count
