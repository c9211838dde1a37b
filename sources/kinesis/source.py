"""Kinesis Data Streams as a Spark source of ours, the same one here and on Glue.

Readers use it without Spark (`sources.kinesis.feed`). `format("ragstream_kinesis")` cuts the stream into batches with an end
(`sources.kinesis.planner`): run again, one holds exactly the same records.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from schemas.errors import ConfigurationError, PipelineError
from sources.caught_up import FileProbe
from sources.data_source import load_stream
from sources.kinesis.client import Stream
from sources.kinesis.fan_out import Consumer
from sources.kinesis.offsets import TRIM_HORIZON, Mark

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sources.feeds import Positions
    from sources.kinesis.config import KinesisSourceConfig


def check(config: KinesisSourceConfig) -> None:
    """Describe stream and consumer and read from one of the shards; raises ConfigurationError when that cannot be done."""
    import aws_kinesis_agg  # noqa: F401 - else its lack shows with the first aggregated record

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
    probe: FileProbe | None = None,
    starts: Positions | None = None,
) -> DataFrame:
    """Read the stream as a stream of records.

    A batch run again holds the same records. `fetch_interval_ms` overrides the configured pause for a job that can wait. With
    `drain` the stream ends at the records that it had when the query began. `probe` gets the times up to
    which the stream has been processed. A query without a checkpoint begins at `starts`, which its first batch's end names too,
    so that it can be run again.
    """
    options = config.access(checkpoint)._asdict() | {
        "origin": config.origin(int(time.time() * 1000)),
        "starts": starts,
        "fetch_interval_ms": fetch_interval_ms or config.fetch_interval_ms,
        "max_records_per_trigger": config.max_records_per_trigger,
        "drain": drain,
        "probe_file": probe.path if probe else "",
    }
    from sources.kinesis.spark_source import KinesisSource

    return load_stream(spark, KinesisSource, {name: json.dumps(value) for name, value in options.items()})
