"""Filtered search in PostgreSQL, whichever way it goes: the few that pass compared, the graph scanned, a scan that ends early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from local_stack.servers.postgres import VectorStore
from sinks.pgvector import preparing, reader
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.filtering import Filtering
from sinks.pgvector.reader import PgvectorIndex
from sinks.pgvector.writer import PgvectorSink
from sinks.search import Question
from tests.feeding import DIMENSIONS, vector_of
from tests.filtering import Rows, where
from tests.servers import new_database

ROWS = 1_500
QUESTION = Question("row", vector_of("row"))
CONDITIONS = ["price < 15", "big < 2", "big = 7", "big in (7, 8)", "price >= 1485", "price > 700", "flag = true"]


def row(number: int) -> dict[str, Any]:
    return {"body": f"row {number}", "big": number % 100, "flag": number % 3 == 0}


@pytest.fixture(scope="module")
def filled(vectors: VectorStore) -> Iterator[tuple[PgvectorConfig, dict[int, dict[str, Any]]]]:
    """Rows whose `price` is their place from the one farthest from the question to the nearest."""
    near = sorted(range(ROWS), key=lambda number: float(vector_of(f"row {number}") @ QUESTION.vector))
    rows = {number: {**row(number), "price": place} for place, number in enumerate(near)}
    for dsn in new_database(vectors):
        config = PgvectorConfig(type="pgvector", dsn=SecretStr(dsn), table="kb")
        with closing(PgvectorSink(config, "model=test", DIMENSIONS)) as sink:
            sink.prepare()
            Rows(sink).put_all(rows)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("ANALYZE")
        yield config, rows


@pytest.mark.parametrize("way", ["few are compared", "the graph is scanned", "the scan ends early"])
def test_filters_find_the_nearest_that_pass_whichever_way_it_goes(
    filled: tuple[PgvectorConfig, dict[int, dict[str, Any]]], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, rows = filled
    if way != "few are compared":
        monkeypatch.setattr(preparing, "LEAST_COMPARED", 0)
        without_vectors = preparing.PREPARE.replace("greatest(v.reltuples, 0)", "0")
        assert without_vectors != preparing.PREPARE
        monkeypatch.setattr(preparing, "PREPARE", without_vectors)
        ends = " SET hnsw.max_scan_tuples = 1; SET hnsw.ef_search = 40;" if way == "the scan ends early" else ""
        monkeypatch.setattr(reader, "SETTINGS", f"{reader.SETTINGS}; SET enable_seqscan = off;{ends}")
    passing = {
        condition: {n for n, r in rows.items() if eval(python(condition), dict(r))}  # noqa: S307 - the test's own
        for condition in CONDITIONS
    }
    with closing(PgvectorIndex(config, "model=test")) as index:
        for condition, numbers in passing.items():
            best = sorted(numbers, key=lambda number: -rows[number]["price"])[:10]
            hits = index.dense(QUESTION, 10, where(condition))
            assert [hit.key["id"] for hit in hits] == best, condition


def python(condition: str) -> str:
    return condition.replace(" = ", " == ").replace("true", "True")


def test_an_equality_is_looked_up_in_the_index(filled: tuple[PgvectorConfig, dict[int, dict[str, Any]]]) -> None:
    config, _ = filled
    filtering = Filtering(where("big = 7"))
    with psycopg.connect(config.dsn.get_secret_value()) as connection:
        statement = sql.SQL("EXPLAIN SELECT document_id FROM kb_g1_documents AS d WHERE d.live AND {} LIMIT 1001")
        plan = connection.execute(statement.format(filtering.condition), filtering.values).fetchall()
    assert any("kb_g1_documents_by_terms" in line for (line,) in plan)
