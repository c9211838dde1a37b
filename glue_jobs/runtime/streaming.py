"""Runs one start of a query, from its source to its end; the only place that calls `foreachBatch`.

A batch is evaluated once: the job does one action on it, or sets `keep` (I11). The exception that a job raises is stored
here, since Spark reports it as text.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

from glue_jobs.runtime.failures import java_text, spark_text
from glue_jobs.runtime.jobs import Batch, JobContext, Query, Report
from lake.storage import kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

    from glue_jobs.status.as_of import AsOf
    from glue_jobs.storage.lease import Lease

    type Reported = Callable[[int | None, Report | None, float], None]

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.2
_STOP_SECONDS = 60.0
"""How long a batch may run on after a stop request, before Spark interrupts it."""
_TICK_STOP_SECONDS = 3.0
"""The same for a tick of the clock, whose work readers do."""
_ON_A_DISK = {
    "spark.sql.streaming.checkpointFileManagerClass": (
        "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
    ),
}


class QueryFailedError(Exception):
    """The query failed. `cause` is the exception of the job or of Spark, `text` Spark's report (for matching only)."""

    def __init__(self, cause: BaseException, text: str) -> None:
        """Keep both; the message holds neither, since they may quote a row."""
        super().__init__(type(cause).__name__)
        self.cause = cause
        self.text = text


class _StoppingError(Exception):
    """Ends a query before a batch is processed."""


class RunningQuery:
    """One start of a query.

    `batches` counts finished batches, `batch_id` is the last batch begun, `idle_at` the time at which its source was last
    seen without new records, `ticked_at` the end of the last tick of the clock (seconds since the epoch).
    """

    def __init__(
        self, query: Query, context: JobContext, stop: threading.Event, reported: Reported, lease: Lease
    ) -> None:
        """Keep what to run; nothing is started yet."""
        self._query = query
        self._context = context
        self._stop = stop
        self._reported = reported
        self._lease = lease
        self._failure: BaseException | None = None
        self._spark_query: StreamingQuery | None = None
        self._query_id = ""
        self.batches = 0
        self.batch_id: int | None = None
        self.starts_again = False
        self.idle_at = self.ticked_at = 0.0
        self._clock: tempfile.TemporaryDirectory[str] | None = None
        self._began = time.time()
        self._polled_at = 0.0

    def run(self) -> None:
        """Start the query; return after a stop request, for a restart or, with `available_now`, when it is drained.

        Raises QueryFailedError when it ends otherwise.
        """
        try:
            drains = self._start(self._query.read())
            if drains:
                self._drain()
            else:
                self._wait()
        except QueryFailedError:
            raise
        except Exception as error:  # the runner classifies whatever reading or starting raises
            if not self._stopped_by(error):
                raise QueryFailedError(error, spark_text(error)) from error
        finally:
            self._end()

    def drained(self) -> None:
        """Record that everything in the source at this start is written."""
        self._query.as_of.emptied(round(self._began * 1_000_000))

    @property
    def as_of(self) -> AsOf:
        """The time up to which all commits of the source are written."""
        return self._query.as_of

    @property
    def ticks(self) -> bool:
        """Whether its batches are ticks of a clock."""
        return self._clock is not None

    @property
    def age_seconds(self) -> float:
        """Seconds since the start."""
        return time.time() - self._began

    def progress(self) -> dict[str, Any] | None:
        """Spark's last progress report; None before the first, and of a clock."""
        last = self._spark_query.lastProgress if self._spark_query is not None and not self.ticks else None
        return dict(last) if last is not None else None

    def _start(self, frame: DataFrame | None) -> bool:
        """Start; returns whether the runtime must drain it, because its source does not support Trigger.AvailableNow."""
        session = self._context.spark
        session.sparkContext.setLocalProperty("spark.scheduler.pool", self._query.pool)
        checkpoint = self._context.checkpoint(self._query.name)
        if frame is None:
            self._clock = tempfile.TemporaryDirectory(prefix="ragstream-clock-", ignore_cleanup_errors=True)
            frame, checkpoint = _clock_stream(session), f"file://{self._clock.name}"
        by_hand = self._context.available_now and _is_python_source(frame)
        writer = frame.writeStream.queryName(self._query.name).foreachBatch(self._write)
        writer = writer.option("checkpointLocation", checkpoint)
        if self._context.available_now and not by_hand:
            writer = writer.trigger(availableNow=True)
        else:
            seconds = 0.0 if by_hand else self._query.every_seconds
            writer = writer.trigger(processingTime=f"{round(seconds * 1000)} milliseconds")
        self._spark_query = writer.start()
        return by_hand

    def _write(self, frame: DataFrame, batch_id: int) -> None:
        """Pass one micro-batch to the job; Spark calls it on a thread of its own."""
        began = time.monotonic()
        self.batch_id = batch_id
        if self._stop.is_set():
            self._failure = _StoppingError()
            raise self._failure
        try:
            self._lease.confirm()
            with kept(frame) if self._query.keep else contextlib.nullcontext(frame) as records:
                report = self._query.write(Batch(records, batch_id, self._id(frame)))
            self._lease.confirm()  # Spark commits the offsets next
        except BaseException as error:
            self._failure = error
            raise
        self.batches += 1
        if self.ticks:
            self.ticked_at = time.time()
        elif report is not None:
            self._query.as_of.wrote(report.reached_us)
        self._reported(None if self.ticks else batch_id, report, time.monotonic() - began)

    def _id(self, frame: DataFrame) -> str:
        """The query id stored in the checkpoint: Spark sets it on the thread that runs the batch."""
        if not self._query_id:
            self._query_id = str(frame.sparkSession.sparkContext.getLocalProperty("sql.streaming.queryId"))
        return self._query_id

    def _wait(self) -> None:
        query = self._running()
        while query.isActive:
            self.starts_again = self._query.again()
            if self._stop.is_set() or self.starts_again:
                self._end()
                return
            self._lease.raise_if_lost()
            if not self.ticks:
                self._notice_idle(query)
            self._stop.wait(_POLL_SECONDS)
        self._raise_failure()

    def _notice_idle(self, query: StreamingQuery) -> None:
        """Check about once a second whether partitions are caught up.

        Spark's status is valid between two triggers only: during one, and while a broker does not answer, it still shows
        the result of the trigger before. A trigger that found nothing began at most one interval ago.
        """
        now = time.time()
        if now - self._polled_at < 1.0 + self._query.every_seconds:
            return
        if self._query.empty_us is not None:
            empty_us = self._query.empty_us(self.progress())
            if not empty_us:
                return
            self._query.as_of.looked(empty_us)
            idle_at = min(empty_us.values()) / 1_000_000
        elif not self._has_polled() or _is_busy(query):
            return
        else:
            idle_at = now - self._query.every_seconds - _POLL_SECONDS
            self._query.as_of.emptied(round(idle_at * 1_000_000))
        self._polled_at = now
        self.idle_at = max(self.idle_at, idle_at)

    def _has_polled(self) -> bool:
        """Whether a trigger has polled the source: one that found nothing leaves a progress report after some seconds."""
        return self.batch_id is not None or self.progress() is not None

    def _drain(self) -> None:
        """Wait until everything in the source is processed and committed."""
        waiting = threading.Thread(target=self._process_all, name=f"{self._query.name}-drain", daemon=True)
        waiting.start()
        while waiting.is_alive() and not self._stop.is_set():
            waiting.join(_POLL_SECONDS)
        if not self._stop.is_set():
            self._raise_failure()

    def _process_all(self) -> None:
        # `_raise_failure` reports a failed query.
        with contextlib.suppress(Exception):
            self._running().processAllAvailable()

    def _raise_failure(self) -> None:
        failed = self._running()._jsq.exception()  # noqa: SLF001 - the public one has lost the Java causes
        if isinstance(self._failure, _StoppingError) or not (failed.isDefined() or self._failure):
            return
        text = java_text(failed.get()) if failed.isDefined() else ""
        cause = self._failure or self._running().exception() or RuntimeError("the query ended")
        raise QueryFailedError(cause, f"{spark_text(cause)}\n{text}")

    def _end(self) -> None:
        """Stop between two batches: the batch in flight is finished, the next one refused."""
        query = self._spark_query
        if query is None:
            return
        deadline = time.monotonic() + (_TICK_STOP_SECONDS if self.ticks else _STOP_SECONDS)
        while query.isActive and query.status["isTriggerActive"] and time.monotonic() < deadline:
            time.sleep(0.02)
        if query.isActive:
            query.stop()
        if self._clock is not None:
            self._clock.cleanup()

    def _stopped_by(self, error: BaseException) -> bool:
        return isinstance(error, _StoppingError) or (self._stop.is_set() and isinstance(self._failure, _StoppingError))

    def _running(self) -> StreamingQuery:
        if self._spark_query is None:
            raise RuntimeError("the query was not started")
        return self._spark_query


def _clock_stream(session: SparkSession) -> DataFrame:
    """A clock: one batch at each trigger (`rate-micro-batch`, Structured Streaming Programming Guide).

    Its offsets mean nothing, so each start has a checkpoint of its own in a temporary folder.
    """
    clock = session.newSession()
    for name, value in _ON_A_DISK.items():
        clock.conf.set(name, value)
    return clock.readStream.format("rate-micro-batch").option("rowsPerBatch", 1).load()


def _is_busy(query: StreamingQuery) -> bool:
    status = query.status
    return bool(status["isDataAvailable"] or status["isTriggerActive"])


def _is_python_source(frame: DataFrame) -> bool:
    """Whether a Python source feeds it: with AvailableNow Spark 4.1 asks such a source for its end only once."""
    plan = frame._jdf.queryExecution().logical().toString()  # noqa: SLF001 - PySpark can only print plans
    return "PythonDataSource" in str(plan) or "ragstream_" in str(plan)
