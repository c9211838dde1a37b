"""The vector index of pgvector in a load: built once, beside live writes, and never used half built, whoever is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import numpy as np
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from schemas.errors import UnavailableError
from sinks import open_index
from sinks.pgvector import vector_index
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.schema import Names
from sinks.pgvector.writer import PgvectorSink
from sinks.search import Question
from sinks.versions import BulkLoad, IndexVersions
from tests.feeding import DIMENSIONS, Fed, vector_of
from tests.history import ModelTable
from tests.lake_to_store import Lake
from tests.servers import unique
from tests.stores import vector_indexes
from tests.waiting import eventually

ROWS = 60


@pytest.fixture
def config(vectors_dsn: str) -> PgvectorConfig:
    return PgvectorConfig(type="pgvector", dsn=SecretStr(vectors_dsn), table="kb")


@pytest.fixture
def sink(config: PgvectorConfig) -> Iterator[PgvectorSink]:
    with closing(PgvectorSink(config, "model=test", DIMENSIONS)) as opened:
        opened.prepare()
        yield opened


def indexes(config: PgvectorConfig) -> list[bool]:
    """Whether each vector index is valid."""
    return vector_indexes(config.dsn.get_secret_value(), config.table)


def rows(first: int, last: int) -> ModelTable:
    table = ModelTable()
    for number in range(first, last):
        table.insert(number, f"row number {number}")
    return table


def nearest(config: PgvectorConfig, number: int) -> str:
    text = f"body row number {number}"
    with closing(open_index(config, "model=test")) as index:
        return index.dense(Question(text, vector_of(text)), 1)[0].chunk_text


def started(config: PgvectorConfig, step: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.killed_load", step],
        stdin=subprocess.PIPE,
        env=Lake.environment(),
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"type": "pgvector", "dsn": config.dsn.get_secret_value(), "table": config.table}))
    process.stdin.close()
    return process


@contextmanager
def held_up(config: PgvectorConfig) -> Iterator[psycopg.Connection]:
    """A transaction that has written to the vectors: a build waits for it, half done."""
    with psycopg.connect(config.dsn.get_secret_value()) as connection:
        zero = "[" + ",".join("1" * DIMENSIONS) + "]"
        connection.execute("INSERT INTO kb_g1_vectors VALUES ('held', %s)", (zero,))
        yield connection
        connection.rollback()


@pytest.mark.parametrize("step", ["announced", "begun", "built"])
def test_a_load_killed_at_a_step_is_ended_by_another_process(
    config: PgvectorConfig, sink: PgvectorSink, step: str
) -> None:
    if step == "built":
        assert sink.begin_bulk_load(BulkLoad("first load", 1))
        Fed(sink)(rows(0, ROWS).changes)
    killed = started(config, step)
    assert killed.wait(60) == -9
    assert sink.bulk_load_now() is not None
    assert indexes(config) == ([] if step == "begun" else [True])
    Fed(sink)(rows(0, ROWS).changes)
    assert nearest(config, 7) == "body row number 7"
    assert sink.end_bulk_load()
    assert sink.bulk_load_now() is None
    assert indexes(config) == [True]
    assert nearest(config, 7) == "body row number 7"


def test_the_build_of_a_killed_process_goes_on_and_is_waited_for(config: PgvectorConfig, sink: PgvectorSink) -> None:
    assert sink.begin_bulk_load(BulkLoad("first load", 1))
    Fed(sink)(rows(0, ROWS).changes)
    with held_up(config):
        building = started(config, "")
        eventually(lambda: indexes(config) == [False])
        building.kill()
        building.wait(30)
        assert not sink.end_bulk_load()
        assert sink.filling().startswith("building the vector index")
        assert nearest(config, 7) == "body row number 7"
        Fed(sink)(rows(ROWS, ROWS + 5).changes)
    eventually(sink.end_bulk_load)
    assert indexes(config) == [True]
    assert nearest(config, ROWS + 3) == f"body row number {ROWS + 3}"


def test_a_half_built_index_is_never_used_and_built_again(config: PgvectorConfig, sink: PgvectorSink) -> None:
    assert sink.begin_bulk_load(BulkLoad("first load", 1))
    Fed(sink)(rows(0, ROWS).changes)
    with held_up(config) as connection:
        building = started(config, "")
        eventually(lambda: indexes(config) == [False])
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index")
        building.wait(60)
    assert indexes(config) == [False]
    assert sink.bulk_load_now() is not None
    assert nearest(config, 7) == "body row number 7"
    Fed(sink)(rows(ROWS, ROWS + 5).changes)
    assert sink.end_bulk_load()
    assert indexes(config) == [True]
    assert nearest(config, ROWS + 3) == f"body row number {ROWS + 3}"


def test_a_load_that_began_while_another_ended_stays(config: PgvectorConfig, sink: PgvectorSink) -> None:
    assert sink.begin_bulk_load(BulkLoad("first load", 1))
    with closing(PgvectorSink(config, "model=test", DIMENSIONS)) as other:
        change = sink.change_index_versions

        def later(becomes: Callable[[IndexVersions], IndexVersions]) -> IndexVersions:
            assert other.begin_bulk_load(BulkLoad("rebuild", 2, renewed_us=2))
            return change(becomes)

        vars(sink)["change_index_versions"] = later
        assert sink.end_bulk_load()
        load = other.bulk_load_now()
        assert load is not None
        assert load.by == "rebuild"
        assert indexes(config) == []
        assert other.end_bulk_load()
    assert indexes(config) == [True]


def test_a_user_who_does_not_own_the_index_loads_with_it(config: PgvectorConfig, sink: PgvectorSink) -> None:
    name = unique("writer")
    role = sql.Identifier(name)
    with psycopg.connect(config.dsn.get_secret_value(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {}").format(role))
        admin.execute(sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {}").format(role))
        dsn = make_conninfo(config.dsn.get_secret_value(), options=f"-c role={name}")
        try:
            with closing(
                PgvectorSink(config.model_copy(update={"dsn": SecretStr(dsn)}), "model=test", DIMENSIONS)
            ) as own:
                assert own.begin_bulk_load(BulkLoad("first load", 1))
                assert indexes(config) == [True]
                Fed(own)(rows(0, ROWS).changes)
                assert own.end_bulk_load()
            assert sink.bulk_load_now() is None
            assert nearest(config, 7) == "body row number 7"
        finally:
            admin.execute(sql.SQL("DROP OWNED BY {}").format(role))
            admin.execute(sql.SQL("DROP ROLE {}").format(role))


def test_too_many_vectors_without_an_index_are_refused_with_their_share(
    config: PgvectorConfig, sink: PgvectorSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sink.begin_bulk_load(
        BulkLoad("rebuild", time.time_ns() // 1000, renewed_us=1), 4 * vector_index.LEAST_INDEXED
    )
    vectors = {f"{n:064x}": np.full(DIMENSIONS, n + 1, np.float32) for n in range(2 * vector_index.LEAST_INDEXED)}
    sink.keep_vectors(vectors)
    monkeypatch.setattr(vector_index, "MOST_COMPARED_BYTES", 1)
    with pytest.raises(UnavailableError) as refused:
        nearest(config, 7)
    assert refused.value.condition == "STORE_FILLING"
    assert "filling, " in refused.value.message
    assert " %" in refused.value.message
    assert sink.end_bulk_load()
    with closing(open_index(config, "model=test")) as index:
        assert index.dense(Question("x", vector_of("x")), 1) == []


def test_the_size_of_the_table_tells_about_how_many_vectors(config: PgvectorConfig, sink: PgvectorSink) -> None:
    assert sink.stored_vectors() == 0
    sink.keep_vectors({f"{n:064x}": np.full(DIMENSIONS, n + 1, np.float32) for n in range(40)})
    assert sink.stored_vectors() == 40
    sink.keep_vectors({f"{n:064x}": np.full(DIMENSIONS, n + 1, np.float32) for n in range(6_000)})
    assert 4_000 < sink.stored_vectors() < 9_000
    with psycopg.connect(config.dsn.get_secret_value()) as connection:
        assert vector_index.progress(connection, Names("kb"), DIMENSIONS) is None
