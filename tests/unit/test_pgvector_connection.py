"""What a writer's connection to PostgreSQL asks when it hears nothing, and what its errors mean; no server is needed."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from schemas.errors import UnavailableError
from sinks.pgvector import writer as pgvector
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.connection import Attentive
from sinks.pgvector.writer import PgvectorSink


@pytest.mark.parametrize(
    ("host", "hostaddr"), [("db.test", "10.0.0.7"), ("/run/postgresql", "")], ids=["TCP", "Unix socket"]
)
def test_a_silent_server_is_asked_by_address_and_not_by_name(
    host: str, hostaddr: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def probe(conninfo: str, **options: Any) -> Any:
        asked.append(conninfo_to_dict(conninfo) | options)
        return SimpleNamespace(close=lambda: None)

    class Silent(Attentive):
        info: Any = SimpleNamespace(host=host, hostaddr=hostaddr, port=5433)

        def __init__(self) -> None:
            self.conninfo, self.patience = "host=db.test,standby.test port=5433,5434 dbname=d sslmode=verify-full", 0.0

    def nothing() -> Any:
        yield 1
        yield 1
        return "an answer"

    def wait(_: Any, gen: Any, *_options: Any) -> str:
        next(gen)
        gen.send(0)
        try:
            gen.send(1)
        except StopIteration as end:
            return str(end.value)
        raise AssertionError

    monkeypatch.setattr(psycopg, "connect", probe)
    monkeypatch.setattr(psycopg.Connection, "wait", wait)
    assert Silent().wait(nothing()) == "an answer"
    (probed,) = asked
    assert (probed["host"], probed.get("hostaddr", ""), int(probed["port"])) == (host, hostaddr, 5433)
    assert (probed["dbname"], probed["sslmode"], probed["connect_timeout"]) == ("d", "verify-full", 5)


@pytest.mark.parametrize("error", [errors.IdleInTransactionSessionTimeout, errors.TransactionTimeout])
def test_a_transaction_that_the_server_ended_is_tried_again(
    error: type[psycopg.Error], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: PgvectorConfig) -> Any:
        raise error

    monkeypatch.setattr(pgvector, "connect", refuse)
    config = PgvectorConfig.model_validate({"type": "pgvector", "dsn": "host=127.0.0.1", "table": "t"})
    with pytest.raises(UnavailableError):
        PgvectorSink(config, "m", 2).index_versions()


def test_what_psycopg_says_of_errors_is_not_logged() -> None:
    assert not logging.getLogger("psycopg").isEnabledFor(logging.ERROR)
