"""The jobs as Glue is told of them: requests for CreateJob and CreateTrigger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from botocore.session import Session
from botocore.validate import ParamValidator

from glue_jobs.runtime.jobs import JOBS

_WORKERS = {"land": ("G.1X", 2), "merge": ("G.1X", 2), "index": ("G.1X", 3), "load": ("G.1X", 2)}
"""Type and number, the driver's included: the least that Glue starts, and for `index` one more, for its two readers a source."""
_GLUE = {
    "--job-language": "python", "--datalake-formats": "delta", "--enable-continuous-cloudwatch-log": "true",
    "--enable-metrics": "true", "--enable-observability-metrics": "true",
    # Everything is in the archive: pip looks nowhere else, and Spark's own packages, which pip does not see, are not asked for.
    "--python-modules-installer-option": "--no-index --no-deps",
}  # fmt: skip


def configured(pipeline: Mapping[str, Any]) -> list[str]:
    """The jobs that have something to do in this pipeline."""
    needs = {"index": "sinks", "load": "warehouse"}
    return [job for job in JOBS if job not in needs or pipeline.get(needs[job])]


def script_of(job: str) -> str:
    """The job's script, by which it knows which job it is."""
    return f"{JOBS[job].rsplit('.', 1)[-1]}.py"


def create_job(job: str, name: str, place: Mapping[str, Any], *, always_on: bool) -> dict[str, Any]:
    """One CreateJob request; `place` has what all share: package, role, modules, jars."""
    worker, number = _WORKERS[job]
    package = place["package"]
    request: dict[str, Any] = {
        "Name": name, "Role": place["role"], "GlueVersion": "6.0", "WorkerType": worker, "NumberOfWorkers": number,
        "ExecutionProperty": {"MaxConcurrentRuns": 1},
        "Command": {
            "Name": "gluestreaming" if always_on else "glueetl", "PythonVersion": "3",
            "ScriptLocation": f"{package}/scripts/{script_of(job)}",
        },
        "DefaultArguments": {
            **_GLUE, "--additional-python-modules": place["modules"], "--extra-jars": place["jars"],
            "--TempDir": f"{package}/temporary/", "--config": f"{package}/pipeline.yaml",
            "--available_now": str(not always_on).lower(), "--log_level": "info",
        },
    }  # fmt: skip
    # No timeout where it is always on: Glue starts the run again in the window, once it is seven days old.
    limits = {"MaintenanceWindow": "Sun:3", "MaxRetries": 3} if always_on else {"Timeout": 240, "MaxRetries": 0}
    return validated("CreateJob", request | limits)


def create_triggers(pipeline: str, jobs: Sequence[str]) -> list[dict[str, Any]]:
    """Start the readers of the streams by the clock, and those of the lake when landing has succeeded."""
    names = {job: f"{pipeline}-{job}-scheduled" for job in jobs}
    landed = {"LogicalOperator": "EQUALS", "JobName": names["land"], "State": "SUCCEEDED"}
    of_streams = [{"JobName": name} for job, name in names.items() if job in {"land", "index"}]
    of_lake = [{"JobName": name} for job, name in names.items() if job not in {"land", "index"}]
    triggers: list[dict[str, Any]] = [
        {"Name": f"{pipeline}-clock", "Type": "SCHEDULED", "Schedule": "cron(0/15 * * * ? *)", "Actions": of_streams},
        {
            "Name": f"{pipeline}-landed",
            "Type": "CONDITIONAL",
            "Predicate": {"Conditions": [landed]},
            "Actions": of_lake,
        },
    ]
    return [validated("CreateTrigger", {"StartOnCreation": True} | trigger) for trigger in triggers]


def validated(operation: str, request: dict[str, Any]) -> dict[str, Any]:
    """The request, as botocore's model of Glue has it; raises ValueError for what the service would refuse."""
    shape: Any = Session().get_service_model("glue").operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        raise ValueError(f"{operation} {request.get('Name')}: {report.generate_report()}")
    return request
