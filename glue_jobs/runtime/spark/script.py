"""Runs jobs from arguments to an exit status, for `ragstream run`, spark-submit and Glue alike."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glue_jobs.config.pipeline import PipelineConfig, load_config, of_tables
from glue_jobs.config.values import use_region_of_profile
from glue_jobs.operations import checks
from glue_jobs.runtime.jobs import JOBS, JobContext, Periodic, Plan, Query, listed
from glue_jobs.runtime.logs import set_up
from glue_jobs.runtime.runner import run_queries
from glue_jobs.runtime.spark import glue
from glue_jobs.runtime.spark.session import open_session
from glue_jobs.status.record import StatusRecords
from glue_jobs.storage import lake_mark
from schemas.errors import PipelineError, UnavailableError

if TYPE_CHECKING:
    from types import FrameType

    from pyspark.sql import SparkSession

_LOG = logging.getLogger(__name__)
_PLAN_PAUSE_SECONDS = 2.0


@dataclass(frozen=True)
class Argument:
    """One argument of every job script: `--available-now` under spark-submit, `--available_now true` on Glue."""

    name: str
    help: str
    default: str | None = None
    """None: it is required."""
    choices: tuple[str, ...] = ()

    @property
    def is_flag(self) -> bool:
        """Whether its name alone means `true`; Glue gives every argument a value."""
        return self.choices == ("true", "false")


ARGUMENTS = (
    Argument("config", "the pipeline's YAML or JSON file, a path or s3://BUCKET/KEY"),
    Argument("available_now", "drain the sources, then end", "false", ("true", "false")),
    Argument("log_level", "the lowest level that is logged", "info", ("debug", "info", "warning", "error")),
    Argument("tables", "only these, comma-separated, from the earliest offsets", ""),
    Argument("accept_rejects", "land however many rejects there are", "false", ("true", "false")),
)
"""The arguments of a job script; `make glue-package` derives Glue's job arguments from them."""


@dataclass(frozen=True)
class Options:
    """The parsed arguments of a job script."""

    config: str
    available_now: bool = False
    log_level: str = "info"
    glue_arguments: Mapping[str, str] | None = None
    """Glue's own arguments, when the job runs there."""
    tables: tuple[str, ...] = ()
    """The only tables to carry; empty: all. See `glue_jobs.config.pipeline.of_tables`."""
    accept_rejects: bool = False
    """Land however many rejects there are. See `lake.landing.breaker`."""


def run_job(plan: Plan) -> None:
    """Run one job as a script and exit with its status: under spark-submit, or on Glue."""
    sys.exit(_run_script(plan, sys.argv))


def _run_script(plan: Plan, arguments: Sequence[str]) -> int:
    module = sys.modules["__main__"].__spec__.name if sys.modules["__main__"].__spec__ else arguments[0]
    job = next((name for name, where in JOBS.items() if where.rsplit(".", 1)[-1] in module), "index")
    try:
        return run_pipeline(options_of(arguments), {job: plan})
    except PipelineError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a script reports its failure
        return error.exit_status


def options_of(arguments: Sequence[str]) -> Options:
    """Parse a script's arguments, Glue's `--key value` form included; exits with status 2 where they are wrong."""
    on_glue = None
    own = arguments[1:]
    if glue.is_glue(arguments):
        on_glue = glue.job_arguments(arguments, [argument.name for argument in ARGUMENTS])
        own = [f"--{name.replace('_', '-')}={value}" for name, value in on_glue.items() if name != "JOB_NAME"]
    parser = argparse.ArgumentParser(prog=arguments[0])
    for argument in ARGUMENTS:
        parser.add_argument(
            f"--{argument.name.replace('_', '-')}",
            required=argument.default is None,
            default=argument.default,
            choices=argument.choices or None,
            nargs="?" if argument.is_flag else None,
            const="true" if argument.is_flag else None,
            help=argument.help,
        )
    parsed = parser.parse_args(own)
    flags = (parsed.available_now == "true", parsed.accept_rejects == "true")
    return Options(parsed.config, flags[0], parsed.log_level, on_glue, listed(parsed.tables), flags[1])


def plans_of(jobs: Iterable[str]) -> dict[str, Plan]:
    """Import the jobs' plans."""
    return {job: importlib.import_module(JOBS[job]).plan for job in jobs}


def run_pipeline(options: Options, plans: Mapping[str, Plan]) -> int:
    """Check every part, then run these jobs in this driver until they are drained, stopped or failed.

    Returns 0; raises the PipelineError that ended it. The first SIGINT or SIGTERM stops between two batches, the second
    at once. A run after a kill resumes from the checkpoints.
    """
    if options.glue_arguments:
        use_region_of_profile()
    config = load_config(options.config)
    config = of_tables(config, options.tables) if options.tables else config
    set_up(options.log_level, config.redact)
    stop = threading.Event()
    _stop_on_signals(stop)
    session = _checked_session(config, options, plans)
    committed = glue.begin(session, options.glue_arguments) if options.glue_arguments else None
    some_tables, accept = bool(options.tables), options.accept_rejects
    context = JobContext(session, config, options.available_now, some_tables=some_tables, accept_rejects=accept)
    planned = [item for job, plan in plans.items() for item in _planned(job, plan, context, stop)]
    lake_mark.bind(config)  # planning has created the lake
    run_queries(planned, context, stop, StatusRecords(config.checkpoint))
    if committed is not None:
        committed()
    return 0


def _checked_session(config: PipelineConfig, options: Options, plans: Mapping[str, Plan]) -> SparkSession:
    """Start Spark while the parts are checked, since both take seconds; a failed check does not wait for Spark.

    Spark starts on a thread of its own, because on the main one it installs a handler of SIGINT.
    """
    opening: Future[SparkSession] = Future()

    def open_it() -> None:
        try:
            level = "WARN" if options.log_level == "debug" else "OFF"
            name, lake = f"ragstream {config.name}", config.lake.path
            opening.set_result(open_session(name, checkpoint=config.checkpoint, lake=lake, log_level=level))
        except BaseException as error:  # noqa: BLE001 - raised again by `opening.result()`
            opening.set_exception(error)

    threading.Thread(target=open_it, name="session", daemon=True).start()
    checks.refuse(checks.run(checks.parts(config, plans)))
    return opening.result()


def _planned(job: str, plan: Plan, context: JobContext, stop: threading.Event) -> list[Query | Periodic]:
    """Plan a job, again and again while a part is unavailable."""
    while not stop.is_set():
        try:
            return plan(context)
        except UnavailableError as error:
            _LOG.warning("job cannot start yet", extra={"context": {"job": job, "error": error.message}})
            stop.wait(_PLAN_PAUSE_SECONDS)
    return []


def _stop_on_signals(stop: threading.Event) -> None:
    began = time.monotonic()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        _LOG.warning(
            "stopping after the batches in flight", extra={"context": {"after_s": round(time.monotonic() - began)}}
        )
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
