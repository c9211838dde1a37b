"""Compaction and clean-up of the lake's tables, by the job that writes them (I8)."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

from lake.storage import compact, open_table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lake.layout import LakeLayout

_LOG = logging.getLogger(__name__)

COMPACT_AT_FILES = 128
"""Files added since the last compaction that make another worth its price: ten minutes of landing every five seconds."""
TARGET_BYTES = 128 * 1024 * 1024
"""Size of a file that compaction aims at; a file half as large is left alone from then on."""
VACUUM_SECONDS = 24 * 3600.0
TRIM_SECONDS = 3600.0
"""Between two looks for log entries over age: each lists the whole log, a request for a thousand."""
KEEP_HOURS = 168
"""How long replaced files stay for readers that began before: Delta's own default of a week."""


class Maintenance:
    """Compacts `changes` and vacuums the tables that landing writes; a run with nothing to do costs one look at the log."""

    def __init__(self, spark: SparkSession, layout: LakeLayout) -> None:
        self._spark = spark
        self._layout = layout
        self._compacted_files: dict[str, int] = {}
        # A driver that is restarted each day would never be a day old: each begins anywhere in the day, so that a lake is
        # vacuumed once in a day of running, on average.
        self._vacuumed = time.monotonic() - random.uniform(0, VACUUM_SECONDS)  # noqa: S311
        self._trimmed = time.monotonic()

    def run(self) -> None:
        """Compact what has collected small files, and vacuum once a day; readers and writers go on meanwhile."""
        self._compact("changes")
        for name in ("ignored", "schemas", "settled"):
            compact(self._layout.path(name), COMPACT_AT_FILES, KEEP_HOURS)
        if time.monotonic() - self._trimmed >= TRIM_SECONDS:
            self._trimmed = time.monotonic()
            for name in ("changes", "rejects"):
                trim_log(self._layout.path(name))
        if time.monotonic() - self._vacuumed >= VACUUM_SECONDS:
            self._vacuumed = time.monotonic()
            vacuum(self._spark, self._layout.path("changes"))
            vacuum(self._spark, self._layout.path("rejects"))

    def _compact(self, name: str) -> None:
        path = self._layout.path(name)
        table = open_table(path)
        files = len(table.file_uris()) if table else 0
        if files - self._compacted_files.get(name, 0) < COMPACT_AT_FILES:
            return
        optimize(self._spark, path)
        table = open_table(path)
        self._compacted_files[name] = len(table.file_uris()) if table else 0
        _LOG.info("compacted %s: %d files, then %d", name, files, self._compacted_files[name])


def trim_log(path: str) -> None:
    """Delete a log's entries over the table's `delta.logRetentionDuration` that no checkpoint needs any more."""
    table = open_table(path)
    if table is not None:
        table.cleanup_metadata()


def optimize(spark: SparkSession, path: str) -> None:
    """Compact the small files of each day; files of half the target are left, so a byte is rewritten a few times at most."""
    from delta import DeltaTable

    session = spark.newSession()
    session.conf.set("spark.databricks.delta.optimize.maxFileSize", str(TARGET_BYTES))
    session.conf.set("spark.databricks.delta.optimize.minFileSize", str(TARGET_BYTES // 2))
    session.conf.set("spark.databricks.delta.snapshotPartitions", "1")
    DeltaTable.forPath(session, path).optimize().executeCompaction()


def purge(spark: SparkSession, path: str) -> None:
    """Write files anew that have rows marked as gone (deletion vectors); `vacuum` deletes the old ones once they are over age."""
    escaped = path.replace("`", "``")
    spark.sql(f"REORG TABLE delta.`{escaped}` APPLY (PURGE)")


def vacuum(spark: SparkSession, path: str) -> None:
    """Delete files that no version within KEEP_HOURS names."""
    from delta import DeltaTable

    DeltaTable.forPath(spark, path).vacuum(KEEP_HOURS)
