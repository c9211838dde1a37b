"""Rejects driven once more when their cause was mended: landed once, indexed under the guard, and the rest stays."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from click.testing import CliRunner
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from glue_jobs.cli.lake import replay as command
from glue_jobs.operations.replay_rejects import replay
from glue_jobs.status.report import status
from lake.landing.replay import Choice
from lake.layout import LakeLayout
from schemas.changes import Change
from tests.history import TABLE, ModelTable, key_of
from tests.lake_to_store import Lake
from transforms.context import DecodeContext, TableContext


def landed(lake: Lake) -> Counter[str]:
    rows = DeltaTable(LakeLayout(lake.config.lake.path).path("changes")).to_pyarrow_table(columns=["position"])
    return Counter(map(str, rows.column(0).to_pylist()))


def history() -> ModelTable:
    table = ModelTable()
    for number in range(4):
        table.insert(number, f"row {number}")
    table.move(0, 10)
    table.update_a(1, "edited")
    table.delete(2)
    return table


def test_records_that_a_mended_configuration_can_read_land_once_and_become_documents(
    spark: SparkSession, lake: Lake
) -> None:
    table = history()
    wrong = DecodeContext("debezium", {TABLE: TableContext(TABLE, ("no_such_column",))})
    nobody = Change(TABLE, "c", f"{99 << 200:0104x}", "", {"a": "a row without its key"})
    lake.land(spark, table.changes[:2])
    lake.land(spark, [*table.changes[2:], nobody], 1, wrong)
    assert landed(lake).total() == 2
    lake.index("live", table.changes[:2])
    assert [replay(lake.config, choice) for choice in others()] == [{}, {}, {}]
    assert rejects(lake) == (len(table.changes) - 1, 0)
    first = replay(lake.config, Choice("decode", "NO_KEY", TABLE))[TABLE]
    assert (first["landed"], first["landed before"], first["still rejected"]) == (len(table.changes) - 2, 0, 1)
    lake.rebuild(spark, "lost")
    assert {row[0] for row in lake.contents("live")} == {'{"id": 10}', '{"id": 1}', '{"id": 3}'}
    assert lake.contents("live") == lake.contents("lost")
    second = replay(lake.config)[TABLE]
    assert (second["landed"], second["landed before"], second["still rejected"]) == (0, 0, 1)
    assert second["documents written"] == 0
    assert replayed(lake) == [f"{TABLE}: 1 still rejected"]
    assert rejects(lake) == (1, first["landed"])
    lake.land(spark, table.changes[2:4], 2, wrong)
    assert rejects(lake) == (3, first["landed"])  # rejected again since
    again = replay(lake.config)[TABLE]
    assert (again["landed"], again["landed before"], again["still rejected"]) == (0, 2, 1)
    assert set(landed(lake).values()) == {1}
    assert landed(lake).total() == len(table.changes)


def test_a_text_that_the_model_takes_now_becomes_a_document(spark: SparkSession, lake: Lake) -> None:
    table = history()
    table.insert(5, "a forbidden thing")
    table.update_a(5, "told without its text")
    lake.land(spark, table.changes)
    lake.faults(refuse_text="forbidden")
    lake.index("live", table.changes[:-1])
    refused = replay(lake.config)[TABLE]
    assert (refused["documents refused"], key_of(5) in str(lake.contents("live"))) == (2, False)  # by each store
    assert rejects(lake) == (1, 0)
    lake.faults()
    assert replay(lake.config)[TABLE]["documents written"] == 2
    assert rejects(lake) == (0, 1)
    assert [row[1] for row in lake.contents("live") if row[0] == '{"id": 5}'] == ['{"a": "told without its text"}']
    assert replay(lake.config)[TABLE]["documents written"] == 0


def test_rejects_without_bytes_are_settled_once_the_stream_is_read_again(spark: SparkSession, lake: Lake) -> None:
    lake.rules(a="hash")
    changes = history().changes
    wrong = replace(lake.context.tables[TABLE], keys=("no_such_column",))
    lake.land(spark, changes, 0, replace(lake.context, tables={TABLE: wrong}))
    without, hint = replayed(lake)
    assert without == f"{TABLE}: {len(changes)} without bytes"
    assert f"ragstream run {lake.path} --tables {TABLE} --available-now" in hint
    assert rejects(lake) == (len(changes), 0)
    lake.land(spark, changes, 1)
    assert replayed(lake) == [f"{TABLE}: {len(changes)} landed since"]
    assert rejects(lake) == (0, len(changes))


def test_where_nothing_was_rejected_there_is_nothing_to_replay(lake: Lake) -> None:
    assert replay(lake.config) == {}
    assert replayed(lake) == ["no rejects that can be replayed"]


def others() -> list[Choice]:
    """Choices that no reject of these tests is in."""
    return [Choice("embed"), Choice(condition="NO_SEQUENCE"), Choice(table="public.other")]


def rejects(lake: Lake) -> tuple[int, int]:
    """What `status` counts as rejected, and as settled."""
    report = status(lake.config)
    return report["tables"][TABLE]["rejects"], report["rejects_settled"]


def replayed(lake: Lake) -> list[str]:
    """What the command prints."""
    done = CliRunner().invoke(command, [str(lake.path)])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()
