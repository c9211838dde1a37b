"""Two drivers that merge into one table: whoever writes second writes what both have read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from lake.landing.batch import Landing
from lake.layout import LakeLayout
from lake.tables import merge as tables
from lake.tables.merge import TableMerger
from schemas.records import Record
from schemas.tables import TableConfig
from tests.lake_fixtures import frame, transaction
from transforms.context import DecodeContext, TableContext

CONTEXT = DecodeContext("debezium", {"public.t": TableContext("public.t", ("id",))})
TABLE = TableConfig(table="public.t", keys=("id",), columns={"id": "int", "a": "text"})


def event(op: str, lsn: int, number: int, a: str) -> Record:
    image = "before" if op == "d" else "after"
    value = (
        f'{{"op":"{op}","{image}":{{"id":{number},"a":"{a}"}},'
        f'"source":{{"schema":"public","table":"t","sequence":"[\\"{lsn}\\",\\"{lsn}\\"]","lsn":{lsn}}}}}'
    )
    return Record("t", "0", str(lsn), None, value.encode())


def rows(spark: SparkSession, layout: LakeLayout) -> list[tuple[int, str]]:
    return sorted(
        tuple(row) for row in spark.read.format("delta").load(layout.table("public.t")).select("id", "a").collect()
    )


@pytest.mark.parametrize("deletion_vectors", [False, True], ids=["files written anew", "deletion vectors"])
@pytest.mark.parametrize(
    ("before", "second", "first", "left"),
    [
        pytest.param([], [event("c", 1, 1, "old")], [event("u", 2, 1, "new")], [(1, "new")], id="both insert"),
        pytest.param(
            [event("c", 1, 1, "old")], [event("u", 2, 1, "b")], [event("d", 3, 1, "b")], [], id="update after a delete"
        ),
        pytest.param(
            [event("c", 1, 1, "a")], [event("d", 2, 1, "a")], [event("c", 3, 1, "again")], [(1, "again")],
            id="delete after an insert",
        ),
    ],
)  # fmt: skip
def test_a_row_that_another_driver_changed_meanwhile_is_folded_anew(  # noqa: PLR0917 - cases and fixtures
    before: Sequence[Record],
    second: Sequence[Record],
    first: Sequence[Record],
    left: list[tuple[int, str]],
    deletion_vectors: bool,  # noqa: FBT001 - a parameter of the test
    spark: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layout = LakeLayout(str(tmp_path / "lake"))
    landing = Landing(layout, "kb", CONTEXT)

    def batch(name: str, records: Sequence[Record]) -> Callable[[], None]:
        landing.land(frame(spark, records), transaction(f"land-{name}", 0))
        changes = spark.read.format("delta").load(layout.path("changes"))
        of_batch = changes.filter(changes.position.isin([record.position for record in records]))
        merger = TableMerger(layout, [TABLE], {"kb": CONTEXT}, deletion_vectors=deletion_vectors)
        return lambda: (merger.merge(of_batch, transaction(name, 0)), None)[1]

    if before:
        batch("before", before)()
    batches = {"second": batch("second", second), "first": batch("first", first)}
    write: Any = tables._TableMerge._write
    others = [batches["first"]]

    def after_another(*arguments: Any) -> bool:
        if others:
            others.pop()()
        return bool(write(*arguments))

    monkeypatch.setattr(tables._TableMerge, "_write", after_another)
    batches["second"]()
    assert others == []
    assert rows(spark, layout) == left
