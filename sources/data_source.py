"""A Python data source as a stream, with a registration of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.datasource import DataSource

_REGISTERING = threading.Lock()


def load_stream(spark: SparkSession, source: type[DataSource], options: Mapping[str, str]) -> DataFrame:
    """Register a data source and load a stream from it.

    Spark changes a registration's environment whenever a query over it starts. Two queries that share one, and start at
    once, fail by `java.io.OptionalDataException`; so each query has its own.
    """
    with _REGISTERING:
        spark.dataSource.register(source)
        return spark.readStream.format(source.name()).options(**options).load()
