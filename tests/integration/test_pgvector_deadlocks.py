"""Statements that PostgreSQL gives up in a deadlock are done again: provoked on the real server, the store always the victim."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from psycopg import Connection
from pydantic import SecretStr

from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.writer import PgvectorSink
from tests.feeding import DIMENSIONS, Fed
from tests.history import TABLE, ModelTable
from tests.waiting import eventually

WAITING = """SELECT count(*) FROM pg_stat_activity
             WHERE application_name = 'ragstream' AND datname = current_database() AND wait_event_type = 'Lock'"""


def remove_all(sink: PgvectorSink, connection: Connection) -> None:
    revisions = connection.execute("SELECT document_id, revision FROM kb_g1_documents").fetchall()
    sink.remove(dict(revisions))


def truncate(sink: PgvectorSink, _: Connection) -> None:
    sink.truncate(TABLE, "f" * 104)


def sweep(sink: PgvectorSink, connection: Connection) -> None:
    connection.execute("INSERT INTO kb_tables VALUES (%s, %s)", (TABLE, "f" * 104))
    sink.sweep()


@pytest.mark.parametrize("statement", [remove_all, truncate, sweep])
def test_a_statement_that_was_given_up_in_a_deadlock_is_done_again(
    vectors_dsn: str, statement: Callable[[PgvectorSink, Connection], None]
) -> None:
    config = PgvectorConfig(type="pgvector", dsn=SecretStr(vectors_dsn), table="kb")
    table = ModelTable()
    for number in range(6):
        table.insert(number, f"row {number}")
    with (
        closing(PgvectorSink(config, "model=test", DIMENSIONS)) as sink,
        psycopg.connect(vectors_dsn, autocommit=True) as looking,
        psycopg.connect(vectors_dsn) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        sink.prepare()
        Fed(sink)(table.changes)
        other.execute("SET deadlock_timeout = '1min'")  # so the store's statement, which waits one second, is given up
        # A row that a statement comes to after others, in whatever direction it goes: it holds those when it waits for this.
        order = "document_id" if statement is remove_all else "ctid"
        other.execute(f"SELECT 1 FROM kb_g1_documents ORDER BY {order} OFFSET 3 LIMIT 1 FOR UPDATE".encode())
        done = pool.submit(statement, sink, looking)
        assert eventually(lambda: looking.execute(WAITING).fetchone() == (1,)), "the statement waits for nothing"
        free = looking.execute("SELECT 1 FROM kb_g1_documents FOR UPDATE SKIP LOCKED").fetchall()
        assert len(free) < 5, "the statement holds rows, and waits"
        other.execute("SELECT 1 FROM kb_g1_documents FOR UPDATE")  # given to it once the statement is given up
        other.commit()
        done.result(20)
        assert looking.execute("SELECT count(*) FROM kb_g1_documents").fetchone() == (0,)
