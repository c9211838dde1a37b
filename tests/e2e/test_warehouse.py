"""`ragstream run --jobs land,warehouse`: a driver killed anywhere leaves the rows of the source in the warehouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from local_stack.aws import Ministack
from local_stack.stack import Stack
from tests.e2e.pipeline import Pipeline, running
from tests.e2e.test_edits import line
from tests.history import TABLE, random_history
from tests.warehouse_fixtures import BUCKET, warehouse_config

KILLS = ("warehouse-read", "warehouse-half", "warehouse-written")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_driver_killed_at_any_point_leaves_the_sources_rows_and_no_staged_file(
    tmp_path: Path, local_stack: Stack, warehouse_dsn: str, aws: Ministack
) -> None:
    table = random_history(5, 80)
    table.insert(100, "kept")
    events = tmp_path / "events.jsonl"
    events.write_text("".join(f"{line(change, at)}\n" for at, change in enumerate(table.changes)))
    source = {"type": "files", "format": "kafka", "envelope": "debezium", "path": [str(events)], "batch": 50}
    document: dict[str, Any] = {
        "name": "desk",
        "source": source,
        "tables": [{"table": TABLE, "keys": ["id"], "columns": {"id": "int", "a": "text", "body": "text"}}],
        "lake": {"path": str(tmp_path / "lake")},
        "checkpoint": str(tmp_path / "checkpoint"),
        "warehouse": warehouse_config(warehouse_dsn, aws, staging=f"s3://{BUCKET}/{tmp_path.name}"),
    }
    with running(Pipeline(tmp_path / "p", document, mark=str(local_stack.directory))) as pipeline:
        for point in KILLS:
            (pipeline.orders / point).touch()
            killed = pipeline.drain("--jobs", "land,warehouse", deadly=True)
            assert killed.process.returncode < 0, killed.log.read_text()[-2000:]
        last = pipeline.drain("--jobs", "land,warehouse", deadly=True)
        assert last.process.returncode == 0, last.log.read_text()[-2000:]
    with psycopg.connect(warehouse_dsn) as connection:
        found = connection.execute("SELECT id, a, body FROM desk.t ORDER BY id").fetchall()
        (keys,) = connection.execute("SELECT count(*) - count(DISTINCT _key) FROM desk.t__rows").fetchone() or (None,)
    assert found == [tuple(table.rows[number].values()) for number in sorted(table.rows)]
    assert keys == 0
    assert "Contents" not in aws.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=tmp_path.name)
