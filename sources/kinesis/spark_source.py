"""Spark's entries to a Kinesis stream."""

from __future__ import annotations

import json

from pyspark.sql.datasource import DataSource, DataSourceStreamReader
from pyspark.sql.types import StructType

from schemas.records import RECORD_COLUMNS
from sources.kinesis.client import Stream
from sources.kinesis.config import Access
from sources.kinesis.planner import KinesisReader


class KinesisSource(DataSource):
    """The records of a stream."""

    @classmethod
    def name(cls) -> str:
        """Name the format."""
        return "ragstream_kinesis"

    def schema(self) -> str:
        """Yield the columns of every reader."""
        return RECORD_COLUMNS

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: N802 - Spark's name
        """Open the reader for one query."""
        access = Access(*(json.loads(self.options[name]) for name in Access._fields))
        names = ("origin", "starts", "fetch_interval_ms", "max_records_per_trigger", "drain", "probe_file")
        return KinesisReader(Stream(access), **{name: json.loads(self.options[name]) for name in names})
