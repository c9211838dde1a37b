"""AWS Glue: its arguments, and the context a Glue job begins and ends with. The only file that imports awsglue."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def is_glue(arguments: Sequence[str]) -> bool:
    """Whether these are the arguments Glue gives a job: it always names the job."""
    return any(argument == "--JOB_NAME" or argument.startswith("--JOB_NAME=") for argument in arguments)


def job_arguments(arguments: Sequence[str], names: Collection[str]) -> dict[str, str]:
    """`JOB_NAME` and those of the job's own arguments that are given, `--available-now` read as `--available_now`.

    Glue adds many of its own, which are left to it; prefixes of names are not understood.
    """
    from awsglue.utils import getResolvedOptions

    hyphenated = {f"--{name.replace('_', '-')}": f"--{name}" for name in names}
    split = [argument.partition("=") for argument in arguments]
    spelled = ["".join((hyphenated.get(key, key), *rest)) for key, *rest in split]
    wanted = [name for name in ("JOB_NAME", *names) if any(each.partition("=")[0] == f"--{name}" for each in spelled)]
    options: dict[str, str] = getResolvedOptions(spelled, wanted)
    return {name: options[name] for name in wanted}


def begin(session: SparkSession, arguments: Mapping[str, str]) -> Callable[[], None]:
    """Tell Glue that the job runs; call what is returned when it has ended well."""
    from awsglue.context import GlueContext
    from awsglue.job import Job

    job = Job(GlueContext(session.sparkContext))
    job.init(arguments["JOB_NAME"], dict(arguments))
    commit: Callable[[], None] = job.commit
    return commit
