"""A toy source: one file, by the source of recorded events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sources.files import source as files

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sources.feeds import Positions

    from .config import ToySourceConfig


def check(config: ToySourceConfig) -> None:
    """Open the file."""
    files.check(config.inside)


def read_stream(spark: SparkSession, config: ToySourceConfig, *, starts: Positions | None = None) -> DataFrame:
    """Read the file."""
    return files.read_stream(spark, config.inside, starts=starts)
