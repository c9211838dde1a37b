"""Columns and a table that change while all jobs run: PostgreSQL, Debezium on Connect, Kafka, pgvector, lake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_stack.models.service import ModelService
from local_stack.servers.connect import Connect
from local_stack.servers.kafka import Broker
from local_stack.stack import Stack
from schemas.tables import TableConfig
from tests.e2e.debezium import Captured
from tests.e2e.drifting import (
    LATER,
    TABLE,
    DriftingSource,
    accepted,
    document,
    left_out,
    left_out_of_the_table,
    with_nulls,
)
from tests.e2e.pipeline import START_SECONDS, Pipeline, running
from tests.e2e.rows import Kinds, Rows, differences, documents_of
from tests.waiting import NothingWrong, eventually

type Expected = Callable[[DriftingSource, TableConfig], tuple[Rows, Kinds]]
STOPPED = 3
"""The exit status of a job that waits for a decision."""


@pytest.fixture
def captured(source_dsn: str, kafka: Broker, connect: Connect) -> Iterator[Captured]:
    captured = Captured(source_dsn, [TABLE], kafka, connect, [LATER])
    yield captured
    connect.delete_connector(captured.prefix)


@pytest.mark.covers("postgresql", "debezium", "drift", "live")
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_stores_equal_the_source_while_its_columns_change(
    captured: Captured, vectors_dsn: str, instant_model: ModelService, local_stack: Stack, tmp_path: Path
) -> None:
    source, folder = DriftingSource(captured.dsn), tmp_path / "p"
    shared = (captured.source, vectors_dsn, instant_model.endpoint["endpoint_url"], folder)
    first = document(*shared, drift_exceptions={"noise": "ignore", "code": "ignore"})
    pipeline = Pipeline(folder, first, mark=str(local_stack.directory))
    (table,) = pipeline.config.tables
    with running(pipeline):
        driver = pipeline.start()
        captured.put()
        pipeline.await_equal(source.rows)
        with source.trickle():
            source.alter()
        await_rows(pipeline, source, left_out, left_out_of_the_table)
        assert {(row["condition"], row["column"]) for row in pipeline.delta("rejects", ["condition", "column"])} == {
            ("CAST_FAILED", "code")
        }

        # a column that the template needs: nothing is written without it
        _, kinds = source.rows(table)
        documents = pipeline.documents(TABLE, kinds)
        source.execute("ALTER TABLE items RENAME body TO content")
        with source.trickle(body="content"):
            assert driver.wait() == STOPPED
        assert "has no column body any more, which `document.template` names" in driver.log.read_text()
        assert pipeline.documents(TABLE, kinds) == documents

        # accepted; and the table gets another name, which the connector knows before
        names = {"content": "body", "label": "tag"}
        pipeline.write(document(*shared, renamed=names, partitions=[LATER]))
        captured.put([LATER])
        driver = pipeline.start()
        with source.trickle(body="content"):
            eventually(lambda: pipeline.documents(TABLE, kinds) != documents, START_SECONDS, driver.process)
        source.execute("ALTER TABLE items RENAME TO goods")
        with source.trickle("goods", "content"):
            pass
        await_rows(pipeline, source, accepted)
        assert driver.stop() == 0
        assert all(count == 1 for count in pipeline.landed().values())


def await_rows(pipeline: Pipeline, source: DriftingSource, rows: Expected, merged: Expected | None = None) -> None:
    """Wait until store, lake and current table have what is expected of the source; `merged` of the table, if it is other."""
    (table,) = pipeline.config.tables

    def wrong() -> list[str]:
        wanted, kinds = rows(source, table)
        in_table, its_kinds = merged(source, table) if merged else (with_nulls(wanted, kinds), kinds)
        return [
            *differences(documents_of(wanted, table), pipeline.documents(TABLE, kinds), "store"),
            *differences(wanted, pipeline.rows(TABLE, kinds), "lake"),
            *differences(in_table, pipeline.merged_rows(TABLE, its_kinds), "table"),
        ]

    eventually(NothingWrong(wrong), START_SECONDS, pipeline.drivers[-1].process)
