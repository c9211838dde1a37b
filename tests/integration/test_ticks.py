"""A query by the clock: its ticks come whether there is anything to do or not, and nothing is kept of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from glue_jobs.config.pipeline import parse_config
from glue_jobs.config.values import Substitution
from glue_jobs.runtime import Batch, JobContext, Query, Report, StoresAsOf
from glue_jobs.runtime.runner import run_queries
from glue_jobs.status.record import QueryRecord, StatusRecords, read_all
from glue_jobs.status.report import lag_of
from schemas.errors import SourceGoneError, StoppedError, UnavailableError

CONFIG = """
name: ticks
source: {{type: files, format: kafka, envelope: debezium, path: [{folder}/none.jsonl]}}
tables: [{{table: public.t, keys: [id]}}]
lake: {{path: {folder}/lake}}
checkpoint: {folder}/checkpoint
"""


class Ticking:
    """A query of which a test says what its ticks do."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        config = parse_config(CONFIG.format(folder=folder), "ticks", Substitution({}, folder))
        self.context, self.folder = JobContext(spark, config), folder
        self.as_of = StoresAsOf(["a", "b"])
        self.begun = self.ended = 0
        self.ticks: list[int] = []
        self.stop = threading.Event()

    def run(self, write: Callable[[Batch], Report]) -> None:
        def read() -> None:
            self.begun += 1

        def tick(batch: Batch) -> Report:
            self.ticks.append(batch.batch_id)
            return write(batch)

        def end() -> None:
            self.ended += 1

        query = Query("index_files", read, tick, 0.2, as_of=self.as_of, end=end)
        run_queries([query], self.context, self.stop, StatusRecords(self.context.config.checkpoint))

    def record(self) -> QueryRecord:
        return next(iter(read_all(self.context.config.checkpoint)))


@pytest.fixture
def ticking(spark: SparkSession, tmp_path: Path) -> Ticking:
    return Ticking(spark, tmp_path)


def test_counts_of_ticks_add_up_over_failures_and_starts(ticking: Ticking) -> None:
    def write(_: Batch) -> Report:
        ticking.as_of.stores["a"].looked({"t/0": time.time_ns() // 1000})
        ticking.as_of.stores["b"].looked({"t/0": 1_000_000})
        match len(ticking.ticks):
            case 3:
                raise UnavailableError("the broker is away")
            case 6:
                ticking.stop.set()
        return Report({"public.t": {"indexed": 2}}, error="sink b: it does not answer")

    ticking.run(write)
    assert ticking.ticks == [0, 1, 2, 0, 1, 2], "each start has a clock of its own"
    assert (ticking.begun, ticking.ended) == (2, 1)
    record = ticking.record()
    assert record.counts == {"public.t": {"indexed": 10}}
    assert (record.batches, record.last_error) == (5, "sink b: it does not answer")
    assert record.stores_as_of_us["b"] == record.as_of_us == 1_000_000
    lag = lag_of([record], "a")
    assert lag is not None
    assert 0 <= lag < 60 < (lag_of([record], "b") or 0)
    left = {file.name for file in (ticking.folder / "checkpoint").rglob("*") if file.is_file()}
    assert left == {"index_files.json", ".index_files.lock"}, "no offsets, no commits"


@pytest.mark.parametrize(
    ("error", "starts"),
    [(SourceGoneError("the topic is gone"), 1), (ValueError("a secret"), 4)],
    ids=["gone", "defect"],
)
def test_query_that_cannot_go_on_ends_driver_though_some_ticks_were_done(
    ticking: Ticking, error: Exception, starts: int
) -> None:
    def write(batch: Batch) -> Report:
        if batch.batch_id == 1:
            raise error
        return Report()

    with pytest.raises(StoppedError) as raised:
        ticking.run(write)
    assert "a secret" not in str(raised.value)
    assert (ticking.begun, ticking.ended) == (starts, 1)


def test_a_record_that_cannot_be_read_yet_is_waited_for(ticking: Ticking, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, refused = StatusRecords.begin, list[str]()

    def away_at_first(records: StatusRecords, query: str) -> None:
        if not refused:
            refused.append(query)
            raise UnavailableError("S3 does not answer")
        begin(records, query)

    def write(_: Batch) -> Report:
        ticking.stop.set()
        return Report({"public.t": {"indexed": 2}})

    monkeypatch.setattr(StatusRecords, "begin", away_at_first)
    ticking.run(write)
    assert refused == ["index_files"]
    assert ticking.record().counts == {"public.t": {"indexed": 2}}


def hanging(_: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """A task whose reader does not answer."""
    threading.Event().wait()
    yield from ()


def test_a_stop_ends_a_tick_whose_job_does_not_end(ticking: Ticking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glue_jobs.runtime.streaming._TICK_STOP_SECONDS", 0.5)

    def write(_: Batch) -> Report:
        ticking.stop.set()
        ticking.context.spark.range(1).mapInArrow(hanging, "id long").toArrow()
        return Report()

    ticking.run(write)
    assert ticking.ended == 1
