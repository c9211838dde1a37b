"""The fold that fills stores: the states of all rows from `changes`, whatever happened to the rows and in whatever order."""

from __future__ import annotations

import random
from itertools import batched
from pathlib import Path
from typing import Any

import pytest
from chispa import assert_df_equality
from pyspark.sql import DataFrame, SparkSession

from lake.history.states import STATES, StateSettings, by_group, history_of, state_stage
from lake.landing.batch import Landing
from lake.layout import LakeLayout
from schemas.changes import Changes
from schemas.tables import DocumentConfig
from tests.history import TABLE, ModelTable, as_record, folded, key_of, random_history
from tests.lake_fixtures import frame, transaction
from transforms.context import DecodeContext, TableContext
from transforms.documents.planning import DocumentSpec, narrowed
from transforms.envelopes.decode import decode
from transforms.fold import RowState, encode, restore, truncated_at
from transforms.values import exact_json

CONTEXT = DecodeContext("debezium", {TABLE: TableContext(TABLE, ("id",))})
RECIPE = DocumentSpec(TABLE, DocumentConfig(template="{body}", metadata=("a",)))


def as_frame(spark: SparkSession, states: dict[str, RowState]) -> DataFrame:
    rows = [(key, exact_json.dumps(encode(state), sort_keys=True)) for key, state in states.items()]
    return spark.createDataFrame(rows, STATES)


def landed(spark: SparkSession, folder: Path, table: ModelTable, seed: int, cut: int) -> LakeLayout:
    """A lake that was told a history shuffled, with a third of it twice, in batches."""
    r, layout = random.Random(seed), LakeLayout(str(folder / "lake"))
    changes = table.changes + r.choices(table.changes, k=len(table.changes) // 3)
    r.shuffle(changes)
    landing = Landing(layout, "kb", CONTEXT)
    for at, some in enumerate(batched(changes, cut)):
        landing.land(frame(spark, map(as_record, some)), transaction("q", at))
    return layout


def states_in(spark: SparkSession, layout: LakeLayout, partitions: int) -> tuple[dict[str, RowState], str]:
    history = history_of(spark, layout, TABLE)
    assert history is not None
    settings = StateSettings(RECIPE, {"kb": CONTEXT}, lambda _: None)
    rows: list[Any] = by_group(history, partitions).mapInArrow(state_stage(settings), STATES).collect()
    assert len({row["_key"] for row in rows}) == len(rows)
    return {row["_key"]: restore(exact_json.loads(row["_state"])) for row in rows}, history.truncated


@pytest.mark.parametrize(("seed", "cut"), [(2, 200), (5, 30)])
def test_any_order_and_cut_of_history_gives_the_states_of_one_fold(
    spark: SparkSession, tmp_path: Path, seed: int, cut: int
) -> None:
    table = random_history(seed, 80)
    decoded = [decode(as_record(change), CONTEXT) for change in table.changes]
    wanted = folded(change for answer in decoded if isinstance(answer, Changes) for change in answer.changes)
    states, truncated = states_in(spark, landed(spark, tmp_path, table, seed, cut), partitions=3)
    assert truncated == max((c.sequence for c in table.changes if c.op == "t"), default="")
    after = {key: truncated_at(state, truncated) for key, state in states.items()}
    assert_df_equality(
        as_frame(spark, after),
        as_frame(spark, {key: narrowed(state, RECIPE) for key, state in wanted.items()}),
        ignore_row_order=True,
    )
    assert {key for key, state in after.items() if state.exists} == {key_of(number) for number in table.rows}


def test_a_row_of_many_keys_keeps_the_values_of_its_first_key(spark: SparkSession, tmp_path: Path) -> None:
    table = ModelTable()
    table.insert(0, "x")
    for number in range(12):
        table.move(number, number + 1)
    states, _ = states_in(spark, landed(spark, tmp_path, table, 1, 100), partitions=4)
    assert states[key_of(12)].values()["body"] == "body x"
    assert [key for key, state in states.items() if state.exists] == [key_of(12)]


def test_where_nothing_landed_there_is_no_history(spark: SparkSession, tmp_path: Path) -> None:
    assert history_of(spark, LakeLayout(str(tmp_path / "lake")), TABLE) is None
