"""A job file run as spark-submit and as Glue run it.

AWS's own Python package (awsgluedataplanepython 6.0.0) is used as it is; its Java side is on no registry, so three stub
classes stand where it would. That it runs on AWS is not shown here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from deltalake import DeltaTable

from glue_jobs.runtime.spark.glue import is_glue, job_arguments

ROOT = Path(__file__).resolve().parents[2]
STUBS = Path(__file__).with_name("glue_stubs")
JOB = ROOT / "glue_jobs/land_changes.py"
GLUE_ARGUMENTS = (
    *("--JOB_NAME", "helpdesk-land", "--JOB_ID", "j_1", "--JOB_RUN_ID", "jr_1", "--TempDir", "s3://bucket/tmp"),
    *("--job-bookmark-option", "job-bookmark-disable", "--enable-metrics", "true", "--datalake-formats", "delta"),
)
"""What Glue adds to a job's own arguments (its documentation, "Using job parameters")."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    row = {"id": 1, "title": "x"}
    source = {"version": "3.5", "connector": "postgresql", "name": "h", "db": "d", "schema": "public", "table": "t"}
    source |= {"ts_ms": 1, "lsn": 7, "sequence": '["5","7"]', "snapshot": "false"}  # type: ignore[dict-item]
    value = {"before": None, "after": row, "source": source, "op": "c", "ts_ms": 1}
    event = {"topic": "h.public.t", "key": {"id": 1}, "value": value, "partition": 0, "offset": 0}
    (tmp_path / "events.jsonl").write_text(json.dumps(event | {"timestamp": 1, "headers": []}) + "\n")
    config = tmp_path / "pipeline.yaml"
    config.write_text(
        f"name: glued\nsource: {{type: files, format: kafka, envelope: debezium, path: [{tmp_path}/events.jsonl]}}\n"
        f"tables: [{{table: public.t, keys: [id]}}]\nlake: {{path: {tmp_path}/lake}}\ncheckpoint: {tmp_path}/checkpoints\n"
    )
    return config


@pytest.fixture(scope="module")
def stub_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    classes = tmp_path_factory.mktemp("glue")
    subprocess.run(["javac", "-d", classes, *STUBS.rglob("*.java")], check=True)
    return classes


def submit(*arguments: str | Path, class_path: Path | None = None) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [Path(sys.executable).with_name("spark-submit"), "--master", "local[2]"]
    if class_path is not None:
        command += ["--driver-class-path", class_path]
    environment = os.environ | {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    # spark-submit sends what Python writes to stderr to its own stdout.
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=300, check=False, env=environment
    )


def landed(config: Path) -> int:
    return int(DeltaTable(str(config.parent / "lake/changes")).to_pyarrow_table(columns=["_table"]).num_rows)


def test_spark_submit_runs_a_job_file(config: Path) -> None:
    done = submit(JOB, "--config", config, "--available-now")
    assert done.returncode == 0, done.stdout[-2000:]
    assert landed(config) == 1


def test_glue_runs_the_same_file_with_its_own_arguments(config: Path, stub_classes: Path) -> None:
    arguments = (*GLUE_ARGUMENTS, "--config", str(config), "--available_now", "true")
    done = submit(JOB, *arguments, class_path=stub_classes)
    assert done.returncode == 0, done.stdout[-2000:]
    told = re.findall(r"^GLUE (.+)$", done.stdout, re.MULTILINE)
    expected = f"{{JOB_NAME=helpdesk-land, available_now=true, config={config}}}"
    assert told == [f"init helpdesk-land {expected}", "commit"]
    assert landed(config) == 1


def test_glue_sees_a_configuration_that_is_wrong_as_a_job_that_failed(config: Path, stub_classes: Path) -> None:
    config.write_text(config.read_text().replace("keys", "kees"))
    done = submit(JOB, *GLUE_ARGUMENTS, "--config", config, class_path=stub_classes)
    assert done.returncode == 2
    assert "Did you mean `keys`?" in done.stdout
    assert "Traceback" not in done.stdout
    assert not (config.parent / "lake").exists()


def test_glue_is_known_by_its_arguments_which_are_left_to_it() -> None:
    assert not is_glue(["job.py", "--config", "pipeline.yaml"])
    arguments = ["job.py", *GLUE_ARGUMENTS, "--config", "s3://bucket/pipeline.yaml"]
    assert is_glue(arguments)
    assert job_arguments(arguments) == {"JOB_NAME": "helpdesk-land", "config": "s3://bucket/pipeline.yaml"}
