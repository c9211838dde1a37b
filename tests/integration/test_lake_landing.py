"""Landing: each record in exactly one place, once, whatever is killed and run again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

import lake.landing.batch
from lake.landing.batch import Landing
from lake.layout import LakeLayout
from lake.maintenance import optimize
from schemas.records import Record
from tests.lake_fixtures import frame, transaction
from tests.recorded import CONTEXT, records

CANARY = b"canary-5f0c1d"
POISON = (
    Record("t", "0", "900", None, b"{bad " + CANARY, (("a", b"b"),), 1_000),
    Record("t", "0", "901", b"k", b'{"op":"c","source":{"schema":"inv","table":"items","lsn":1},"after":{"name":"x"}}'),
    Record("t", "1", "902", None, b'{"op":"c"}'),
)


@pytest.fixture
def layout(tmp_path: Path) -> LakeLayout:
    return LakeLayout(str(tmp_path / "lake"))


def rows(layout: LakeLayout, name: str) -> list[dict[str, object]]:
    table_rows = DeltaTable(layout.path(name)).to_pyarrow_table().to_pylist()
    return [{k: v for k, v in row.items() if k not in {"_ingest_time", "_ingest_date"}} for row in table_rows]


def positions(table_rows: list[dict[str, object]]) -> Counter[tuple[object, ...]]:
    return Counter((r["stream"], r["partition"], r["position"]) for r in table_rows)


def test_every_record_ends_in_exactly_one_place(spark: SparkSession, layout: LakeLayout) -> None:
    read = [*records("pg15_schemas"), *POISON]
    tally = Landing(layout, "kb", CONTEXT).land(frame(spark, read), transaction("q", 0))
    landed, rejects, ignored = (rows(layout, name) for name in ("changes", "rejects", "ignored"))
    counted = sum(int(str(r["records"])) for r in ignored)
    assert len(read) == tally.records == len(landed) + len(rejects) + counted
    assert len(landed) == tally.landed.total()
    assert len(rejects) == tally.rejected.total() == len(POISON)
    assert not positions(landed) & positions(rejects)
    by_partition = Counter((r.stream, r.partition) for r in read)
    ended = Counter((r["stream"], r["partition"]) for r in [*landed, *rejects])
    for row in ignored:
        ended[row["stream"], row["partition"]] += int(str(row["records"]))
    assert ended == by_partition


def test_a_landed_record_is_the_record_that_came(spark: SparkSession, layout: LakeLayout) -> None:
    read = {(r.stream, r.partition, r.position): r for r in records("pg15_plain")}
    Landing(layout, "kb", CONTEXT).land(frame(spark, read.values()), transaction("q", 0))
    for row in rows(layout, "changes"):
        record = read[str(row["stream"]), str(row["partition"]), str(row["position"])]
        headers = tuple((h["key"], h["value"]) for h in row["headers"])  # type: ignore[attr-defined]
        assert (row["key"], row["value"], headers) == (record.key, record.value, record.headers)
    moved = [r for r in rows(layout, "changes") if r["_related_key"]]
    assert {r["_op"] for r in moved} == {"c", "d"}


def test_rejects_keep_bytes_coordinates_and_say_why(spark: SparkSession, layout: LakeLayout) -> None:
    Landing(layout, "kb", CONTEXT).land(frame(spark, POISON), transaction("q", 0))
    rejects = {str(r["position"]): r for r in rows(layout, "rejects")}
    assert {p: r["condition"] for p, r in rejects.items()} == {
        "900": "MALFORMED_JSON",
        "901": "NO_KEY",
        "902": "NOT_AN_ENVELOPE",
    }
    assert all(r["stage"] == "decode" and r["_source"] == "kb" for r in rejects.values())
    assert rejects["900"]["value"] == POISON[0].value
    assert rejects["900"]["headers"] == [{"key": "a", "value": b"b"}]
    assert rejects["901"]["_table"] == "inv.items"
    assert not any(CANARY.decode() in str(r["message"]) for r in rejects.values())


@pytest.mark.parametrize("step", ["append", "append_rows"])
def test_a_batch_killed_between_two_commits_lands_once(
    spark: SparkSession, layout: LakeLayout, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    read = [*records("pg15_plain"), *POISON]
    real = getattr(lake.landing.batch, step)
    calls = 0

    def dies_second(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == (2 if step == "append" else 1):
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(lake.landing.batch, step, dies_second)
    with pytest.raises(KeyboardInterrupt):
        Landing(layout, "kb", CONTEXT).land(frame(spark, read), transaction("q", 0))
    monkeypatch.undo()
    for _ in range(2):
        tally = Landing(layout, "kb", CONTEXT).land(frame(spark, read), transaction("q", 0))
    assert tally.records == len(read)
    landed, rejects = rows(layout, "changes"), rows(layout, "rejects")
    assert positions(landed).most_common(1)[0][1] == 1
    assert len(rejects) == len(POISON)
    assert sum(int(str(r["records"])) for r in rows(layout, "ignored")) == len(read) - len(landed) - len(rejects)


def test_schemas_seen_are_kept_once(spark: SparkSession, layout: LakeLayout) -> None:
    for batch in range(2):
        Landing(layout, "kb", CONTEXT).land(frame(spark, records("pg15_schemas")), transaction("q", batch))
    schemas = rows(layout, "schemas")
    assert len({(r["_table"], r["schema_id"]) for r in schemas}) == len(schemas)
    items = [json.loads(str(r["columns"])) for r in schemas if r["_table"] == "inv.items"]
    assert all(columns["amount"] == "decimal(12,3)" or columns["amount"].startswith("decimal(") for columns in items)
    used = {(r["_table"], r["_schema_id"]) for r in rows(layout, "changes") if r["_schema_id"]}
    assert used <= {(r["_table"], r["schema_id"]) for r in schemas}


def test_large_and_odd_values_land(spark: SparkSession, layout: LakeLayout) -> None:
    head = '{"op":"c","source":{"schema":"inv","table":"items","lsn":1,"ts_us":253402300799999999},"after":{"id":1,"t":'
    odd = [
        Record("t", "0", "1", None, f'{head}"{"x" * 9_000_000}"}}}}'.encode()),
        Record("t", "0", "2", None, f'{head}"\\ud800\\u0000 1e400"}}}}'.encode()),
        Record("t", "0", "3", None, b"\xff\xfe"),
        Record("t", "0", "4", None, f'{head}1e400,"big":12345678901234567890123}}}}'.encode()),
        Record("t", "0", "5", None, f"{head}1}}}}".replace("253402300799999999", "99999999999999999999").encode()),
    ]
    tally = Landing(layout, "kb", CONTEXT).land(frame(spark, odd), transaction("q", 0))
    assert tally.landed.total() == 3
    assert {row["position"]: row["condition"] for row in rows(layout, "rejects")} == {
        "3": "MALFORMED_JSON",
        "5": "BAD_COMMIT_TIME",
    }


def test_the_delta_log_names_no_value_of_a_row(spark: SparkSession, layout: LakeLayout) -> None:
    value = b'{"op":"c","source":{"schema":"inv","table":"inv","lsn":1},"after":{"id":"' + CANARY + b'"}}'
    value = value.replace(b'"table":"inv"', b'"table":"items"')
    read = [Record("t", "0", "1", CANARY, value, (("h", CANARY),)), POISON[0]]
    Landing(layout, "kb", CONTEXT).land(frame(spark, read), transaction("q", 0))
    optimize(spark, layout.path("changes"))
    logs = list(Path(layout.root).glob("*/_delta_log/*.json"))
    assert logs
    assert not [log for log in logs if CANARY in log.read_bytes()]


def test_compaction_changes_nothing_and_both_readers_agree(spark: SparkSession, layout: LakeLayout) -> None:
    landing = Landing(layout, "kb", CONTEXT)
    read = list(records("pg15_strmode"))
    for batch in range(4):
        landing.land(frame(spark, read[batch::4]), transaction("q", batch))
    before = positions(rows(layout, "changes"))
    files = len(DeltaTable(layout.path("changes")).file_uris())
    optimize(spark, layout.path("changes"))
    assert len(DeltaTable(layout.path("changes")).file_uris()) < files
    assert positions(rows(layout, "changes")) == before
    for name in ("changes", "rejects", "ignored", "schemas"):
        rust = DeltaTable(layout.path(name)).to_pyarrow_table()
        jvm = spark.read.format("delta").load(layout.path(name))
        assert set(jvm.columns) == set(rust.column_names)
        assert jvm.count() == rust.num_rows
    first = spark.read.format("delta").load(layout.path("changes")).agg({"_sequence": "min"}).first()
    assert first
    assert min(str(r["_sequence"]) for r in rows(layout, "changes")) == first[0]


def test_a_failing_action_leaves_no_count_behind(spark: SparkSession, layout: LakeLayout) -> None:
    landing = Landing(layout, "kb", CONTEXT)
    broken = frame(spark, records("pg15_plain")).selectExpr(
        "stream", "partition", "position", "key", "IF(position = '7', raise_error('x'), value) AS value", "headers",
        "timestamp",
    )  # fmt: skip
    with pytest.raises(PySparkException):
        landing.land(broken, transaction("q", 0))
    tally = landing.land(frame(spark, records("pg15_plain")), transaction("q", 0))
    assert tally.records == len(list(records("pg15_plain")))
