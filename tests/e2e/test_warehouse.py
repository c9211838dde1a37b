"""`ragstream run --jobs load`: a driver killed in the middle of a load leaves the rows of the source in the warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pyspark.sql import SparkSession

from glue_jobs.config.pipeline import decode_context
from lake.landing.batch import Landing
from local_stack.servers.aws import Ministack
from local_stack.stack import Stack
from tests.e2e.pipeline import Pipeline, running
from tests.history import TABLE, as_record, random_history
from tests.lake_fixtures import frame, transaction
from tests.warehouse_fixtures import BUCKET, warehouse_config


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(("load-half",), id="half"),
        pytest.param(("load-half", "load-written"), id="whole", marks=pytest.mark.long),
    ],
)
def test_driver_killed_in_load_leaves_the_sources_rows_and_no_staged_file(
    kills: Sequence[str], spark: SparkSession, tmp_path: Path, local_stack: Stack, warehouse_dsn: str, aws: Ministack
) -> None:
    table = random_history(5, 80)
    table.insert(100, "kept")
    document: dict[str, Any] = {
        "name": "desk",
        "source": {
            "type": "files",
            "format": "kafka",
            "envelope": "debezium",
            "path": ["events.jsonl"],
            "max_records_per_trigger": 50,
        },
        "tables": [{"table": TABLE, "keys": ["id"], "columns": {"id": "int", "a": "text", "body": "text"}}],
        "lake": {"path": str(tmp_path / "lake")},
        "checkpoint": str(tmp_path / "checkpoint"),
        "warehouse": warehouse_config(warehouse_dsn, aws, staging=f"s3://{BUCKET}/{tmp_path.name}"),
    }
    with running(Pipeline(tmp_path / "p", document, mark=str(local_stack.directory))) as pipeline:
        landing = Landing(pipeline.layout, "files", decode_context(pipeline.config, "files"))
        landing.land(frame(spark, map(as_record, table.changes)), transaction("land", 0))
        for point in kills:
            pipeline.drain_until(point, "--jobs", "load")
        last = pipeline.drain("--jobs", "load")
        assert last.process.returncode == 0, last.log.read_text()[-2000:]
    with psycopg.connect(warehouse_dsn) as connection:
        rows = connection.execute("SELECT id, a, body FROM desk.t ORDER BY id").fetchall()
        (keys,) = connection.execute("SELECT count(*) - count(DISTINCT _key) FROM desk.t__rows").fetchone() or (None,)
    assert rows == [tuple(table.rows[number].values()) for number in sorted(table.rows)]
    assert keys == 0
    wrong = document | {"warehouse": document["warehouse"] | {"password": "another password"}}
    refused = Pipeline(tmp_path / "q", wrong, mark=str(local_stack.directory)).command("check")
    assert (refused.returncode, "refuses the login" in refused.stderr) == (2, True)
    assert "another password" not in refused.stdout + refused.stderr
    assert "Contents" not in aws.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=tmp_path.name)
