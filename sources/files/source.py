"""Recorded events as a source: files of one JSON object a line, cut into micro-batches of N lines as they stand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from schemas.errors import ConfigurationError
from schemas.model import StrictModel
from sources.data_source import load_stream
from sources.files.recorded import Format

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sources.feeds import Positions


class FilesSourceConfig(StrictModel):
    """Recorded events from local files, for any history without a server."""

    type: Literal["files"]
    name: str = "files"
    """Name by which a table refers to this source."""
    format: Format
    """Which stream the events were recorded from."""
    envelope: Literal["debezium", "dms"]
    """Who captured them."""
    path: list[str] = Field(min_length=1)
    """Files, read in this order; lines may be appended to them while they are read."""
    batch: int = Field(default=10_000, ge=1)
    """Lines in a micro-batch."""


def marked(config: FilesSourceConfig) -> dict[str, str]:
    """The files by what names them in an offset: the path, told apart from the same path named earlier."""
    paths = [str(Path(path).resolve()) for path in config.path]
    return {mark_of(paths, index): path for index, path in enumerate(paths)}


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
    options = {"files": json.dumps(list(marked(config).values()))}
    options |= {"record_format": config.format, "batch": str(config.batch), "starts": json.dumps(starts or {})}
    from sources.files.reader import RecordedEventsSource

    return load_stream(spark, RecordedEventsSource, options)


def mark_of(paths: Sequence[str], index: int) -> str:
    """Name a file in the offset: its path, told apart from the same path named earlier, since a history may be read twice."""
    earlier = paths[:index].count(paths[index])
    return paths[index] if not earlier else f"{paths[index]}#{earlier + 1}"
