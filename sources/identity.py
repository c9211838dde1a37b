"""Which topics a job's offsets belong to, kept as one small file beside its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pyspark.sql import SparkSession

from schemas.errors import SourceGoneError
from sources.kafka import KafkaSourceConfig, selected_topics
from sources.kafka_broker import Topic, topics_of
from sources.loss import restart_hint

FILE_NAME = "source-identity.json"


def confirm_topics(spark: SparkSession, config: KafkaSourceConfig, checkpoint: str) -> None:
    """Compare the topics with those the checkpoint was made from, then remember them.

    Run before a query starts. Raises SourceGoneError when one was deleted or made again: its offsets name other records
    now. Topics the job has not seen yet are remembered. Running it twice changes nothing.
    """
    path = f"{checkpoint.rstrip('/')}/{FILE_NAME}"
    remembered = _read(spark, path)
    found = topics_of(config.bootstrap_servers, config.options)
    refuse_changed(config, remembered, found, checkpoint)
    ids = {name: topic.topic_id for name, topic in selected_topics(config, found).items()}
    if remembered | ids != remembered:
        _write(spark, path, remembered | ids)


def refuse_changed(
    config: KafkaSourceConfig, remembered: Mapping[str, str], found: Mapping[str, Topic], checkpoint: str
) -> None:
    """Raise SourceGoneError when a remembered topic is missing or has another id."""
    gone = sorted(set(remembered) - set(found))
    again = sorted(name for name in set(remembered) & set(found) if found[name].topic_id != remembered[name])
    if not gone and not again:
        return
    what = [f"topic {name} is gone" for name in gone] + [f"topic {name} was made again" for name in again]
    raise SourceGoneError(
        f"source {config.name!r}: {'; '.join(what)}: what it held and this job had not read yet is lost.",
        condition="SOURCE_TOPIC_CHANGED",
        hint=restart_hint(checkpoint),
    )


def _read(spark: SparkSession, path: str) -> dict[str, str]:
    files, location = _file(spark, path)
    if not files.exists(location):
        return {}
    stream = files.open(location)
    try:
        text = _jvm(spark).org.apache.commons.io.IOUtils.toString(stream, "UTF-8")
    finally:
        stream.close()
    kept: dict[str, str] = json.loads(text)["topics"]
    return kept


def _write(spark: SparkSession, path: str, topics: Mapping[str, str]) -> None:
    files, location = _file(spark, path)
    stream = files.create(location, True)  # noqa: FBT003 - Hadoop's overwrite
    try:
        stream.write(bytearray(json.dumps({"topics": dict(topics)}, sort_keys=True), "utf-8"))
    finally:
        stream.close()


def _file(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Open the path's file system as Spark does, so that a checkpoint on S3 needs nothing else."""
    location = _jvm(spark).org.apache.hadoop.fs.Path(path)
    return location.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()), location  # noqa: SLF001


def _jvm(spark: SparkSession) -> Any:
    """PySpark has no other door to Hadoop's file systems."""
    return spark.sparkContext._jvm  # noqa: SLF001
