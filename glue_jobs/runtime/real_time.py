"""Spark's real-time mode: records flow through one stage of tasks that stay, and wait for no micro-batch.

Spark 4.1 keeps a task a partition reading until its batch is `BATCH_SECONDS` old, then commits and goes on. PySpark 4.1 has
no name for that trigger, and the list of operators that Spark runs in it holds no Python stage; both are asked for here, and
nowhere else. A source that Spark does not know in this mode is read by the tasks themselves (`sources.kinesis_open`), in
micro-batches that are as old. What a stage has to say comes back in an accumulator, before Spark commits the batch.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
from pyspark import TaskContext
from pyspark.accumulators import Accumulator, AccumulatorParam
from pyspark.sql import functions as F

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

    from glue_jobs.runtime.jobs import JobContext, Query, Stage
    from sources.kinesis_arrivals import OpenReading

BATCH_SECONDS = 5.0
"""Age at which a batch is committed. Between two batches records wait for about 0.15 s; after a kill this much is read again."""
SPARE_SLOTS = 4
"""Task slots that must be left to the other queries: a task of this mode keeps its own for good."""

_BATCH_MS = round(BATCH_SECONDS * 1000)
_SETTINGS = {
    # The list lacks MapInArrow and the noop sink.
    "spark.sql.streaming.realTimeMode.allowlistCheck": "false",
    "spark.sql.streaming.realTimeMode.minBatchDuration": f"{_BATCH_MS}ms",
    # Each record is handed to Python as it comes, rather than with those that will fill a batch and a buffer.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "1",
    "spark.sql.execution.pandas.udf.buffer.size": "4",
}
_FILLER = "_filler"
_WAITING_BYTES = 8 << 20
"""Most bytes that wait in a worker for the stage; then its reader waits, and Kafka holds the rest."""
_AT_ONCE = 512
"""Most records that are handed to the stage in one call."""

_naming = threading.Lock()


class Told(NamedTuple):
    """What a task of a batch has to say when it is done."""

    batch: int
    task: int
    seconds: float
    answers: list[bytes]
    """Arrow streams of what the stage yielded."""
    reached: str | None
    """How far it came, if it read its source itself."""


def fitting(context: JobContext, tasks: Mapping[str, int | None]) -> set[str]:
    """Those sources whose tasks can all stay: a drain ends, the other queries need slots, and None cannot stay."""
    left = context.spark.sparkContext.defaultParallelism - SPARE_SLOTS
    chosen: set[str] = set()
    for name, needed in tasks.items():
        if needed is not None and needed <= left and not context.available_now:
            chosen.add(name)
            left -= needed
    return chosen


def session(spark: SparkSession) -> SparkSession:
    """A session for the frames of this mode: the given one, with settings that suit no other query."""
    cloned = type(spark)(spark.sparkContext, spark._jsparkSession.cloneSession())  # noqa: SLF001 - newSession() forgets settings
    for name, value in _SETTINGS.items():
        cloned.conf.set(name, value)
    return cloned


def start(
    frame: DataFrame, query: Query, stage: Stage, checkpoint: str, take: Callable[[Told], None]
) -> StreamingQuery:
    """Start a query whose records flow through `stage`.

    `take` is called on the driver once a task and batch, before the batch is committed. A batch that a kill ended is run
    again from where it began, with what has come since as well; so the stage must not mind.
    """
    spark = frame.sparkSession
    told: Accumulator[Any] = spark.sparkContext.accumulator(_Taker(take), _Telling())
    reading = None if stage.opened is None else stage.opened.reading
    with _own_workers(spark, query.name):
        rows = _with_fillers(frame) if reading is None else frame
        flowing = rows.mapInArrow(_flowing(stage.run, told, reading), "nothing string")
    writer: Any = flowing.writeStream.format("noop").queryName(query.name).outputMode("update")
    writer = writer.option("checkpointLocation", checkpoint)
    if reading is None:
        jvm: Any = spark._jvm  # noqa: SLF001 - PySpark 4.1 has no name for the trigger
        trigger = jvm.org.apache.spark.sql.execution.streaming.RealTimeTrigger.apply(_BATCH_MS)
        writer._jwrite = writer._jwrite.trigger(trigger)  # noqa: SLF001
    started: StreamingQuery = writer.start()
    return started


def arriving(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Group what has come while the last group was worked on; wait when nothing has. Raises what reading raises."""
    reader = _Reader(batches)
    reader.start()
    while group := reader.group():
        yield group


class _Reader(threading.Thread):
    """Reads on while the stage works; holds at most `_WAITING_BYTES` and one record."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        super().__init__(daemon=True)
        self._batches = batches
        self._changed = threading.Condition()
        self._waiting: list[pa.RecordBatch] = []
        self._ended = False
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            for batch in self._batches:
                if not batch.column(_FILLER)[0].as_py():
                    self._add(batch.drop_columns([_FILLER]))
        except BaseException as error:  # noqa: BLE001 - raised again where the stage waits
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def group(self) -> list[pa.RecordBatch]:
        """The next group; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            group, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            self._changed.notify_all()
        if not group and self._error is not None:
            raise self._error
        return group

    def _add(self, batch: pa.RecordBatch) -> None:
        with self._changed:
            self._changed.wait_for(lambda: sum(waiting.nbytes for waiting in self._waiting) < _WAITING_BYTES)
            self._waiting.append(batch)
            self._changed.notify_all()


class _Taker:
    """The driver's value of the accumulator: hands on what is added to it."""

    def __init__(self, take: Callable[[Told], None]) -> None:
        self._take = take

    def extend(self, told: list[Told]) -> None:
        for each in told:
            self._take(each)


class _Telling(AccumulatorParam[Any]):
    """Adds lists of `Told`."""

    def zero(self, value: Any) -> list[Told]:
        return []

    def addInPlace(self, value1: Any, value2: Any) -> Any:  # noqa: N802 - PySpark's name
        value1.extend(value2)
        return value1


def _flowing(
    stage: Callable[[Iterable[Iterable[pa.RecordBatch]]], Iterable[pa.RecordBatch]],
    told: Accumulator[Any],
    reading: OpenReading | None,
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function of the tasks: groups what arrives, and tells what the stage yields."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # Spark stops a query by cutting its workers off, and each would print a traceback of that. It has nothing else to
        # print: what goes wrong in a stage reaches the driver as the task's failure.
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the worker ends
        began = time.monotonic()
        opened = None if reading is None else reading.begin(batches, BATCH_SECONDS)
        answers = [_bytes(answer) for answer in stage(arriving(batches) if opened is None else opened)]
        reached = None if opened is None else opened.reached()
        task = TaskContext.get()
        if (answers or reached) and task is not None:
            batch = int(task.getLocalProperty("streaming.sql.batchId") or 0)
            told.add([Told(batch, task.partitionId(), time.monotonic() - began, answers, reached)])
        yield from ()

    return run


def _bytes(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def table_of(answers: Iterable[bytes]) -> pa.Table:
    """What a stage yielded, put together again."""
    return pa.concat_tables([pa.ipc.open_stream(answer).read_all() for answer in answers])


def _with_fillers(frame: DataFrame) -> DataFrame:
    """Follow each record with an empty row: Spark hands one row on when it holds the next."""
    doubled = frame.withColumn(_FILLER, F.explode(F.array(F.lit(False), F.lit(True))))  # noqa: FBT003 - Spark's own
    return doubled.select(*(F.when(~F.col(_FILLER), F.col(name)).alias(name) for name in frame.columns), _FILLER)


@contextmanager
def _own_workers(spark: SparkSession, name: str) -> Iterator[None]:
    """Keep the workers of a query apart: Spark pools them by environment, and one that has its connections is wanted again."""
    environment = spark.sparkContext.environment
    with _naming:
        environment["RAGSTREAM_QUERY"] = name
        try:
            yield
        finally:
            del environment["RAGSTREAM_QUERY"]
