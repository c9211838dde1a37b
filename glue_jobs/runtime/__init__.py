"""Running jobs: the session, the queries and their restarts. Jobs import from here alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glue_jobs.runtime.jobs import JOBS, Batch, JobContext, Periodic, Plan, Query, Report
from glue_jobs.status.as_of import AsOf, StoresAsOf

if TYPE_CHECKING:
    from glue_jobs.runtime.spark.script import run_job

__all__ = ["JOBS", "AsOf", "Batch", "JobContext", "Periodic", "Plan", "Query", "Report", "StoresAsOf", "run_job"]


def __getattr__(name: str) -> object:
    """Import `run_job` lazily: workers and `--help` need no session."""
    if name == "run_job":
        from glue_jobs.runtime.spark.script import run_job

        return run_job
    raise AttributeError(name)
