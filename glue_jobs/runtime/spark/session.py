"""The Spark session: found on Glue and under spark-submit, made by `ragstream run`; the settings that matter are here."""

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
    # Dates and times are ISO text in UTC until a table types them.
    "spark.sql.session.timeZone": "UTC",
    # Spark's own default, INT96, counts nanoseconds: deltalake reads no time of it outside the years 1677 to 2262.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # A small batch gains nothing from being planned twice, and pays for it.
    "spark.sql.adaptive.enabled": "false",
    # An empty batch is never wanted: no query here keeps state or watermarks.
    "spark.sql.streaming.noDataMicroBatches.enabled": "false",
    # A query looks for new data this often when there was none (default 10 ms).
    "spark.sql.streaming.pollingDelay": "1ms",
    # Statistics of the Delta log are wanted for nothing here; 50 tasks for a snapshot are slower than one.
    "spark.databricks.delta.snapshotPartitions": "1",
    # Taking a batch's first records looks at all its partitions at once.
    "spark.sql.limit.initialNumPartitions": "64",
    # Offsets and commits of a batch that nobody can go back to.
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
    # No block lives on another machine.
    "spark.locality.wait": "0",
    # Workers speak to their JVM over a socket file rather than TCP: half the time of a small Python stage.
    "spark.python.unix.domain.socket.enabled": "true",
    # Compiling a stage takes longer than a small batch takes to run.
    "spark.sql.codegen.wholeStage": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "2g",
    # The optimizing compiler takes a third of a core for minutes, and more than its code saves where everything shares two.
    # Without it a JVM keeps 48 MiB of compiled code, which a driver fills in a minute or two: then it throws code away and
    # compiles it anew for good. The heap starts where a driver's ends up, or each merge collects all of it.
    _JVM: (
        "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:MetaspaceSize=256m"
        " -XX:+UseSerialGC -Xms1280m -Xmn512m"
    ),
    "spark.log.structuredLogging.enabled": "false",
    "spark.sql.warehouse.dir": str(Path(tempfile.gettempdir()) / "ragstream-warehouse"),  # no table is ever made there
    # What Spark logs may quote rows; what a query dies of arrives at the runner, which tells it without (I14).
    "spark.log.level": "OFF",
}
"""Settings of a session that is made here: one JVM, a few cores."""

_LOCAL_CHECKPOINT = {
    # The default forks `chmod` for every log file: 100 ms of a batch instead of 16. It renames, so it is for a local disk only.
    "spark.sql.streaming.checkpointFileManagerClass": (
        "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
    ),
}


def open_session(
    app: str, *, checkpoint: str, lake: str = "", cores: int | None = None, log_level: str = "OFF"
) -> SparkSession:
    """Make the session, with Delta and the Kafka source on its class path as on Glue, and S3 where a location wants it.

    Under spark-submit and on Glue what was chosen there stays, and only what it left open is set. A session made here
    has more cores than a small machine, since queries wait for brokers and models most of the time.
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
    """The settings of a session; `local` for one JVM that is started here."""
    chosen = _DELTA | _EVERYWHERE
    if "://" not in checkpoint:
        chosen |= _LOCAL_CHECKPOINT
    if local:
        chosen |= _LOCAL | {"spark.master": f"local[{cores or max(8, os.cpu_count() or 1)}]"}
        if (archive := class_archive()).exists():
            chosen[_JVM] += f' "-XX:SharedArchiveFile={archive}" -Xshare:auto -Xlog:disable -Xlog:all=error'
    return chosen


def class_archive() -> Path:
    """Where a developer's environment keeps the classes that a driver's JVM loads (`tools/class_archive.py`, ADR 0018)."""
    import pyspark

    return Path(pyspark.__path__[0]) / "classes.jsa"
