"""Where records come from: one module a stream, all yielding `schemas.records.RECORD_COLUMNS`.

A new source is a folder with a configuration, `check` and `read_stream`, one arm in each function below, and one line in the
contract test (tests/contract/test_source_contract.py). Reading a configuration imports no client: these functions do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, assert_never

from pydantic import Field

from sources.files.config import FilesSourceConfig
from sources.idle import FileNote, IdleNote
from sources.kafka.config import KafkaSourceConfig
from sources.kinesis.config import KinesisSourceConfig
from sources.loss import source_gone

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

    from sources.feeds import Positions

__all__ = [
    "FilesSourceConfig",
    "KafkaSourceConfig",
    "KinesisSourceConfig",
    "SourceConfig",
    "check",
    "drain",
    "has_available_now",
    "idle_note",
    "read_stream",
    "source_gone",
]

SourceConfig = Annotated[FilesSourceConfig | KafkaSourceConfig | KinesisSourceConfig, Field(discriminator="type")]
"""Every source a pipeline can name under `source`."""


def check(config: SourceConfig) -> None:
    """Connect to a source and read from it; raises ConfigurationError saying what is wrong. Needs no Spark."""
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
    idle: IdleNote | None = None,
    starts: Positions | None = None,
) -> DataFrame:
    """Read a source as a stream of records for one job.

    A batch run again holds exactly the same records. `checkpoint` is the job's own folder: what identifies the stream is
    kept there, and it is named when the stream has lost what the job needs (SourceGoneError; from within a query as
    text, see `source_gone`). `fetch_interval_ms` makes a job that can wait leave Kinesis's five reads a second and shard
    to the others. `drain` ends a Kinesis stream at what it held when the query began. `idle` is the note of a source of
    which Spark does not say when it is idle. `starts` is where a query without a checkpoint begins; a partition that is not
    in it is read from what it holds.
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

            note = idle if isinstance(idle, FileNote) else None
            return kinesis.read_stream(
                spark,
                config,
                checkpoint,
                fetch_interval_ms=fetch_interval_ms,
                drain=drain,
                idle=note,
                starts=starts,
            )
        case _:
            assert_never(config)


def has_available_now(config: SourceConfig) -> bool:
    """Tell whether Spark's own AvailableNow trigger drains this source.

    It does for Kafka. Spark 4.1 asks a Python source only once for its end, which is one batch: start those queries
    without a trigger, from `read_stream(…, drain=True)`, and hand them to `drain`.
    """
    return isinstance(config, KafkaSourceConfig)


def idle_note(config: SourceConfig) -> IdleNote | None:
    """Make the note for a source that has partitions; of one without, Spark's status says when it is idle."""
    match config:
        case KafkaSourceConfig():
            from sources.kafka.source import BrokerNote

            return BrokerNote(config)
        case KinesisSourceConfig():
            return FileNote()
        case FilesSourceConfig():
            return None
        case _:
            assert_never(config)


def drain(query: StreamingQuery) -> None:
    """Run a query of a Python source until everything there is processed, then stop it; raises what the query died of."""
    query.processAllAvailable()
    query.stop()
