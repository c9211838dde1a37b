"""load_warehouse on the Redshift stand-in: any cut and order of `changes` leaves the source's rows."""

from __future__ import annotations

import random
from itertools import batched
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from local_stack.aws import Ministack
from tests.history import TABLE, ModelTable, as_record, random_history
from tests.warehouse_fixtures import Loaded

TEXTS = {"id": "int", "a": "text", "body": "text"}


@pytest.fixture
def loaded(spark: SparkSession, tmp_path: Path, warehouse_dsn: str, aws: Ministack) -> Loaded:
    return Loaded(spark, tmp_path, warehouse_dsn, aws, TABLE)


def rows_of(table: ModelTable) -> list[dict[str, object]]:
    return [dict(table.rows[number]) for number in sorted(table.rows, key=str)]


@pytest.mark.parametrize("seed", range(2))
def test_a_shuffled_doubled_and_recut_history_ends_as_the_source(loaded: Loaded, seed: int) -> None:
    table, r = random_history(seed, 60), random.Random(seed)
    for number in range(100, 106):
        table.insert(number, "kept")
    table.move(100, 200)
    table.update_a(101, "edited")
    table.delete(102)
    records = [as_record(change) for change in table.changes]
    loaded.declare(TEXTS)
    loaded.land(records)
    positions = [each.position for each in records] + r.choices([each.position for each in records], k=10)
    r.shuffle(positions)
    for some in batched(positions, -(-len(positions) // 5), strict=False):
        loaded.load(some)
    assert loaded.rows() == rows_of(table)
    again = loaded.load(some, again=True)
    assert (again.written, again.deleted) == (0, 0)
    assert loaded.rows() == rows_of(table)
    assert loaded.staged() == []
