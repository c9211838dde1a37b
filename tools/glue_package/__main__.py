"""`python -m tools.glue_package`: build the package of one pipeline; the jars stand in its `jars/` already."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from glue_jobs.runtime.jobs import JOBS
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
    folder: Path = options.folder
    location = options.location.rstrip("/")
    wheels.collect(options.cache, folder / "wheels")
    modules = wheels.archive(folder / "wheels", folder)
    (folder / "scripts").mkdir()
    for job in JOBS:
        shutil.copy(wheels.ROOT / "glue_jobs" / jobs.script_of(job), folder / "scripts")
    (folder / "pipeline.yaml").write_text(text, encoding="utf-8")
    jars = [path.name for path in sorted((folder / "jars").glob("*.jar")) if _is_wanted(path.name, pipeline)]
    place = {
        "package": location, "role": options.role, "modules": f"{location}/{modules.name}",
        "jars": ",".join(f"{location}/jars/{jar}" for jar in jars),
    }  # fmt: skip
    _describe(folder, pipeline, text, place)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(listed))


def _is_wanted(jar: str, pipeline: rights.Part) -> bool:
    """Whether a job names the jar: the one of MSK's IAM where a source signs in by it."""
    return not jar.startswith("aws-msk-iam-auth") or any(map(rights.uses_iam, rights.listed(pipeline["source"])))


def _describe(folder: Path, pipeline: rights.Part, text: str, place: dict[str, Any]) -> None:
    """Write what Glue and IAM are told."""
    configured = jobs.configured(pipeline)
    _write(folder / "job-arguments.json", {job: jobs.arguments() for job in JOBS})
    for job in configured:
        for always_on, kind in ((True, "always-on"), (False, "scheduled")):
            name = f"{pipeline['name']}-{job}" + ("" if always_on else "-scheduled")
            _write(folder / kind / f"{job}.json", jobs.create_job(job, name, place, always_on=always_on))
    for trigger in jobs.create_triggers(pipeline["name"], configured):
        _write(folder / "scheduled" / f"trigger-{trigger['Type'].lower()}.json", trigger)
    secrets = sorted(set(re.findall(r"\$\{secret:([^}]+?)(?::-[^}]*)?\}", text)))
    _write(folder / "policy.json", rights.policy(pipeline, place["package"], secrets))
    _write(folder / "trust.json", rights.TRUST)


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()
