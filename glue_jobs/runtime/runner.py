"""Keeps the queries of one driver running, each with its own restarts, until they are drained, stopped or failed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from glue_jobs.runtime.failures import Kind, failed_too_often, kind_of, without_content
from glue_jobs.runtime.jobs import JobContext, Periodic, Query, Report
from glue_jobs.runtime.streaming import QueryFailedError, RunningQuery
from glue_jobs.status.record import StatusRecords
from glue_jobs.storage.lease import Lease, lease
from schemas.errors import PipelineError, UnavailableError

_LOG = logging.getLogger(__name__)
_STEADY_SECONDS = 60.0
"""After this time a query of the clock counts as recovered from its last failure."""


_MOST_RESTARTS = {Kind.PROGRESS_BUG: 5, Kind.CONTENDED: 10, Kind.UNKNOWN: 3, Kind.FINAL: 0}
"""Restarts after failures at the same batch; without a limit for a part that is unavailable."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 5.0


class Supervisor:
    """One query and its restarts; `run` returns when the query is drained or was asked to stop."""

    def __init__(self, query: Query, context: JobContext, stop: threading.Event, records: StatusRecords) -> None:
        """Keep what to run; nothing is started yet."""
        self.query = query
        self.done = threading.Event()
        self.error: PipelineError | None = None
        self.current: RunningQuery | None = None
        self._context = context
        self._stop = stop
        self._records = records

        self._checkpoint = context.checkpoint(query.name)

    def run(self, after: Iterable[Supervisor]) -> None:
        """Run on a thread of its own; sets `error` to what ended it."""
        try:
            for earlier in after:
                while not earlier.done.wait(0.1) and not self._stop.is_set():
                    pass
            with lease(self._checkpoint, self._stop) as acquired:
                if acquired is not None:
                    self._begin()
                    self._keep_running(acquired)
        except PipelineError as error:
            self.error = error
        except BaseException as error:  # noqa: BLE001 - a defect of the runner must end the driver, not only one thread
            self.error = failed_too_often(self.query.name, 1, error, None)
        finally:
            if self.error is not None:
                self._stop.set()
            if self.query.end is not None:
                self.query.end()
            self.done.set()

    def _begin(self) -> None:
        """Load the query's status record, again and again while its storage is unavailable."""
        failures = 0
        while not self._stop.is_set():
            try:
                self._records.begin(self.query.name)
            except UnavailableError as error:
                failures += 1
                pause = _pause_seconds(Kind.UNAVAILABLE, failures)
                self._log("waits for its status record", logging.WARNING, pause=pause, error=error.message)
                self._stop.wait(pause)
            else:
                return

    def _keep_running(self, acquired: Lease) -> None:
        failures, place = 0, None
        while not self._stop.is_set():
            running = self.current = RunningQuery(self.query, self._context, self._stop, self._reported, acquired)
            self._log("started")
            try:
                running.run()
            except QueryFailedError as failure:
                # A failure at another batch, or after a minute of ticks, starts a new count: the query made progress.
                stuck = running.age_seconds < _STEADY_SECONDS if running.ticks else running.batch_id == place
                failures, place = (failures + 1 if stuck else 1), running.batch_id
                if self._is_drained(running, failure):
                    running.drained()
                    break
                self._pause_or_raise(failure, failures, running.batch_id)
            else:
                if running.starts_again:
                    continue
                if not self._stop.is_set():
                    running.drained()
                break
            finally:
                self._records.observe(self.query.name, running, at_once=True)
        self._log("stopped" if self._stop.is_set() else "drained")

    def _is_drained(self, running: RunningQuery, failure: QueryFailedError) -> bool:
        """Whether a drain is complete: Spark found nothing new, planned no batch, and failed reporting that (SPARK-55271)."""
        kind, _ = kind_of(failure.cause, failure.text, self._checkpoint)
        return self._context.available_now and kind is Kind.PROGRESS_BUG and running.batch_id is None

    def _pause_or_raise(self, failure: QueryFailedError, failures: int, batch_id: int | None) -> None:
        """Pause before the restart, or raise the error that ends the driver."""
        kind, error = kind_of(failure.cause, failure.text, self._checkpoint)
        if failures > _MOST_RESTARTS.get(kind, failures):
            raise error or failed_too_often(self.query.name, failures, failure.cause, batch_id) from failure.cause
        pause = _pause_seconds(kind, failures)
        cause = f"{error.condition}: {error.message}" if error else without_content(failure.cause)
        self._log(
            "failed, starting again", logging.WARNING, kind=kind.value, failures=failures, pause=pause, error=cause
        )
        _LOG.debug("Spark's report of the failure: %s", failure.text)
        self._records.failed(self.query.name, cause)
        self._stop.wait(pause)

    def _reported(self, batch_id: int | None, report: Report | None, seconds: float) -> None:
        self._records.add(self.query.name, batch_id, report, seconds)

    def _log(self, event: str, level: int = logging.INFO, **context: object) -> None:
        _LOG.log(level, "query %s", event, extra={"context": {"query": self.query.name, **context}})


class PeriodicRunner:
    """Runs periodic work on a thread of its own."""

    def __init__(self, periodic: Periodic, stop: threading.Event) -> None:
        """Keep what to run."""
        self.periodic = periodic
        self.error: PipelineError | None = None
        self._stop = stop
        self._failure = ""

    def run(self, queries_done: threading.Event) -> None:
        """Run it at its interval until the queries are done, then once more."""
        try:
            while not queries_done.wait(self.periodic.every_seconds):
                self._once()
            self._once()
        except PipelineError as error:
            self.error = error
            self._stop.set()

    def _once(self) -> None:
        """Run it; an outage or unexpected failure is logged once, and retried at the next interval."""
        failure = ""
        try:
            self.periodic.run()
        except Exception as error:
            kind, mapped = kind_of(error, "", "")
            if kind is Kind.FINAL and mapped is not None:
                raise mapped from error
            failure = f"{mapped.condition}: {mapped.message}" if mapped else without_content(error)
        if failure and failure != self._failure:
            _LOG.warning("periodic work failed", extra={"context": {"work": self.periodic.name, "error": failure}})
        self._failure = failure


def run_queries(
    planned: Iterable[Query | Periodic], context: JobContext, stop: threading.Event, records: StatusRecords
) -> None:
    """Keep every query running until `stop` is set or, with `available_now`, until all are drained.

    Raises the error of the first query that failed for good; the others are stopped between two batches.
    """
    from pyspark import InheritableThread

    items = list(planned)
    supervisors = [Supervisor(item, context, stop, records) for item in items if isinstance(item, Query)]
    workers = [PeriodicRunner(item, stop) for item in items if isinstance(item, Periodic)]
    queries_done = threading.Event()
    threads = [
        InheritableThread(
            target=supervisor.run, args=(_earlier(supervisor, supervisors, context),), name=supervisor.query.name
        )
        for supervisor in supervisors
    ]
    periodic_threads = [
        threading.Thread(target=worker.run, args=(queries_done,), name=worker.periodic.name) for worker in workers
    ]
    for thread in (*threads, *periodic_threads):
        thread.daemon = True
        thread.start()
    for thread in threads:
        _join(thread, supervisors, records)
    queries_done.set()
    for thread in periodic_threads:
        thread.join()
    records.end()
    outcomes = [*(runner.error for runner in supervisors), *(runner.error for runner in workers)]
    errors = [error for error in outcomes if error is not None]
    if errors:
        raise errors[0]


def _pause_seconds(kind: Kind, failures: int) -> float:
    """The pause after the n-th failure in a row: it doubles, up to a few seconds so that a recovery is noticed soon."""
    doublings = 0 if kind is Kind.PROGRESS_BUG else min(failures - 1, 10)
    return min(_FIRST_PAUSE_SECONDS * float(2**doublings), _LONGEST_PAUSE_SECONDS)


def _join(thread: threading.Thread, supervisors: list[Supervisor], records: StatusRecords) -> None:
    """Wait in short steps, since Python handles signals only between them."""
    while thread.is_alive():
        thread.join(0.5)
        for supervisor in supervisors:
            if supervisor.current is not None:
                records.observe(supervisor.query.name, supervisor.current)


def _earlier(supervisor: Supervisor, supervisors: list[Supervisor], context: JobContext) -> list[Supervisor]:
    if not context.available_now:
        return []
    return [
        other
        for other in supervisors
        if other is not supervisor and other.query.name.startswith(supervisor.query.drains_after)
    ]
