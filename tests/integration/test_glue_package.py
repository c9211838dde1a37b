"""What `make glue-package` builds, installed offline beside Glue's own packages into an empty Python 3.13.

That it runs on AWS is not shown here: see docs/glue.md.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session
from packaging import tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from glue_jobs.config.pipeline import parse_config
from glue_jobs.config.values import Substitution
from tests.glue_job import GLUE_ARGUMENTS, landed, submit
from tools.glue_package import rights, wheels

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(sysconfig.get_path("purelib"))
OF_GLUE = Path(sys.prefix) / "glue"
FROM_HERE = ("pyspark", "pyspark-4.1.1.dist-info", "py4j", "py4j-0.10.9.9.dist-info", "awsglue")
"""What Glue has from Spark and from itself."""
PERMISSION_ONLY = {
    *(
        "s3:ListBucket",
        "aoss:APIAccessAll",
        "es:ESHttpGet",
        "es:ESHttpHead",
        "es:ESHttpPost",
        "es:ESHttpPut",
        "es:ESHttpDelete",
    ),
    *("kafka-cluster:Connect", "kafka-cluster:DescribeTopic", "kafka-cluster:ReadData", "kafka-cluster:DescribeGroup"),
    *("kafka-cluster:AlterGroup", "redshift:GetClusterCredentialsWithIAM"),
}
"""Actions that no operation of an API is named after."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glue") / "package"
    # Not that of a `make -j` above.
    environment = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL"}}
    done = subprocess.run(
        ["make", "glue-package", f"OUT={folder}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def python(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty Python 3.13 that sees Glue's own packages, with the package installed as Glue does it."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    interpreter = folder / "bin/python"
    (site,) = folder.glob("lib/python3.13/site-packages")
    (image,) = OF_GLUE.glob("lib/python3.13/site-packages")
    spark = folder / "spark"
    spark.mkdir()
    for name in FROM_HERE:
        (spark / name).symlink_to(SITE / name)
    (site / "of_glue.pth").write_text(f"{image}\n{spark}\n")
    options = json.loads((package / "always-on/land.json").read_text())["DefaultArguments"]
    offline = options["--python-modules-installer-option"].split()
    listed = ("--find-links", package / "wheels", "-r", package / "wheels/requirements.txt")
    # Compiling takes longer than all else, and no script here runs twice.
    command = [interpreter, "-m", "pip", "install", "--quiet", "--no-compile", *offline, *listed]
    subprocess.run(command, check=True)
    return interpreter


def test_the_package_is_what_its_list_of_hashes_says(package: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=package, check=True)
    listed = {line[66:] for line in (package / "SHA256SUMS").read_text().splitlines()}
    there = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert listed == there - {"SHA256SUMS"}


def test_every_wheel_runs_on_glibc_2_34_under_python_3_13(package: Path) -> None:
    runs = {
        *tags.cpython_tags((3, 13), ["cp313"], wheels.PLATFORMS),
        *tags.compatible_tags((3, 13), "cp313", wheels.PLATFORMS),
    }
    for path in (package / "wheels").glob("*.whl"):
        assert parse_wheel_filename(path.name)[3] & runs, path.name


def test_nothing_that_glue_has_is_shipped(package: Path) -> None:
    shipped = {canonicalize_name(path.name.split("-")[0]) for path in (package / "wheels").glob("*.whl")}
    listed = re.findall(r"^# unused: (.+)$", (ROOT / "requirements/glue.in").read_text(), re.MULTILINE)
    unused = {canonicalize_name(name) for line in listed for name in line.split()}
    assert not shipped & (unused | wheels.locked("glue").keys() | wheels.OF_SPARK)


def test_it_installs_offline_beside_glues_own_packages(python: Path) -> None:
    done = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    versions = "import boto3, pandas, urllib3; print(boto3.__version__, pandas.__version__, urllib3.__version__)"
    assert run(python, "-c", versions).stdout.split() == ["1.42.84", "2.3.3", "2.6.3"]


def run(python: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it where the checkout is not to be seen."""
    return subprocess.run(
        [python, "-P", *arguments], cwd=python.parent, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("script", ["land_changes", "merge_tables", "index_documents", "load_warehouse"])
def test_each_script_starts_up_to_its_configuration(package: Path, python: Path, tmp_path: Path, script: str) -> None:
    config = tmp_path / "pipeline.yaml"
    config.write_text((ROOT / "job_configs/glue.yaml").read_text().replace("keys:", "kees:"))
    done = run(python, package / f"scripts/{script}.py", *GLUE_ARGUMENTS, "--config", config)
    assert done.returncode == 2, done.stderr
    assert "Did you mean `keys`?" in done.stderr


def test_its_script_lands_with_the_packages_that_were_installed(
    package: Path, python: Path, config: Path, stub_classes: Path
) -> None:
    requested = json.loads((package / "scheduled/land.json").read_text())["DefaultArguments"]
    own = [word for name in ("--available_now", "--log_level") for word in (name, requested[name])]
    script = package / "scripts/land_changes.py"
    done = submit(script, *GLUE_ARGUMENTS, "--config", config, *own, class_path=stub_classes, python=python)
    assert done.returncode == 0, done.stdout[-2000:]
    expected = f"{{JOB_NAME=helpdesk-land, available_now=true, config={config}, log_level=info}}"
    assert re.findall(r"^GLUE (.+)$", done.stdout, re.MULTILINE) == [f"init helpdesk-land {expected}", "commit"]
    assert landed(config) == 1


def test_the_requests_name_only_what_is_in_the_package(package: Path) -> None:
    worker_types = Session().get_service_model("glue").shape_for("WorkerType").metadata["enum"]
    arguments = json.loads((package / "job-arguments.json").read_text())
    for path in [*package.glob("always-on/*.json"), *package.glob("scheduled/[a-s]*.json")]:
        request = json.loads(path.read_text())
        assert request["WorkerType"] in worker_types
        defaults = request["DefaultArguments"]
        urls = [
            request["Command"]["ScriptLocation"],
            defaults["--additional-python-modules"],
            *defaults["--extra-jars"].split(","),
        ]
        for url in [*urls, defaults["--config"]]:
            assert (package / url.removeprefix("s3://amzn-s3-demo-bucket/desk/package/")).is_file()
        assert {argument["name"] for argument in arguments if argument["default"] is None} <= defaults.keys()


EVERYTHING: dict[str, Any] = {
    "lake": {"path": "s3a://data/lake"}, "checkpoint": "s3a://data/checkpoint",
    "source": [
        {"type": "kafka", "options": {"kafka.sasl.mechanism": "AWS_MSK_IAM"}},
        {"type": "kinesis", "stream": "desk", "consumer": "ragstream"},
    ],
    "sinks": [
        {"type": "pgvector"}, {"type": "documentdb"}, {"type": "opensearch", "signing": {"service": "es"}},
        {"type": "opensearch", "signing": {"service": "aoss"}},
    ],
    "embedding": {"type": "bedrock", "model": "eu.cohere.embed-v4:0"},
    "warehouse": {"type": "redshift", "staging": "s3://staging/desk", "data_api": {"workgroup": "desk"}},
}  # fmt: skip


def test_every_right_is_an_action_that_aws_knows() -> None:
    policy = rights.policy(EVERYTHING, "s3://data/package", ["vectors"])
    actions = {action for statement in policy["Statement"] for action in statement["Action"]}
    session = Session()
    services = {"monitoring": "cloudwatch", "bedrock": "bedrock-runtime"}
    for action in actions - PERMISSION_ONLY:
        service, name = action.split(":")
        operations = session.get_service_model(services.get(service, service)).operation_names
        assert name in operations, action
    assert actions >= PERMISSION_ONLY


def test_rights_are_those_of_the_parts_that_are_configured(package: Path) -> None:
    policy = (package / "policy.json").read_text()
    assert "kafka-cluster:ReadData" in policy
    assert "arn:aws:secretsmanager:*:*:secret:vectors-??????" in policy
    assert not re.search("kinesis|redshift|es:|aoss", policy)


def test_the_configuration_for_glue_is_one() -> None:
    text = (ROOT / "job_configs/glue.yaml").read_text()
    config = parse_config(
        text, "glue.yaml", Substitution({"vectors": "host=desk.example user=u password=secret"}, Path())
    )
    assert config.checkpoint == "s3a://amzn-s3-demo-bucket/desk/checkpoint"


def test_a_lake_that_is_not_on_s3_is_refused(tmp_path: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "tools.glue_package",
        tmp_path,
        "--cache",
        tmp_path,
        "--location",
        "s3://b/p",
    ]
    config = ROOT / "job_configs/helpdesk.yaml"
    done = subprocess.run(
        [*command, "--role", "r", "--config", config], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "on Glue it is s3a://BUCKET/PREFIX" in done.stderr
