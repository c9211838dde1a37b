"""Files that a worker wrote are a table's rows once they are committed, and only once."""

from __future__ import annotations

import datetime as dt
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

import lake.landing.landed_files
from lake.landing.batch import create_tables
from lake.landing.decoding import decoded
from lake.landing.landed_files import LandPartition, Outcome, append
from lake.layout import RAW_COLUMNS, STATS_COLUMNS, LakeLayout
from lake.table_schemas import CHANGES
from schemas.records import Record
from tests.recorded import CONTEXT, compact, records

NOW = dt.datetime(2026, 3, 1, 10, 0, 1, 123_456, tzinfo=dt.UTC)
POISON = Record("t", "0", "900", b"k", b"{bad", (("a", None),), 1_000)


def batch(read: Sequence[Record]) -> pa.RecordBatch:
    """Records as the stage gets them: no headers are an empty list with a mark beside it."""
    at = [None if r.timestamp_ms is None else dt.datetime.fromtimestamp(r.timestamp_ms / 1000, dt.UTC) for r in read]
    rows = [
        (*r[:5], [{"key": k, "value": v} for k, v in r.headers], t, not r.headers)
        for r, t in zip(read, at, strict=True)
    ]
    fields = [(name, CHANGES.field(name).type) for name in RAW_COLUMNS]
    kinds = [*fields, ("no_headers", pa.bool_())]
    names = [name for name, _ in kinds]
    arrays = [pa.array(column, kind) for column, (_, kind) in zip(zip(*rows, strict=True), kinds, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names)


def landed(root: str, batches: Sequence[pa.RecordBatch]) -> Outcome:
    (answer,) = LandPartition(root, "kb", CONTEXT, decoded, NOW)(batches)
    outcome = pickle.loads(answer["outcome"][0].as_py())  # noqa: S301 - made one line above
    assert isinstance(outcome, Outcome)
    return outcome


def rows(root: str, name: str) -> list[dict[str, Any]]:
    return DeltaTable(LakeLayout(root).path(name)).to_pyarrow_table().to_pylist()


@pytest.fixture(params=["folder", "object store"])
def root(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    root = f"{'file://' if request.param == 'object store' else ''}{tmp_path / 'lake'}"
    (tmp_path / "lake").mkdir()
    create_tables(LakeLayout(root))
    return root


def test_each_record_is_a_row_of_the_table_it_belongs_to(root: str) -> None:
    read = [*records("pg15_plain"), POISON]
    outcome = landed(root, [batch(read[:20]), batch(read[20:])])
    for name, files in (("changes", outcome.changes), ("rejects", outcome.rejects)):
        for _ in range(2):
            append(LakeLayout(root).path(name), files, {"txnAppId": f"q:{name}", "txnVersion": "0"})
    came = {(r.stream, r.partition, r.position): r for r in read}
    changes = rows(root, "changes")
    assert len(changes) == outcome.tally.landed.total() > 40
    for row in changes:
        record = came.pop((row["stream"], row["partition"], row["position"]))
        headers = tuple((h["key"], h["value"]) for h in row["headers"] or ())
        assert (row["key"], row["value"], headers) == (record.key, record.value, record.headers)
        assert (row["_source"], row["_ingest_time"], row["_ingest_date"]) == ("kb", NOW, NOW.date())
        assert (row["headers"] is None) == (not record.headers)
    (reject,) = rows(root, "rejects")
    assert (reject["condition"], reject["stage"], reject["value"]) == ("MALFORMED_JSON", "decode", POISON.value)
    assert reject["headers"] == [{"key": "a", "value": None}]


def test_record_that_lands_without_column_is_change_and_reject_that_names_it(root: str) -> None:
    late = next(r for r in records("pg15_schemas_edge") if b"9223372036854775807" in (r.value or b""))
    outcome = landed(root, [batch([POISON, late])])
    for name, files in (("changes", outcome.changes), ("rejects", outcome.rejects)):
        append(LakeLayout(root).path(name), files, {"txnAppId": f"q:{name}", "txnVersion": "0"})
    (change,), rejects = rows(root, "changes"), {row["column"]: row for row in rows(root, "rejects")}
    reject = rejects.pop("ts")
    assert rejects.keys() == {None}
    for column in (
        "stream",
        "partition",
        "position",
        "key",
        "value",
        "timestamp",
        "_source",
        "_table",
        "_key",
        "_sequence",
    ):
        assert reject[column] == change[column]
    assert (reject["stage"], reject["condition"]) == ("decode", "BAD_VALUE")
    assert (outcome.tally.landed.total(), outcome.tally.rejected.total(), outcome.tally.unfit.total()) == (1, 1, 1)


def test_commit_in_any_year_stands_in_the_log_as_readers_know_it(root: str) -> None:
    first = -62_135_596_800_000_000
    source = {"schema": "inv", "table": "items", "lsn": 7, "ts_us": first}
    value = compact({"op": "c", "after": {"id": 1}, "source": source})
    (file,) = landed(root, [batch([Record("t", "0", "1", None, value)])]).changes
    assert json.loads(file.stats)["minValues"]["_commit_time"] == "0001-01-01T00:00:00.000000Z"
    append(LakeLayout(root).path("changes"), [file], {"txnAppId": "q", "txnVersion": "0"})
    assert rows(root, "changes")[0]["_commit_time"] == dt.datetime(1, 1, 1, tzinfo=dt.UTC)


def test_a_file_tells_the_log_its_columns_ends_and_no_other(root: str) -> None:
    outcome = landed(root, [batch(list(records("pg15_plain")))])
    (file,) = outcome.changes
    stats = json.loads(file.stats)
    assert stats["numRecords"] == outcome.tally.landed.total()
    assert stats["nullCount"].keys() == set(STATS_COLUMNS["changes"].split(","))
    assert stats["minValues"]["_ingest_time"] == stats["maxValues"]["_ingest_time"] == "2026-03-01T10:00:01.123456Z"
    assert stats["minValues"]["_sequence"] < stats["maxValues"]["_sequence"]
    assert "_schema_id" not in stats["minValues"]


def test_a_large_partition_is_several_files(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake.landing.landed_files, "_FILE_BYTES", 1)
    read = list(records("pg15_plain"))
    outcome = landed(root, [batch(read[:20]), batch(read[20:])])
    assert len(outcome.changes) == 2
    append(LakeLayout(root).path("changes"), outcome.changes, {"txnAppId": "q", "txnVersion": "0"})
    assert len(rows(root, "changes")) == outcome.tally.landed.total()


def test_an_empty_partition_writes_nothing(root: str) -> None:
    outcome = landed(root, [])
    append(LakeLayout(root).path("changes"), outcome.changes, {"txnAppId": "q", "txnVersion": "0"})
    assert (outcome.tally.records, outcome.changes, rows(root, "changes")) == (0, [], [])
