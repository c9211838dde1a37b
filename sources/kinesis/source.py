"""Kinesis Data Streams as a Spark source of ours, the same one here and on Glue.

Readers use it without Spark (`sources.kinesis.feed`). `format("ragstream_kinesis")` cuts the stream into batches with an end
(`sources.kinesis.planner`): run again, one holds exactly the same records.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigurationError, PipelineError
from sources.data_source import load_stream
from sources.idle import FileNote
from sources.kinesis.client import Stream
from sources.kinesis.config import Access
from sources.kinesis.fan_out import Consumer
from sources.kinesis.offsets import TRIM_HORIZON, Mark

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.datasource import DataSource

    from sources.feeds import Positions
    from sources.kinesis.config import KinesisSourceConfig


def check(config: KinesisSourceConfig) -> None:
    """Describe stream and consumer and read from one of the shards; raises ConfigurationError when that cannot be done."""
    import aws_kinesis_agg  # noqa: F401 - only a record that was aggregated would tell that it is missing

    stream = Stream(config.access())
    try:
        summary = stream.summary()
        shard_id = next(iter(stream.shards()))
        stream.fetch(shard_id, stream.iterator(shard_id, Mark(TRIM_HORIZON)), limit=1)
        if config.consumer:
            Consumer(stream, config.consumer).check()
    except ConfigurationError:
        raise
    except PipelineError as error:
        raise ConfigurationError(
            f"source {config.name!r}: {error.message}",
            condition="SOURCE_STREAM_UNREADABLE",
            hint="Check `stream`, `region` and `endpoint_url` under `source`, and that the stream exists.",
        ) from None
    if summary.distribution != "USER_PARTITION_KEY":
        raise ConfigurationError(
            f"source {config.name!r}: stream {config.stream} spreads records without regard to their partition key.",
            condition="SOURCE_STREAM_UNORDERED",
            hint="Set its record distribution strategy to USER_PARTITION_KEY: changes of one row must stay on one shard.",
        )


def read_stream(  # noqa: PLR0913 - what a job may ask of its stream, named
    spark: SparkSession,
    config: KinesisSourceConfig,
    checkpoint: str = "",
    *,
    fetch_interval_ms: int | None = None,
    drain: bool = False,
    idle: FileNote | None = None,
    starts: Positions | None = None,
) -> DataFrame:
    """Read the stream as a stream of records.

    `fetch_interval_ms` overrides the configured pause for a job that can wait. With `drain` the stream ends at what it
    held when the query began; see `sources.drain`. `idle` is told up to when the stream has been processed. A query
    without a checkpoint begins at `starts`; the end of its first batch tells them too, so that it can be run again.
    """
    options = {
        "starts": starts,
        "fetch_interval_ms": fetch_interval_ms or config.fetch_interval_ms,
        "max_records_per_trigger": config.max_records_per_trigger,
        "drain": drain,
        "idle_note": idle.path if idle else "",
    }
    from sources.kinesis.spark_source import KinesisSource

    return _load(spark, KinesisSource, config, checkpoint, options)


def _load(
    spark: SparkSession,
    source: type[DataSource],
    config: KinesisSourceConfig,
    checkpoint: str,
    options: Mapping[str, Any],
) -> DataFrame:
    access = dict(zip(Access._fields, config.access(checkpoint), strict=True))
    given = {**access, "origin": config.origin(int(time.time() * 1000)), **options}
    return load_stream(spark, source, {name: json.dumps(value) for name, value in given.items()})
