"""The configuration of a Kinesis source; it needs no client."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from schemas.aws import AwsAccess
from sources.captured import CapturedSource
from sources.kinesis.offsets import TRIM_HORIZON, at_timestamp

_CONSUMER = r"^(arn:[^:]+:kinesis:[^:]+:\d{12}:stream/[^/]+/consumer/)?[a-zA-Z0-9_.-]{1,128}(:\d+)?$"
"""A consumer's name, or its ARN (RegisterStreamConsumer, Kinesis API reference)."""


class Access(NamedTuple):
    """How to reach a stream; without keys boto3 finds its own (role, profile, environment)."""

    stream: str
    region: str | None = None
    endpoint_url: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    checkpoint: str = ""
    """Folder of the job's checkpoint, named in the hint when it is of no use any more."""

    def __repr__(self) -> str:
        """Name the stream alone: the others may be secrets."""
        return f"Access(stream={self.stream!r})"


class KinesisSourceConfig(AwsAccess, CapturedSource):
    """A Kinesis data stream."""

    type: Literal["kinesis"]
    name: str = "kinesis"
    """Name by which a table refers to this source."""
    stream: str = Field(min_length=1)
    """Name of the stream."""
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
        if self.consumer and ":" in self.consumer and f":stream/{self.stream}/consumer/" not in self.consumer:
            raise ValueError(f"consumer is no ARN of a consumer of {self.stream}, and no name")
        return self

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
