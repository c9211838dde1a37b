"""AWS Glue: its arguments, and the context a Glue job begins and ends with. The only file that imports awsglue."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def is_glue(arguments: Sequence[str]) -> bool:
    """Whether Glue started this job: it always passes `--JOB_NAME`."""
    return any(argument == "--JOB_NAME" or argument.startswith("--JOB_NAME=") for argument in arguments)


def job_arguments(arguments: Sequence[str], names: Collection[str]) -> dict[str, str]:
    """`JOB_NAME` and the job's own arguments that are present; `--available-now` is read as `--available_now`.

    Glue's own arguments are ignored; prefixes of names are not accepted.
    """
    from awsglue.utils import getResolvedOptions

    hyphenated = {f"--{name.replace('_', '-')}": f"--{name}" for name in names}
    split = [argument.partition("=") for argument in arguments]
    normalized = ["".join((hyphenated.get(key, key), *rest)) for key, *rest in split]
    passed = {argument.partition("=")[0] for argument in normalized}
    present = [name for name in ("JOB_NAME", *names) if f"--{name}" in passed]
    options: dict[str, str] = getResolvedOptions(normalized, present)
    return {name: options[name] for name in present}


def begin(session: SparkSession, arguments: Mapping[str, str]) -> Callable[[], None]:
    """Begin Glue's job run; returns its commit, to be called after a successful end."""
    from awsglue.context import GlueContext
    from awsglue.job import Job

    job = Job(GlueContext(session.sparkContext))
    job.init(arguments["JOB_NAME"], dict(arguments))
    commit: Callable[[], None] = job.commit
    return commit
