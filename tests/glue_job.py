"""A job script under spark-submit, with the arguments that Glue gives it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from deltalake import DeltaTable

GLUE_ARGUMENTS = (
    *("--JOB_NAME", "helpdesk-land", "--JOB_ID", "j_1", "--JOB_RUN_ID", "jr_1", "--TempDir", "s3://bucket/tmp"),
    *("--job-bookmark-option", "job-bookmark-disable", "--enable-metrics", "true", "--datalake-formats", "delta"),
)
"""What Glue adds to a job's own arguments (its documentation, "Using job parameters")."""


def submit(
    *arguments: str | Path, class_path: Path | None = None, python: Path = Path(sys.executable)
) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [Path(sys.executable).with_name("spark-submit"), "--master", "local[2]"]
    if class_path is not None:
        command += ["--driver-class-path", class_path]
    environment = os.environ | {"PYSPARK_PYTHON": str(python), "PYSPARK_DRIVER_PYTHON": str(python)}
    # spark-submit sends what Python writes to stderr to its own stdout.
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=300, check=False, env=environment
    )


def landed(config: Path) -> int:
    return int(DeltaTable(str(config.parent / "lake/changes")).to_pyarrow_table(columns=["_table"]).num_rows)
