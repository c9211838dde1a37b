"""A job file run as spark-submit and as Glue run it.

AWS's own Python package (awsgluedataplanepython 6.0.0) is used as it is; its Java side is on no registry, so three stub
classes stand where it would. That it runs on AWS is not shown here.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glue_jobs.config.values import use_region_of_profile
from glue_jobs.runtime.spark.glue import is_glue, job_arguments
from glue_jobs.runtime.spark.script import ARGUMENTS, options_of
from tests.glue_job import GLUE_ARGUMENTS, landed, submit

OWN = [argument.name for argument in ARGUMENTS]
ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "glue_jobs/land_changes.py"


def test_spark_submit_runs_a_job_file(config: Path) -> None:
    done = submit(JOB, "--config", config, "--available-now")
    assert done.returncode == 0, done.stdout[-2000:]
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
    assert job_arguments(arguments, OWN) == {"JOB_NAME": "helpdesk-land", "config": "s3://bucket/pipeline.yaml"}


@pytest.mark.parametrize(
    "spelling", [("--available_now", "true"), ("--available-now", "true"), ("--available-now=true",)]
)
def test_a_glue_job_drains_however_the_argument_is_spelled(spelling: tuple[str, ...]) -> None:
    options = options_of(["job.py", *GLUE_ARGUMENTS, *spelling, "--config", "c.yaml", "--tables", "a,b"])
    assert options.available_now
    assert options.tables == ("a", "b")


def test_a_glue_job_refuses_a_value_that_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options_of(["job.py", *GLUE_ARGUMENTS, "--config", "c.yaml", "--available_now", "ture"])
    assert ended.value.code == 2
    assert "invalid choice: 'ture'" in capsys.readouterr().err


def test_on_glue_the_region_of_a_profile_is_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("[default]\nregion = eu-central-1\n")
    for name in ("AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    use_region_of_profile()
    assert os.environ["AWS_REGION"] == "eu-central-1"
