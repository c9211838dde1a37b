"""Spark's entries to a Kinesis stream."""

from __future__ import annotations

import json
from typing import Any

from pyspark.sql.datasource import DataSource, DataSourceStreamReader
from pyspark.sql.types import StructType

from schemas.records import RECORD_COLUMNS
from sources.kinesis_arrivals import INSTRUCTION_COLUMNS
from sources.kinesis_client import Access, Stream
from sources.kinesis_open import OpenKinesisReader
from sources.kinesis_reader import KinesisReader


class _Source(DataSource):
    """Spark's entry to a Kinesis stream."""

    def _given(self, *names: str) -> tuple[Stream, dict[str, Any]]:
        """The stream, and options."""
        access = Access(*(json.loads(self.options[name]) for name in Access._fields))
        return Stream(access), {name: json.loads(self.options[name]) for name in names}


class KinesisSource(_Source):
    """Its records."""

    @classmethod
    def name(cls) -> str:
        """Name the format."""
        return "ragstream_kinesis"

    def schema(self) -> str:
        """Yield the columns of every reader."""
        return RECORD_COLUMNS

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: N802 - Spark's name
        """Open the reader for one query."""
        names = ("origin", "starts", "fetch_interval_ms", "max_records_per_trigger", "drain", "idle_note")
        stream, given = self._given(*names)
        return KinesisReader(stream, **given)


class OpenKinesisSource(_Source):
    """Instructions to read its records."""

    @classmethod
    def name(cls) -> str:
        """Name the format."""
        return "ragstream_kinesis_open"

    def schema(self) -> str:
        """Yield an instruction a row."""
        return INSTRUCTION_COLUMNS

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: N802 - Spark's name
        """Open the reader for one query."""
        stream, given = self._given("origin", "tasks", "reached")
        return OpenKinesisReader(stream, **given)
