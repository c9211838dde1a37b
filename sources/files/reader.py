"""Cuts recorded events into batches, for Spark."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition
from pyspark.sql.types import StructType

from schemas.errors import SourceGoneError
from schemas.records import RECORD_COLUMNS, Record
from sources.files.config import mark_of
from sources.files.recorded import Format, parse_line
from sources.rows import record_batches

_SPLIT_BYTES = 8 * 1024 * 1024
"""Bytes of one file that one task reads: about a second of one core."""


@dataclass(frozen=True)
class FileSplit(InputPartition):
    """The lines of one file that start in the bytes [start, end)."""

    path: str
    start: int
    end: int


class RecordedEventsSource(DataSource):
    """Spark's entry to recorded events, `format("ragstream_files")`."""

    @classmethod
    def name(cls) -> str:
        """Name the format."""
        return "ragstream_files"

    def schema(self) -> str:
        """Yield the columns of every reader."""
        return RECORD_COLUMNS

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: N802 - Spark's name
        """Open the reader for one query."""
        form: Format = "kafka" if self.options["record_format"] == "kafka" else "kinesis"
        starts = json.loads(self.options["starts"])
        return RecordedEventsReader(json.loads(self.options["files"]), form, int(self.options["batch"]), starts)


class RecordedEventsReader(DataSourceStreamReader):
    """Cuts files into batches; an offset is the byte reached in each file."""

    def __init__(self, paths: Sequence[str], form: Format, batch: int, starts: Mapping[str, int] | None = None) -> None:
        """Keep what to read; nothing is opened before Spark asks."""
        self._paths = {mark_of(paths, index): path for index, path in enumerate(paths)}
        self._format = form
        self._batch = batch
        self._starts = starts or {}
        self._reached: dict[str, int] = {}

    def initialOffset(self) -> dict[str, int]:  # noqa: N802 - Spark's name
        """Start every file at the byte to start with, or its first."""
        return {mark: self._starts.get(mark, 0) for mark in self._paths}

    def latestOffset(self) -> dict[str, int]:  # noqa: N802 - Spark's name
        """Advance by at most N lines from the last offset; the same offset again means nothing is left."""
        reached = self.initialOffset() | self._reached
        wanted = self._batch
        for mark, path in self._paths.items():
            reached[mark], lines = _advance(path, reached[mark], wanted)
            wanted -= lines
            if wanted == 0:
                break
        self._reached = reached
        return reached

    def partitions(self, start: dict[str, int], end: dict[str, int]) -> Sequence[InputPartition]:
        """Split the bytes between two offsets; start = end is how Spark names the offset of a restarted query."""
        self._reached = {mark: max(end.get(mark, 0), self._reached.get(mark, 0)) for mark in self._paths}
        for mark, path in self._paths.items():
            _still_there(path, end.get(mark, 0))
        return [
            FileSplit(path, at, min(at + _SPLIT_BYTES, end[mark]))
            for mark, path in self._paths.items()
            for at in range(start.get(mark, 0), end.get(mark, 0), _SPLIT_BYTES)
        ]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Read one split's lines as Arrow batches."""
        split = cast("FileSplit", partition)
        yield from record_batches(_records(split, self._format))


def _advance(path: str, start: int, wanted: int) -> tuple[int, int]:
    """Where `wanted` more lines end: the byte after them, and how many there are; blank lines do not count."""
    _still_there(path, start)
    lines = 0
    reached = start
    with Path(path).open("rb") as file:
        file.seek(start)
        for line in file:
            reached += len(line)
            lines += bool(line.strip())
            if lines == wanted:
                break
    return reached, lines


def _records(split: FileSplit, form: Format) -> Iterator[Record]:
    name = Path(split.path).name
    with Path(split.path).open("rb") as file:
        at = split.start
        if at:
            # The line that the byte before belongs to is the split's before this one.
            file.seek(at - 1)
            at += len(file.readline()) - 1
        for line in file:
            if at >= split.end:
                break
            if line.strip():
                yield parse_line(line.rstrip(b"\r\n"), form, name=name, start=at)
            at += len(line)


def _still_there(path: str, reached: int) -> None:
    try:
        size = Path(path).stat().st_size
    except FileNotFoundError:
        size = -1
    if size < reached:
        what = "is gone" if size < 0 else f"has {size} bytes, fewer than the {reached} already read"
        raise SourceGoneError(
            f"recorded events: {path} {what}.",
            condition="SOURCE_FILE_CHANGED",
            hint="Put the file back, or move the job's folder under `checkpoint` away and run `ragstream run CONFIG` again:"
            " every store refuses what it already holds.",
        )
