"""A pipeline whose lake and checkpoint are on S3, with keys that expire while it runs, killed at chosen writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from local_stack.faults.s3 import Point, S3Proxy
from local_stack.servers.aws import REGION, Ministack
from local_stack.stack import Stack
from tests.e2e.pipeline import Driver, Pipeline, running
from tests.recorded import FIXTURES, KEYS

KEY_SECONDS = 17
"""Java's client renews a key 15 s before its end, deltalake's 10 s before."""
TABLES = ("inv.items",)
COMMIT = r"/_delta_log/0*[1-9]\d*\.json"
"""Under a table: what makes a MERGE count, whose files stand by then; version 0 creates the table."""
KILLS: tuple[tuple[Point, int], ...] = (("asked", 0), ("done", 1))
"""When the driver dies of a MERGE's commit, and the version that the table is at then."""


def short_lived_keys(folder: Path) -> dict[str, str]:
    """The environment of a process whose keys come from a command and soon expire."""
    command = folder / "keys.sh"
    command.write_text(
        "#!/bin/sh\nuntil=$(($(date +%s) + " + str(KEY_SECONDS) + "))\n"
        'printf \'{"Version":1,"AccessKeyId":"EXPIRES%s","SecretAccessKey":"s","SessionToken":"t","Expiration":"%s"}\' '
        '"$until" "$(date -u -d @$until +%Y-%m-%dT%H:%M:%SZ)"\n'
    )
    command.chmod(0o700)
    (folder / "config").write_text(f"[default]\nregion = {REGION}\ncredential_process = {command}\n")
    return {"AWS_CONFIG_FILE": str(folder / "config"), "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": REGION}


def pipeline(folder: Path, stack: Stack, bucket: str) -> Pipeline:
    source = {"type": "files", "format": "kafka", "envelope": "debezium", "max_records_per_trigger": 120}
    configuration: dict[str, Any] = {
        "name": "on_s3",
        "source": source | {"path": [str(FIXTURES / "pg15_schemas.jsonl")]},
        "tables": [{"table": table, "keys": list(KEYS[table])} for table in TABLES],
        "lake": {"path": f"s3a://{bucket}/lake"},
        "checkpoint": f"s3a://{bucket}/checkpoint",
    }
    return Pipeline(folder, configuration, mark=str(stack.directory))


def drain_until(run: Pipeline, proxy: S3Proxy, path: str, point: Point) -> Driver:
    """Run a driver, and kill it at the first put of such a path."""

    def goes_on(put: str, at: Point) -> bool:
        if at == point and re.fullmatch(path, put):
            run.drivers[-1].kill()
        return run.drivers[-1].alive

    proxy.goes_on = goes_on
    try:
        return run.drain("--jobs", "land,merge")
    finally:
        proxy.goes_on = lambda _, __: True


@pytest.mark.long
@pytest.mark.slow
def test_a_lake_on_s3_survives_a_kill_and_keys_that_expire(
    tmp_path: Path, local_stack: Stack, aws: Ministack, bucket: str
) -> None:
    lines = (FIXTURES / "pg15_schemas.jsonl").read_text().splitlines()
    run = pipeline(tmp_path / "run", local_stack, bucket)
    with S3Proxy(aws.endpoint["endpoint_url"], delay=0.005) as proxy, running(run):
        run.environment = {"AWS_ENDPOINT_URL": proxy.endpoint_url, **short_lived_keys(tmp_path)}
        run.drain_until("land-half", "--jobs", "land,merge")
        for point, version in KILLS:
            killed = drain_until(run, proxy, run.layout.table(TABLES[0]).removeprefix("s3a:/") + COMMIT, point)
            assert killed.process.returncode == -9, (point, killed.log.read_text()[-3000:])
            assert DeltaTable(run.layout.table(TABLES[0])).version() == version
        done = run.drain("--jobs", "land,merge")
        assert done.process.returncode == 0, done.log.read_text()[-3000:]
        assert sum(run.accounted().values()) == len(lines)
        assert set(run.landed().values()) == {1}
        for table in TABLES:
            printed = run.command("table", table)
            assert printed.returncode == 0, printed.stderr
            rows = [json.loads(line) for line in printed.stdout.splitlines()]
            kinds = dict.fromkeys(KEYS[table], "text")
            assert len(rows) == len(run.rows(table, kinds)) > 0
            assert run.merged_rows(table, kinds) == run.rows(table, kinds)
        assert run.command("status", "--json").returncode == 0
        assert len(proxy.keys) > 2
        assert proxy.refused == 0


def test_check_of_a_lake_in_no_bucket(tmp_path: Path, local_stack: Stack, aws: Ministack) -> None:
    run = pipeline(tmp_path / "run", local_stack, "no-bucket-of-this-name")
    run.environment = aws.variables
    checked = run.command("check")
    assert checked.returncode == 2
    assert (
        "lake.path: s3a://no-bucket-of-this-name/lake cannot be written: NoSuchBucket"
        in checked.stdout + checked.stderr
    )
    assert "Create the bucket" in checked.stdout + checked.stderr
