"""A value that must not travel is in no file of the lake, no store, no warehouse, no staging and no log, whatever is killed."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

import lake.landing.batch
from glue_jobs.operations.explain import explain
from glue_jobs.operations.ownership import owner_of
from glue_jobs.operations.replay_rejects import replay
from glue_jobs.status.report import status
from lake.history.current import current_rows
from lake.landing.batch import Landing
from lake.layout import LakeLayout
from lake.storage import rows_of
from lake.tables.merge import TableMerger
from local_stack.servers.aws import Ministack
from schemas.records import Record
from tests.canaries import texts
from tests.history import TABLE
from tests.lake_fixtures import frame, transaction
from tests.lake_to_store import Lake
from tests.warehouse_fixtures import BUCKET, warehouse_config
from transforms.values.rules import MASK, hashed
from warehouse.config import RedshiftConfig
from warehouse.loader import WarehouseLoader
from warehouse.staging import StagingWriter

CANARY = "kanarie-3e9d"


def event(at: int, op: str, row: dict[str, Any], before: dict[str, Any] | None = None) -> Record:
    source = {"schema": "public", "table": "t", "sequence": f'["{at}","{at}"]', "lsn": at, "ts_us": at, "query": CANARY}
    payload = {"op": op, "before": before, "after": None if op == "d" else row, "source": source}
    headers = (("note", CANARY.encode()),)
    return Record("all", "0", str(at), CANARY.encode(), json.dumps(payload).encode(), headers, at)


def row(number: int, body: str, ssn: Any = f"ssn {CANARY}") -> dict[str, Any]:
    return {"id": number, "a": f"{CANARY}{number}@x", "body": body, "ssn": ssn, "name": [CANARY, number]}


def history() -> list[Record]:
    gone = row(2, "two")
    return [
        event(1, "c", row(1, "one")), event(2, "c", gone), event(3, "u", row(1, "one more", {"x": CANARY}), row(1, "one")),
        event(4, "d", gone, gone), event(5, "c", row(5, "forbidden five")),
        Record("all", "0", "6", None, b"{" + CANARY.encode()), event(7, "c", {"a": CANARY, "ssn": CANARY}),
    ]  # fmt: skip


def staged(aws: Ministack) -> Iterator[tuple[str, str]]:
    client = aws.client("s3")
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        data = client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
        yield entry["Key"], data.decode("latin-1")
        if data[:4] == b"PAR1":
            yield entry["Key"], str(pq.read_table(io.BytesIO(data)).to_pylist())


def load(spark: SparkSession, lake_: Lake, dsn: str, aws: Ministack) -> None:
    layout, config = LakeLayout(lake_.config.lake.path), lake_.config
    contexts = {config.sources[0].name: lake_.context}
    changes = spark.read.format("delta").load(layout.path("changes"))
    TableMerger(layout, config.tables, contexts).merge(changes, transaction("merge", 0))
    target = RedshiftConfig.model_validate(warehouse_config(dsn, aws))
    WarehouseLoader(layout, config.tables, contexts, target, owner_of(config)).load(
        changes, "q/0", transaction("load", 0)
    )


def test_no_byte_of_a_ruled_column_is_written_anywhere(
    spark: SparkSession,
    lake: Lake,
    warehouse_dsn: str,
    aws: Ministack,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    lake.rules(a="hash", ssn="drop", name="mask")
    layout, records = LakeLayout(lake.config.lake.path), history()
    killed_between_two_commits(spark, lake, records)
    Landing(layout, "kafka", lake.context).land(frame(spark, records), transaction("land", 0))
    lake.faults(refuse_text="forbidden")
    lake.index_records("live", records)
    monkeypatch.setattr(StagingWriter, "clear", lambda _: None)
    load(spark, lake, warehouse_dsn, aws)
    lake.rebuild(spark, "lost")
    refused = rows_of(layout.path("rejects"), ["stage", "condition", "value", "key", "headers", "_key"])
    assert sorted(r["stage"] for r in refused) == ["decode", "decode", "embed"]
    assert all((r["value"], r["key"], r["headers"]) == (None, None, None) for r in refused)
    lake.faults()
    counts = replay(lake.config)
    assert (counts[TABLE]["documents written"], sum(c["without bytes"] for c in counts.values())) == (2, 2)
    report = status(lake.config)
    assert (report["tables"][TABLE]["rejects"], report["rejects_without_table"], report["rejects_settled"]) == (1, 1, 1)
    explained = explain(lake.config, "kafka", records)
    secret = hashed(f"{CANARY}1@x", b"a key of sixteen characters")
    first = next(iter(current_rows(layout, lake.config.tables[0], {"kafka": lake.context})))
    assert first == {"id": 1, "a": secret, "body": "one more", "name": MASK}
    assert next((r[1], r[3]) for r in lake.contents("live")) == (f'{{"a": "{secret}"}}', "one more")
    assert lake.contents("live") == lake.contents("lost")
    written = [*texts(lake.path.parent, lake.dsn, warehouse_dsn), *staged(aws)]
    written += [("status", str(report)), ("explain", str(explained)), ("log", caplog.text)]
    assert {place for place, text in written if CANARY in text} == set()
    assert any(secret in text for place, text in written if place.startswith("desk."))
    assert any(secret in text for place, text in staged(aws))
    assert sum("/changes/_ingest_date" in place for place, _ in written) > 2


def killed_between_two_commits(spark: SparkSession, lake_: Lake, records: list[Record]) -> None:
    """Land as a driver does that dies with files written and none committed."""

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    landing = Landing(LakeLayout(lake_.config.lake.path), "kafka", lake_.context)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lake.landing.batch, "append", dies)
        with pytest.raises(KeyboardInterrupt):
            landing.land(frame(spark, records), transaction("land", 0))
