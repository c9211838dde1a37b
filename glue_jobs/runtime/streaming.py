"""The one place that calls `foreachBatch`: a query as Spark runs it, from start to end.

A batch is evaluated once: the job does one action on it, or says `keep` (I11). What the job raises is kept here,
since Spark hands it on as text.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

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
"""How long a batch may take to end when the query is asked to stop, before Spark interrupts it."""
_TICK_STOP_SECONDS = 3.0
"""The same of a tick of the clock, whose work is done elsewhere."""
_ON_A_DISK = {
    "spark.sql.streaming.checkpointFileManagerClass": (
        "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
    ),
}


class QueryFailedError(Exception):
    """The query ended by itself. `cause` is what really happened, `text` what Spark says of it (for matching only)."""

    def __init__(self, cause: BaseException, text: str) -> None:
        """Keep both; the message holds neither, since they may quote a row."""
        super().__init__(type(cause).__name__)
        self.cause = cause
        self.text = text


class _StoppingError(Exception):
    """Ends a query before a batch that nothing was done for yet."""


class RunningQuery:
    """One start of a query.

    `batches` counts the batches it finished, `batch_id` is the last one it began, `idle_at` when its source was last
    seen to hold nothing new, `ticked_at` when a tick of the clock was last done (seconds since the epoch).
    """

    def __init__(
        self, query: Query, context: JobContext, stop: threading.Event, reported: Reported, held: Lease
    ) -> None:
        """Keep what to run; nothing is started yet."""
        self._query = query
        self._context = context
        self._stop = stop
        self._reported = reported
        self._held = held
        self._failure: BaseException | None = None
        self._spark_query: StreamingQuery | None = None
        self._query_id = ""
        self.batches = 0
        self.batch_id: int | None = None
        self.starts_again = False
        self.idle_at = self.ticked_at = 0.0
        self._clock: tempfile.TemporaryDirectory[str] | None = None
        self._began = time.time()
        self._looked_at = 0.0

    def run(self) -> None:
        """Start the query and return when it was asked to stop, is to start again or, with `available_now`, is drained.

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
        except Exception as error:  # whatever reading or starting raises is judged by the runner
            if not self._stopped_by(error):
                raise QueryFailedError(error, spark_text(error)) from error
        finally:
            self._end()

    def drained(self) -> None:
        """Take it that all the source held when this start began is written."""
        self._query.as_of.emptied(round(self._began * 1_000_000))

    @property
    def as_of(self) -> AsOf:
        """Up to when all that the source committed is written."""
        return self._query.as_of

    @property
    def ticks(self) -> bool:
        """Whether its batches are the ticks of a clock."""
        return self._clock is not None

    @property
    def age_seconds(self) -> float:
        """Since it was started."""
        return time.time() - self._began

    def progress(self) -> dict[str, Any] | None:
        """Spark's last progress report; None before the first, and of a clock."""
        last = self._spark_query.lastProgress if self._spark_query is not None and not self.ticks else None
        return dict(last) if last is not None else None

    def _start(self, frame: DataFrame | None) -> bool:
        """Start; returns whether the runtime must drain it, because its source knows no Trigger.AvailableNow."""
        session = self._context.spark
        session.sparkContext.setLocalProperty("spark.scheduler.pool", self._query.pool)
        checkpoint = self._context.checkpoint(self._query.name)
        if frame is None:
            self._clock = tempfile.TemporaryDirectory(prefix="ragstream-clock-", ignore_cleanup_errors=True)
            frame, checkpoint = _ticks(session), f"file://{self._clock.name}"
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
        """Hand one micro-batch to the job; called by Spark on a thread of its own."""
        began = time.monotonic()
        self.batch_id = batch_id
        try:
            if self._stop.is_set():
                self._refuse()
            self._held.confirm()
            with kept(frame) if self._query.keep else contextlib.nullcontext(frame) as records:
                report = self._query.write(Batch(records, batch_id, self._id(frame)))
            self._held.confirm()  # Spark notes the offsets next
        except BaseException as error:
            self._failure = error
            raise
        self.batches += 1
        if self.ticks:
            self.ticked_at = time.time()
        elif report is not None:
            self._query.as_of.wrote(report.reached_us)
        self._reported(None if self.ticks else batch_id, report, time.monotonic() - began)

    def _refuse(self) -> NoReturn:
        raise _StoppingError

    def _id(self, frame: DataFrame) -> str:
        """The id that stands in the checkpoint: Spark sets it on the thread that runs the batch."""
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
            self._held.raise_if_lost()
            if not self.ticks:
                self._notice_idle(query)
            self._stop.wait(_POLL_SECONDS)
        self._raise_failure()

    def _notice_idle(self, query: StreamingQuery) -> None:
        """Look about once a second which partitions hold nothing new.

        Spark's status is looked at between two triggers only: during one, and while a broker does not answer, it still
        holds what the trigger before found. The trigger that found nothing began at most its interval ago.
        """
        now = time.time()
        if now - self._looked_at < 1.0 + self._query.every_seconds:
            return
        if self._query.empty_us is not None:
            empty_us = self._query.empty_us(self.progress())
            if not empty_us:
                return
            self._query.as_of.looked(empty_us)
            idle_at = min(empty_us.values()) / 1_000_000
        elif not self._has_looked() or _is_busy(query):
            return
        else:
            idle_at = now - self._query.every_seconds - _POLL_SECONDS
            self._query.as_of.emptied(round(idle_at * 1_000_000))
        self._looked_at = now
        self.idle_at = max(self.idle_at, idle_at)

    def _has_looked(self) -> bool:
        """Whether a trigger has asked the source yet: one that found nothing leaves a report, after some seconds."""
        return self.batch_id is not None or self.progress() is not None

    def _drain(self) -> None:
        """Wait until the source has nothing that was not processed and committed."""
        waiting = threading.Thread(target=self._process_all, name=f"{self._query.name}-drain", daemon=True)
        waiting.start()
        while waiting.is_alive() and not self._stop.is_set():
            waiting.join(_POLL_SECONDS)
        if not self._stop.is_set():
            self._raise_failure()

    def _process_all(self) -> None:
        # A query that died says so itself, with its exception.
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
        """End between two batches where there are any: a batch in flight is finished, the next one is refused."""
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


def _ticks(session: SparkSession) -> DataFrame:
    """A stream without content: a batch at each trigger (`rate-micro-batch`, Structured Streaming Programming Guide).

    What Spark writes down of it means nothing, so each start has its own, in a folder of this machine.
    """
    clock = session.newSession()
    for name, value in _ON_A_DISK.items():
        clock.conf.set(name, value)
    return clock.readStream.format("rate-micro-batch").option("rowsPerBatch", 1).load()


def _is_busy(query: StreamingQuery) -> bool:
    status = query.status
    return bool(status["isDataAvailable"] or status["isTriggerActive"])


def _is_python_source(frame: DataFrame) -> bool:
    """Whether a source of ours feeds it: Spark 4.1 asks a Python source for its end once and calls that everything."""
    plan = frame._jdf.queryExecution().logical().toString()  # noqa: SLF001 - PySpark shows plans to people only
    return "PythonDataSource" in str(plan) or "ragstream_" in str(plan)
