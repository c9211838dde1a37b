"""What the lake's tests share: records as a frame, transactions, a lake's rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from schemas.records import RECORD_COLUMNS, Record

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def frame(spark: SparkSession, records: Iterable[Record]) -> DataFrame:
    """Records as a source reader yields them."""
    rows = [
        (
            r.stream,
            r.partition,
            r.position,
            r.key,
            r.value,
            list(r.headers),
            None if r.timestamp_ms is None else dt.datetime.fromtimestamp(r.timestamp_ms / 1000, dt.UTC),
        )
        for r in records
    ]
    return spark.createDataFrame(rows, RECORD_COLUMNS)


def transaction(query: str, batch: int) -> Callable[[str], Mapping[str, str]]:
    """The transactions of one batch of a query."""
    return lambda table: {"txnAppId": f"{query}:{table}", "txnVersion": str(batch)}
