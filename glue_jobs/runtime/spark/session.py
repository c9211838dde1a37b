"""The Spark session and its settings, on Glue, under spark-submit and in a local JVM."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from glue_jobs.config.values import under_spark_submit, use_this_python_for_workers
from glue_jobs.runtime.spark import jvm
from glue_jobs.storage import s3

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

POOLS_FILE = Path(__file__).with_name("fairscheduler.xml")
"""FAIR pools: `index` before `default`, so that a merge does not hold up what is to be searchable."""

_DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}

_EVERYWHERE = {
    # Dates and times are ISO text in UTC until a table's types are applied.
    "spark.sql.session.timeZone": "UTC",
    # Spark's own default, INT96, counts nanoseconds: deltalake reads no time of it outside the years 1677 to 2262.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Planning a small batch twice costs more than it gains.
    "spark.sql.adaptive.enabled": "false",
    # No query keeps state or watermarks, so an empty batch has no use.
    "spark.sql.streaming.noDataMicroBatches.enabled": "false",
    # How often a query looks for new data when there was none (default 10 ms).
    "spark.sql.streaming.pollingDelay": "1ms",
    # The default of 50 tasks for a snapshot of the Delta log is slower than one.
    "spark.databricks.delta.snapshotPartitions": "1",
    # A merge has some 150 compiled stages and expressions. Of more than it keeps (default 100), all are compiled for each batch.
    "spark.sql.codegen.cache.maxEntries": "1000",
    # The first records of a batch are read from all partitions at once.
    "spark.sql.limit.initialNumPartitions": "64",
    # Nothing reads the offsets and commits of older batches.
    "spark.sql.streaming.minBatchesToRetain": "50",
}
"""Settings of a running session, on Glue as well."""

_JVM = "spark.driver.extraJavaOptions"
_LOCAL = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.scheduler.mode": "FAIR",
    "spark.scheduler.allocation.file": POOLS_FILE.as_uri(),
    # All blocks are local.
    "spark.locality.wait": "0",
    # Python workers use a Unix socket rather than TCP: half the time of a small Python stage.
    "spark.python.unix.domain.socket.enabled": "true",
    # Compiling a stage takes longer than a small batch takes to run.
    "spark.sql.codegen.wholeStage": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "2g",
    # The C2 compiler takes a third of a core for minutes, more than its code saves on two cores. Without it the code cache
    # is 48 MiB, which a driver fills in two minutes and then evicts and recompiles for good. The heap starts at the size
    # that a driver reaches; with a smaller one each merge causes full collections.
    _JVM: (
        "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:MetaspaceSize=256m"
        " -XX:+UseSerialGC -Xms1280m -Xmn512m"
    ),
    "spark.log.structuredLogging.enabled": "false",
    "spark.sql.warehouse.dir": str(Path(tempfile.gettempdir()) / "ragstream-warehouse"),  # no table is ever made there
    # Spark's log may quote rows; the runner logs a query's failure without them (I14).
    "spark.log.level": "OFF",
}
"""Settings of a local session: one JVM, a few cores."""

_LOCAL_CHECKPOINT = {
    # The default forks `chmod` for every log file: 100 ms of a batch instead of 16. This one renames files, so it suits only
    # a local disk.
    "spark.sql.streaming.checkpointFileManagerClass": (
        "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
    ),
}


def open_session(
    app: str, *, checkpoint: str, lake: str = "", cores: int | None = None, log_level: str = "OFF"
) -> SparkSession:
    """Open the session, with Delta and the Kafka source on its class path as on Glue, and S3 if a location is there.

    Under spark-submit and on Glue only settings that were not submitted are set. A local session has at least eight task
    slots, since queries wait for brokers and models most of the time.
    """
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    use_this_python_for_workers()
    on_s3 = s3.settings(lake, checkpoint, local=not under_spark_submit())
    chosen = settings(checkpoint, local=not under_spark_submit(), cores=cores) | on_s3
    if under_spark_submit():
        SparkContext._ensure_initialized()  # noqa: SLF001 - so that SparkConf knows what was submitted
        submitted = SparkConf()
        chosen = {name: value for name, value in chosen.items() if not submitted.contains(name)}
    elif log_level == "OFF":
        jvm.start(chosen, checkpoint)
    builder = SparkSession.builder.appName(app)
    for name, value in chosen.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel(log_level)
    s3.confirm_jars(session, on_s3)
    return session


def settings(checkpoint: str, *, local: bool, cores: int | None = None) -> dict[str, str]:
    """The settings of a session; `local` for one in a JVM of its own."""
    chosen = _DELTA | _EVERYWHERE
    if "://" not in checkpoint:
        chosen |= _LOCAL_CHECKPOINT
    if local:
        chosen |= _LOCAL | {"spark.master": f"local[{cores or max(8, os.cpu_count() or 1)}]"}
        if (archive := class_archive()).exists():
            chosen[_JVM] += f' "-XX:SharedArchiveFile={archive}" -Xshare:auto -Xlog:disable -Xlog:all=error'
    return chosen


def class_archive() -> Path:
    """The class data archive of a developer's environment (`tools/class_archive.py`, ADR 0018)."""
    import pyspark

    return Path(pyspark.__path__[0]) / "classes.jsa"
