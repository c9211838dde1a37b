"""`python -m tools.glue_package`: build the package of one pipeline; the jars stand in its `jars/` already."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from glue_jobs.runtime.jobs import JOBS
from glue_jobs.runtime.spark.script import ARGUMENTS
from tools.glue_package import jobs, rights, wheels

_LOCATION = "s3://amzn-s3-demo-bucket/desk/package"


def main() -> None:
    """Fill the folder, and list what is in it with its SHA-256."""
    parser = argparse.ArgumentParser(prog="glue-package")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="where downloaded wheels are kept")
    parser.add_argument("--config", type=Path, required=True, help="the pipeline's configuration, in YAML or JSON")
    parser.add_argument("--location", default=_LOCATION, help="s3://BUCKET/PREFIX, where the package will stand")
    parser.add_argument("--role", default="ragstream-desk", help="the jobs' role, its name or ARN")
    options = parser.parse_args()
    text = options.config.read_text(encoding="utf-8")
    pipeline = yaml.safe_load(text)
    for key, location in (("lake.path", pipeline["lake"]["path"]), ("checkpoint", pipeline["checkpoint"])):
        if not re.match(r"s3a?://[a-z0-9]", location):
            parser.error(f"{options.config}: {key} is {location}; on Glue it is s3a://BUCKET/PREFIX, written out.")
    folder, package = options.folder, options.location.rstrip("/")
    wheels.collect(options.cache, folder / "wheels")
    modules = wheels.archive(folder / "wheels", folder)
    (folder / "scripts").mkdir()
    for job in JOBS:
        shutil.copy(wheels.ROOT / "glue_jobs" / jobs.script_of(job), folder / "scripts")
    (folder / "pipeline.yaml").write_text(text, encoding="utf-8")
    signs_in = any(map(rights.uses_iam, rights.listed(pipeline["source"])))
    jars = [path.name for path in sorted((folder / "jars").glob("*.jar")) if signs_in or "msk-iam" not in path.name]
    place = {
        "package": package, "role": options.role, "modules": f"{package}/{modules.name}",
        "jars": ",".join(f"{package}/jars/{jar}" for jar in jars),
    }  # fmt: skip
    secrets = sorted(set(re.findall(r"\$\{secret:([^}]+?)(?::-[^}]*)?\}", text)))
    described = _requests(pipeline, place) | {
        "job-arguments.json": [asdict(argument) | {"name": f"--{argument.name}"} for argument in ARGUMENTS],
        "policy.json": rights.policy(pipeline, package, secrets),
        "trust.json": rights.TRUST,
    }
    for name, value in described.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(listed))


def _requests(pipeline: rights.Part, place: Mapping[str, str]) -> dict[str, Any]:
    """Requests for Glue, by file."""
    name, configured = pipeline["name"], jobs.configured(pipeline)
    always_on = {
        f"always-on/{job}.json": jobs.create_job(job, f"{name}-{job}", place, always_on=True) for job in configured
    }
    scheduled = {
        f"scheduled/{job}.json": jobs.create_job(job, f"{name}-{job}-scheduled", place, always_on=False)
        for job in configured
    }
    triggers = jobs.create_triggers(name, configured)
    return (
        always_on | scheduled | {f"scheduled/trigger-{trigger['Type'].lower()}.json": trigger for trigger in triggers}
    )


if __name__ == "__main__":
    main()
