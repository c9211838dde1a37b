"""What `explain` says of an event is what the writers then do with it."""

from __future__ import annotations

from pyspark.sql import SparkSession

from glue_jobs.operations.explain import explain
from glue_jobs.operations.explained import Step
from schemas.changes import Change
from tests.history import ModelTable, as_record
from tests.lake_to_store import Lake


def store_step(lake: Lake, *changes: Change) -> Step:
    """The step of the store for the last of some changes."""
    explained = explain(lake.config, lake.config.sources[0].name, [as_record(change) for change in changes])
    return next(step for step in explained[-1].steps if step.part == "store live")


def test_writes_and_model_calls_are_those_that_follow(spark: SparkSession, lake: Lake) -> None:
    table = ModelTable()
    table.insert(1, "one")
    table.update_body(1, "another one")
    table.update_a(1, "metadata alone")
    table.delete(1)
    created, body, metadata, deleted = table.changes
    lake.land(spark, [created])
    lake.index("live", [created])
    before = lake.contents("live")
    assert store_step(lake, created).outcome == "no write"
    planned = store_step(lake, body)
    assert planned.outcome == "1 chunks: 1 added, 0 moved, 1 dropped"
    assert planned.detail["documents"][0]["text"] == "body another one"
    assert "1 texts would be sent to the model" in " ".join(planned.why)
    assert store_step(lake, metadata).outcome == "metadata alone is written"
    assert store_step(lake, body, deleted).outcome == "the document goes, its tombstone stays"
    assert lake.contents("live") == before
    texts = lake.asked()["texts"]
    lake.index("live", [body])
    assert lake.asked()["texts"] == texts + 1
    assert [row[3] for row in lake.contents("live")] == ["body another one"]
    assert store_step(lake, created).outcome == store_step(lake, body).outcome == "no write"
