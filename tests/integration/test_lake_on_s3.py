"""The lake's log on S3: one winner a version whoever commits, and what is wrong with a bucket is said beforehand."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyspark
import pytest
from deltalake import DeltaTable

from glue_jobs.config.values import s3_environment
from glue_jobs.runtime.spark.session import settings
from glue_jobs.storage import files, s3
from glue_jobs.storage.s3_check import check
from lake import storage
from lake.landing import landed_files
from lake.landing.batch import create_tables
from lake.layout import LakeLayout
from lake.rejects import append_rejects, create_rejects
from lake.storage import rows_of
from local_stack.faults.aws import AwsFaultProxy
from local_stack.faults.s3 import Point, S3Proxy
from local_stack.servers.aws import Ministack
from schemas.errors import ConfigurationError
from tests.waiting import eventually

CONTEST = Path(__file__).with_name("s3_contest") / "Contest.java"
CONTESTED = 60

type Contest = Callable[..., list[int]]


@pytest.fixture(scope="module")
def class_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    jars = f"{s3_environment().jars}/*{os.pathsep}{pyspark.__path__[0]}/jars/*"
    classes = tmp_path_factory.mktemp("contest")
    subprocess.run(["javac", "-cp", jars, "-d", classes, CONTEST], check=True)
    return f"{classes}{os.pathsep}{jars}"


@pytest.fixture
def contest(class_path: str, aws: Ministack) -> Contest:
    def run(table: str, *arguments: object, endpoint: str = "") -> list[int]:
        command = ["java", "-cp", class_path, "Contest", table, endpoint or aws.endpoint["endpoint_url"]]
        done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr[-3000:]
        return [int(line) for line in done.stdout.split()]

    return run


def written(aws: Ministack, bucket: str, version: int) -> str:
    """Who wrote a commit, as its entry says."""
    entry = aws.client("s3").get_object(Bucket=bucket, Key=f"t/_delta_log/{version:020}.json")["Body"].read()
    name: str = json.loads(entry.splitlines()[0])["commitInfo"]["txnId"]
    return name.partition("-")[0]


def test_of_two_drivers_that_commit_a_version_one_wins(aws: Ministack, bucket: str, contest: Contest) -> None:
    at = round(time.time() * 1000) + 5000
    with ThreadPoolExecutor(2) as pool:
        wins = dict(
            zip("ab", pool.map(lambda name: contest(f"s3a://{bucket}/t", name, CONTESTED, at), "ab"), strict=True)
        )
    assert sorted(wins["a"] + wins["b"]) == list(range(1, CONTESTED + 1))
    assert all(written(aws, bucket, version) == name for name, won in wins.items() for version in won)


def test_a_driver_and_deltalake_commit_to_one_table(bucket: str, contest: Contest) -> None:
    lake = f"s3a://{bucket}"
    create_rejects(lake)
    rejects = LakeLayout(lake).path("rejects")
    with ThreadPoolExecutor(1) as pool:
        jvm = pool.submit(contest, rejects, "jvm", CONTESTED // 2)
        eventually(lambda: DeltaTable(f"s3://{bucket}/rejects").version() > 0 or jvm.done(), 60)
        for number in range(CONTESTED // 2):
            append_rejects(lake, [{"message": str(number)}], stage="index")
        won = jvm.result()
    table = DeltaTable(f"s3://{bucket}/rejects")
    assert (len(set(won)), table.version()) == (CONTESTED // 2, CONTESTED)
    uris = table.file_uris()
    assert len(uris) == CONTESTED
    assert sum("/jvm-" in uri for uri in uris) == CONTESTED // 2


def test_a_commit_whose_answer_is_lost_is_won_once(bucket: str, aws: Ministack, contest: Contest) -> None:
    create_rejects(f"s3a://{bucket}")
    lost: list[str] = []

    def goes_on(path: str, point: Point) -> bool:
        loses = point == "done" and path.endswith(".json") and len(lost) < 2
        lost.extend([path] * loses)
        return not loses

    with S3Proxy(aws.endpoint["endpoint_url"]) as proxy:
        proxy.goes_on = goes_on
        assert contest(f"s3a://{bucket}/rejects", "a", 3, endpoint=proxy.endpoint_url) == [1, 2, 3]
    assert len(lost) == 2


def test_landing_costs_the_same_however_long_the_log_is(
    bucket: str, aws: Ministack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with S3Proxy(aws.endpoint["endpoint_url"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint_url)
        layout = LakeLayout(f"s3a://{bucket}")
        create_tables(layout)
        costs = []
        for number in range(66):
            file = landed_files.WrittenFile(f"_ingest_date=2026-01-01/{number}", 1, "2026-01-01", '{"numRecords":1}')
            before = proxy.requests.total()
            landed_files.append(layout.path("changes"), [file], {"txnAppId": "q", "txnVersion": str(number)})
            costs.append(proxy.requests.total() - before)
    assert sorted(costs)[len(costs) // 2] <= 10
    assert max(costs[-5:]) <= 10


def test_a_transaction_is_committed_once_by_drivers_that_hold_the_table_open(bucket: str) -> None:
    layout = LakeLayout(f"s3a://{bucket}")
    create_tables(layout)

    def land(name: str, version: int) -> None:
        file = landed_files.WrittenFile(f"_ingest_date=2026-01-01/{name}", 1, "2026-01-01", '{"numRecords":1}')
        landed_files.append(layout.path("changes"), [file], {"txnAppId": "q", "txnVersion": str(version)})

    land("a", 0)
    open_tables = dict(storage._open_tables)
    storage._open_tables.clear()  # as another driver
    land("b", 1)
    storage._open_tables.clear()
    storage._open_tables.update(open_tables)
    land("c", 1)
    land("d", 2)
    uris = DeltaTable(f"s3://{bucket}/changes").file_uris()
    assert sorted(uri[-1] for uri in uris) == ["a", "b", "d"]


def test_small_files_beside_a_checkpoint(bucket: str) -> None:
    folder = f"s3a://{bucket}/checkpoint/status"
    assert files.names(folder) == []
    assert files.read(f"{folder}/land.json") is None
    files.write(f"{folder}/land.json", "{}")
    files.write(f"{folder}/land.json", '{"a": 1}')
    assert (files.read(f"{folder}/land.json"), files.names(folder)) == ('{"a": 1}', ["land.json"])
    files.remove(f"{folder}/land.json")
    assert files.names(folder) == []


def test_check_takes_a_bucket_and_leaves_nothing(bucket: str, aws: Ministack) -> None:
    check(f"s3a://{bucket}/lake", "lake.path")
    assert aws.client("s3").list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_check_says_what_is_wrong_with_a_bucket(bucket: str, aws: Ministack, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)lake.path: .*NoSuchBucket.*Create the bucket"):
        check("s3a://no-such-bucket-here/lake", "lake.path")
    with pytest.raises(ConfigurationError, match=r"neither a folder nor s3a://BUCKET/PREFIX"):
        check("gs://bucket/lake", "lake.path")
    with AwsFaultProxy(aws.endpoint["endpoint_url"]) as refusing:
        refusing.fail("*", "AccessDenied", times=99, status=403)
        monkeypatch.setenv("AWS_ENDPOINT_URL", refusing.endpoint_url)
        with pytest.raises(ConfigurationError, match=r"(?s)cannot be written: .*s3:PutObject"):
            check(f"s3a://{bucket}/lake", "checkpoint")
    with S3Proxy(aws.endpoint["endpoint_url"]) as careless:
        careless.ignores_conditions = True
        monkeypatch.setenv("AWS_ENDPOINT_URL", careless.endpoint_url)
        with pytest.raises(ConfigurationError, match="without them commits are lost"):
            check(f"s3a://{bucket}/lake", "lake.path")


def test_a_session_for_folders_has_nothing_of_s3(tmp_path: Path) -> None:
    assert s3.settings(str(tmp_path / "lake"), str(tmp_path / "checkpoint"), local=True) == {}
    assert not [name for name in settings(str(tmp_path), local=True) if "s3" in name or "ClassPath" in name]


def test_rows_of_a_table_that_is_not_there(bucket: str) -> None:
    assert rows_of(f"s3a://{bucket}/lake/changes", ["position"]) == []
