"""What the lake's tests share: records as a frame, transactions, a lake's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from converge import lake

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from schemas.records import Record


def frame(spark: SparkSession, records: Iterable[Record]) -> DataFrame:
    """Records as a source reader yields them."""
    return lake.frame(spark, list(records))


def transaction(query: str, batch: int) -> Callable[[str], Mapping[str, str]]:
    """The transactions of one batch of a query."""
    return lambda table: {"txnAppId": f"{query}:{table}", "txnVersion": str(batch)}
