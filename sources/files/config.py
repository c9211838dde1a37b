"""The configuration of recorded events as a source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from sources.captured import CapturedSource
from sources.files.recorded import Format


class FilesSourceConfig(CapturedSource):
    """Recorded events from local files, for any history without a server."""

    type: Literal["files"]
    name: str = "files"
    """Name by which a table refers to this source."""
    format: Format
    """Which stream the events were recorded from."""
    path: list[str] = Field(min_length=1)
    """Files, read in this order; lines may be appended to them while they are read."""
    max_records_per_trigger: int = Field(default=10_000, ge=1)
    """Most records (lines) in a micro-batch."""


def paths_by_mark(config: FilesSourceConfig) -> dict[str, str]:
    """The files by their names in an offset."""
    paths = [str(Path(path).resolve()) for path in config.path]
    return {mark_of(paths, index): path for index, path in enumerate(paths)}


def mark_of(paths: Sequence[str], index: int) -> str:
    """The name of a file in an offset: its path, numbered if the path comes again, since a history may be read twice."""
    earlier = paths[:index].count(paths[index])
    return paths[index] if not earlier else f"{paths[index]}#{earlier + 1}"
