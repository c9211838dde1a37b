"""Recorded events as a source: files of one JSON object a line, cut into micro-batches of N lines as they stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ConfigurationError
from sources.data_source import load_stream
from sources.files.config import paths_by_mark

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sources.feeds import Positions
    from sources.files.config import FilesSourceConfig


def check(config: FilesSourceConfig) -> None:
    """Open every file; raises ConfigurationError naming the first that cannot be read."""
    for path in config.path:
        try:
            with Path(path).open("rb") as file:
                file.read(1)
        except OSError as error:
            raise ConfigurationError(
                f"source {config.name!r}: cannot read {path}: {error.strerror}.",
                condition="SOURCE_FILE_UNREADABLE",
                hint="Correct `path` under `source`; it is relative to the folder the command runs in.",
            ) from None


def read_stream(spark: SparkSession, config: FilesSourceConfig, *, starts: Positions | None = None) -> DataFrame:
    """Read the files as a stream of records; without a checkpoint from `starts`, the byte of each file.

    Give the same `starts` until the query has committed a batch: Spark asks for them again when the first one is run again.

    A batch is the next N lines after the last one, so its content depends on the files and the checkpoint alone, and a
    batch run again holds the same records.
    """
    options = {"files": json.dumps(list(paths_by_mark(config).values()))}
    options |= {
        "record_format": config.format,
        "batch": str(config.max_records_per_trigger),
        "starts": json.dumps(starts or {}),
    }
    from sources.files.reader import RecordedEventsSource

    return load_stream(spark, RecordedEventsSource, options)
