"""Workers that land and merge leave the cores to what indexes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from lake.background import stand_back

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def niceness(_: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    stand_back()
    stand_back()
    yield pa.RecordBatch.from_pydict({"nice": [os.getpriority(os.PRIO_PROCESS, 0)]})


def test_a_spark_worker_stands_back_and_no_other_process_does(spark: SparkSession) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    stand_back()
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
    assert {row["nice"] for row in spark.range(1).mapInArrow(niceness, "nice long").collect()} == {10}
