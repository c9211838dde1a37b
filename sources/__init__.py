"""Where records come from: one module a stream, all yielding `schemas.records.RECORD_COLUMNS`.

A new source is a folder with a configuration, `check` and `read_stream`, one arm in each function below, and one line in the
contract test (tests/contract/test_source_contract.py). Reading a configuration imports no client: these functions do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, assert_never

from pydantic import Field

from sources.caught_up import CaughtUpProbe, FileProbe
from sources.files.config import FilesSourceConfig
from sources.kafka.config import KafkaSourceConfig
from sources.kinesis.config import KinesisSourceConfig

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sources.feeds import Positions

__all__ = [
    "FilesSourceConfig",
    "KafkaSourceConfig",
    "KinesisSourceConfig",
    "SourceConfig",
    "caught_up_probe",
    "check",
    "read_stream",
]

SourceConfig = Annotated[FilesSourceConfig | KafkaSourceConfig | KinesisSourceConfig, Field(discriminator="type")]
"""Every source a pipeline can name under `source`."""


def check(config: SourceConfig) -> None:
    """Connect to a source and read from it; raises ConfigurationError saying what is wrong. Needs no Spark."""
    if config.registry is not None:
        from sources.registry import lookup

        lookup.check(config.registry)
    match config:
        case FilesSourceConfig():
            from sources.files import source as files

            files.check(config)
        case KafkaSourceConfig():
            from sources.kafka import source as kafka

            kafka.check(config)
        case KinesisSourceConfig():
            from sources.kinesis import source as kinesis

            kinesis.check(config)
        case _:
            assert_never(config)


def read_stream(  # noqa: PLR0913 - what each source needs to know of a job, named
    spark: SparkSession,
    config: SourceConfig,
    checkpoint: str,
    *,
    fetch_interval_ms: int | None = None,
    drain: bool = False,
    probe: CaughtUpProbe | None = None,
    starts: Positions | None = None,
) -> DataFrame:
    """Read a source as a stream of records for one job.

    A batch run again holds exactly the same records. `checkpoint` is the job's own folder: the identity of the stream is
    kept there, and the hint names it when the stream has lost what the job needs (SourceGoneError; from within a query as
    text, see `loss.source_gone`). `fetch_interval_ms` is for a job that can wait: Kinesis allows five reads a second and shard to
    all jobs together. `drain` ends a Kinesis stream at the records that it had when the query began. `probe` is that of
    `caught_up_probe`. `starts` is where a query without a checkpoint begins; a partition that is not in it begins with its
    first record.
    """
    match config:
        case FilesSourceConfig():
            from sources.files import source as files

            return files.read_stream(spark, config, starts=starts)
        case KafkaSourceConfig():
            from sources.kafka import source as kafka
            from sources.kafka.topic_identity import confirm_topics

            confirm_topics(spark, config, checkpoint)
            return kafka.read_stream(spark, config, starts=starts)
        case KinesisSourceConfig():
            from sources.kinesis import source as kinesis

            return kinesis.read_stream(
                spark,
                config,
                checkpoint,
                fetch_interval_ms=fetch_interval_ms,
                drain=drain,
                probe=probe if isinstance(probe, FileProbe) else None,
                starts=starts,
            )
        case _:
            assert_never(config)


def caught_up_probe(config: SourceConfig) -> CaughtUpProbe | None:
    """The probe of a source with partitions; Spark's status says when one without is idle."""
    match config:
        case KafkaSourceConfig():
            from sources.kafka.source import BrokerProbe

            return BrokerProbe(config)
        case KinesisSourceConfig():
            return FileProbe()
        case FilesSourceConfig():
            return None
        case _:
            assert_never(config)
