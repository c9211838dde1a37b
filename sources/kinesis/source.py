"""Kinesis Data Streams as a Spark source of ours, the same one here and on Glue.

Readers use it without Spark (`sources.kinesis.feed`). `format("ragstream_kinesis")` cuts the stream into batches with an end
(`sources.kinesis.planner`): run again, one holds exactly the same records.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SecretStr, model_validator

from schemas.errors import ConfigurationError, PipelineError
from schemas.transport import EncryptedPart, weak_url
from sources.data_source import load_stream
from sources.idle import FileNote
from sources.kinesis.client import Access, Stream
from sources.kinesis.fan_out import Consumer
from sources.kinesis.offsets import TRIM_HORIZON, Mark, at_timestamp

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.datasource import DataSource

    from sources.feeds import Positions

_CONSUMER = r"^(arn:[^:]+:kinesis:[^:]+:\d{12}:stream/[^/]+/consumer/)?[a-zA-Z0-9_.-]{1,128}(:\d+)?$"
"""A consumer's name, or its ARN (RegisterStreamConsumer, Kinesis API reference)."""


class KinesisSourceConfig(EncryptedPart):
    """A Kinesis data stream."""

    type: Literal["kinesis"]
    name: str = "kinesis"
    """Name by which a table refers to this source."""
    envelope: Literal["debezium", "dms"]
    """Who captured the changes."""
    stream: str = Field(min_length=1)
    """Name of the stream."""
    region: str | None = None
    """Region of the stream; the job's own when absent."""
    endpoint_url: str | None = None
    """Another endpoint than the region's, such as a VPC endpoint or the local stack."""
    access_key: str | None = None
    """For the local stack; without it boto3 finds the job's role."""
    secret_key: SecretStr | None = None
    starting: Literal["trim_horizon", "latest", "timestamp"] = "trim_horizon"
    """Where a job without a checkpoint begins; times count in whole seconds, as boto3 sends no fraction."""
    starting_timestamp: datetime | None = None
    """The time to begin at, with `starting: timestamp`."""
    fetch_interval_ms: int = Field(default=250, ge=1)
    """Pause between two reads of a shard. Kinesis allows five a second to all readers of a shard together, and each job
    is one; adds half of itself to the time until a change is searchable."""
    consumer: str | None = Field(default=None, pattern=_CONSUMER)
    """Enhanced fan-out for `index_documents`: a registered consumer's ARN, or a name, which is registered when there is none
    and stays. Records are then pushed (on AWS in about 70 ms) instead of asked for every `fetch_interval_ms`; AWS bills a
    consumer by shard and hour, and by what it reads. No two pipelines may share one: they would take its subscriptions
    from each other. The other jobs, drains and `continuous: false` poll."""
    max_records_per_trigger: int = Field(default=10_000, ge=1)
    """Most records in a micro-batch over all shards; readers know none."""

    @model_validator(mode="after")
    def _belong_together(self) -> KinesisSourceConfig:
        if (self.starting == "timestamp") != (self.starting_timestamp is not None):
            raise ValueError("starting_timestamp goes with starting: timestamp, and only with it")
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key go together")
        if self.consumer and ":" in self.consumer and f":stream/{self.stream}/consumer/" not in self.consumer:
            raise ValueError(f"consumer is no ARN of a consumer of {self.stream}, and no name")
        return self

    def weaknesses(self) -> Iterator[str]:
        """Tell an http:// endpoint of another machine."""
        return weak_url("endpoint_url", self.endpoint_url)

    def access(self, checkpoint: str = "") -> Access:
        """Say how to reach the stream."""
        secret = self.secret_key.get_secret_value() if self.secret_key else None
        return Access(self.stream, self.region, self.endpoint_url, self.access_key, secret, checkpoint)

    def origin(self, now_ms: int) -> str:
        """Say where a job without a checkpoint begins; `latest` is the time it was first asked."""
        if self.starting == "trim_horizon":
            return TRIM_HORIZON
        moment = self.starting_timestamp
        return at_timestamp(now_ms if moment is None else round(moment.timestamp() * 1000))


def check(config: KinesisSourceConfig) -> None:
    """Describe stream and consumer and read from one of the shards; raises ConfigurationError when that cannot be done."""
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
