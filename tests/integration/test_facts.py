"""Facts on the Redshift stand-in: read by a login that can only read, in their order, as of the last load."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from embeddings import open_embedder
from embeddings.onnx.config import LocalEmbeddingConfig
from lake.tables.observed_types import ObservedTypes
from lake.tables.shape import TableShape
from local_stack.models.minilm import MAX_TOKENS, minilm_folder
from local_stack.servers.aws import Ministack
from retrieval import EXTRACTIVE, commands
from retrieval.access import Scope
from schemas.caller import Caller
from schemas.errors import ConfigurationError, UnavailableError
from schemas.tables import TableConfig
from sinks import open_sink
from sinks.pgvector.config import PgvectorConfig
from tests.asking import Pipeline
from tests.helpdesk import SPECS, put
from tests.warehouse_fixtures import warehouse_config
from warehouse.clients import open_client
from warehouse.config import RedshiftConfig
from warehouse.facts.config import FactsConfig
from warehouse.facts.reader import Fact, FactReader
from warehouse.loader import prepare
from warehouse.shape import evolved
from warehouse.sql import Registry, TableStatements

LOCAL = LocalEmbeddingConfig(
    type="local", model="all-MiniLM-L6-v2", path=minilm_folder(), dimensions=384, max_tokens=MAX_TOKENS
)
TICKETS = TableConfig(
    table="public.tickets",
    keys=("id",),
    document=SPECS["public.tickets"].document,
    columns={"id": "bigint", "customer_id": "text", "hours": "decimal(10,2)", "day": "date"},
)
RESERVED = "_key, _live, _revision, _sequence, _oldest, _loaded_at, _state"
LOADED = dt.datetime(2026, 11, 29, 12, 0, 0, 500_000, dt.UTC)
SHOWN = "2026-11-29T12:00:00.500+00:00"
BY_CUSTOMER = {
    "name": "hours_of_customer",
    "description": "hours spent for a customer",
    "sql": "SELECT day, SUM(hours) AS hours, COUNT(*) AS tickets FROM tickets WHERE customer_id = :customer"
    " GROUP BY day ORDER BY day DESC",
    "parameters": {"customer": {"claim": "customer"}},
    "max_rows": 2,
}
ALL = {"name": "tickets", "description": "how many tickets there are", "sql": "SELECT COUNT(*) AS tickets FROM tickets"}
SLOW = {
    "name": "slow",
    "description": "x",
    "sql": "SELECT COUNT(*) AS n FROM tickets a, tickets b, tickets c",
    "timeout_seconds": 0.001,
}


@pytest.fixture
def warehouse(warehouse_dsn: str, aws: Ministack) -> RedshiftConfig:
    """A loaded schema: six live tickets and a deleted one."""
    config = RedshiftConfig.model_validate(warehouse_config(warehouse_dsn, aws))
    with closing(open_client(config)) as client:
        registry = Registry("desk")
        prepare(client, registry)
        shape = evolved(TableShape(), TICKETS, ObservedTypes())
        client.run(TableStatements(registry, TICKETS.table, "tickets").create(shape))
    rows = [
        (
            f"k{number}",
            number != 6,
            number,
            "o'brien" if number % 2 else "acme",
            f"{number}.25",
            f"2026-11-{10 + number // 2}",
        )
        for number in range(7)
    ]
    with psycopg.connect(warehouse_dsn) as connection, connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO desk.tickets__rows ({RESERVED}, id, customer_id, hours, day)"
            f" VALUES (%s, %s, 1, '0', '0', '{LOADED.isoformat()}', '', %s, %s, %s, %s)",
            rows,
        )
    return config


@pytest.fixture
def login(warehouse_dsn: str, warehouse: RedshiftConfig) -> Iterator[dict[str, str]]:  # noqa: ARG001 - it has the schema
    """A user with SELECT alone."""
    with psycopg.connect(warehouse_dsn, autocommit=True) as admin:
        admin.execute("CREATE USER facts PASSWORD 'reads'")
        admin.execute("GRANT USAGE ON SCHEMA desk TO facts")
        admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA desk TO facts")
        yield {"user": "facts", "password": "reads"}
        admin.execute("DROP OWNED BY facts")
        admin.execute("DROP USER facts")


def reader(warehouse: RedshiftConfig, login: dict[str, str], *queries: dict[str, Any]) -> FactReader:
    return FactReader(FactsConfig.model_validate({**login, "queries": queries}), warehouse, [TICKETS])


def rows(facts: FactReader, name: str, **values: str) -> object:
    fact = facts.read(name, values)
    return fact and fact.rows


def test_a_fact_has_its_rows_as_of_the_last_load(warehouse: RedshiftConfig, login: dict[str, str]) -> None:
    with closing(reader(warehouse, login, BY_CUSTOMER, ALL)) as facts:
        facts.check()
        assert rows(facts, "tickets") == ((6,),), "a deleted row is none"
        assert facts.read("hours_of_customer", {"customer": "o'brien"}) == Fact(
            "hours_of_customer",
            "hours spent for a customer",
            ("day", "hours", "tickets"),
            (("2026-11-12", "5.25", 1), ("2026-11-11", "3.25", 1)),
            "2026-11-29T12:00:00.500+00:00",
            truncated=True,
        )
        for nobody in ("' OR 1 = 1 --", "nobody", ":customer", "%"):
            assert rows(facts, "hours_of_customer", customer=nobody) == ()


def test_a_fact_that_takes_too_long_is_given_up(
    warehouse: RedshiftConfig, login: dict[str, str], warehouse_dsn: str
) -> None:
    with psycopg.connect(warehouse_dsn, autocommit=True) as admin:
        admin.execute(f"INSERT INTO desk.tickets__rows ({RESERVED}, id)"
                      " SELECT 'x' || n, TRUE, 1, '0', '0', now(), '', n FROM generate_series(10, 700) n")  # fmt: skip
    with closing(reader(warehouse, login, SLOW, ALL)) as facts:
        with pytest.raises(UnavailableError, match="took longer"):
            facts.read("slow", {})
        assert rows(facts, "tickets") == ((697,),)


def test_a_login_that_can_write_is_refused(
    warehouse: RedshiftConfig, login: dict[str, str], warehouse_dsn: str
) -> None:
    with psycopg.connect(warehouse_dsn, autocommit=True) as admin:
        admin.execute("GRANT DELETE ON desk.tickets__rows TO facts")
    with closing(reader(warehouse, login, ALL)) as facts, pytest.raises(ConfigurationError) as raised:
        facts.check()
    assert raised.value.condition == "FACTS_LOGIN_WRITES"
    with (
        closing(reader(warehouse, {"user": "facts", "password": "wrong"}, ALL)) as facts,
        pytest.raises(ConfigurationError) as raised,
    ):
        facts.check()
    assert raised.value.condition == "LOGIN_REFUSED"
    with pytest.raises(ConfigurationError, match="not for the way"):
        reader(warehouse, {"secret_arn": "arn:aws:secretsmanager:x"}, ALL)


def test_a_fact_is_read_from_the_rows_that_its_caller_may_see(warehouse: RedshiftConfig, login: dict[str, str]) -> None:
    of_customer = {"name": "own", "description": "x", "sql": "SELECT COUNT(*) AS n FROM Tickets t WHERE t.id >= 0"}
    public = ALL | {"public": True}
    with closing(reader(warehouse, login, of_customer, public)) as facts:
        seen = [
            (facts.read("own", {}, {"public.tickets": [("Customer_ID", values)]}), values)
            for values in (["acme"], ["o'brien"], ["acme", "o'brien"], ["' OR ''='"], ["ACME"])
        ]
        assert [(fact and fact.rows) for fact, _ in seen] == [((3,),), ((3,),), ((6,),), ((0,),), ((0,),)]
        assert facts.read("own", {}, {}) is None
        assert facts.read("own", {}, {"public.customers": []}) is None
        everyone = facts.read("tickets", {}, {})
        assert everyone is not None
        assert everyone.rows == ((6,),)


HOURS = {
    "name": "hours",
    "description": "how many hours were spent for a customer",
    "sql": "SELECT SUM(hours) AS hours FROM tickets WHERE customer_id = :customer",
    "parameters": {"customer": {"table": "public.tickets", "column": "customer_id"}},
}


def test_answers_cite_facts_of_the_callers_rows(
    warehouse: RedshiftConfig, login: dict[str, str], vectors_dsn: str
) -> None:
    store = PgvectorConfig(type="pgvector", dsn=SecretStr(vectors_dsn), table="kb")
    embedder = open_embedder(LOCAL)
    with closing(open_sink(store, embedder.fingerprint, LOCAL.dimensions)) as sink:
        sink.prepare()
        texts = {
            "acme": "The printer in the lobby jams on thick paper",
            "o'brien": "The window in the kitchen does not close",
        }
        tickets = [
            {
                "id": number,
                "customer_id": customer,
                "subject": text,
                "body": f"{text}.",
                "status": "open",
                "priority": "low",
            }
            for number, (customer, text) in enumerate(texts.items())
        ]
        put(sink, embedder, TICKETS.table, tickets)
    facts = FactsConfig.model_validate({**login, "queries": [HOURS, ALL]})
    everybody = Pipeline(LOCAL, (store,), EXTRACTIVE, tables=(TICKETS,), warehouse=warehouse, facts=facts)
    printer = "How many hours were spent for the customer whose printer in the lobby jams?"
    answer = commands.ask(everybody, printer)
    assert [citation["key"] for citation in answer["citations"]] == [{"id": 0}]
    assert answer["facts"] == [
        {
            "fact": "hours",
            "columns": ["hours"],
            "rows": [["6.75"]],
            "truncated": False,
            "loaded_at": "2026-11-29T12:00:00.500+00:00",
        }
    ]
    assert answer["answer"].endswith(f"for a customer: hours 6.75 (loaded {SHOWN}).")
    alone = commands.ask(everybody, "How many tickets are there?")
    assert [fact["rows"] for fact in alone["facts"]] == [[[6]]]
    assert not alone["abstained"]
    ruled = replace(everybody, access={"customer_id": "${claim:customer}"})
    for customer, count in {"acme": 3, "o'brien": 3, "nobody": 0}.items():
        scope = Scope(caller=Caller({"customer": customer}))
        of_all = commands.ask(ruled, "How many tickets are there?", scope=scope)
        assert [fact["rows"] for fact in of_all["facts"]] == [[[count]]]
        of_one = commands.ask(ruled, printer, scope=scope)
        hours = [fact["rows"] for fact in of_one["facts"] if fact["fact"] == "hours"]
        assert hours == ([[["6.75"]]] if customer == "acme" else [])
    assert commands.ask(ruled, "How many tickets are there?")["facts"] == [], "without a claim"
    assert commands.ask(ruled, printer)["abstained"]
