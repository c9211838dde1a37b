"""AWS Glue: its arguments, and the context a Glue job begins and ends with. The only file that imports awsglue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def is_glue(arguments: Sequence[str]) -> bool:
    """Whether these are the arguments Glue gives a job: it always names the job."""
    return any(argument == "--JOB_NAME" or argument.startswith("--JOB_NAME=") for argument in arguments)


def job_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """The job's own arguments: `--config` always, `--available_now`, `--log_level` and `--tables` where they are given.

    Glue adds many of its own, which are left to it; prefixes of names are not understood.
    """
    from awsglue.utils import getResolvedOptions

    wanted = ["JOB_NAME", "config"]
    wanted += [name for name in ("available_now", "log_level", "tables") if f"--{name}" in arguments]
    found: dict[str, str] = getResolvedOptions(list(arguments), wanted)
    return {name: found[name] for name in wanted}


def begin(session: SparkSession, arguments: Mapping[str, str]) -> Callable[[], None]:
    """Tell Glue that the job runs; call what is returned when it has ended well."""
    from awsglue.context import GlueContext
    from awsglue.job import Job

    job = Job(GlueContext(session.sparkContext))
    job.init(arguments["JOB_NAME"], dict(arguments))
    commit: Callable[[], None] = job.commit
    return commit
