"""Facts on the Redshift stand-in: read by a login that can only read, in their order, as of the last load."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from retrieval import EXTRACTIVE, commands
from retrieval.access import Scope
from schemas.caller import Caller, Scalar
from schemas.errors import ConfigurationError, UnavailableError
from tests.asking import Pipeline
from tests.desk_facts import ALL, HOURS, RESERVED, SHOWN, SLOW, TICKETS, facts_of, indexed_tickets
from tests.helpdesk import LOCAL
from warehouse.config import RedshiftConfig
from warehouse.facts.allowed import Allowed
from warehouse.facts.reader import WAREHOUSE_AWAY, Fact, FactReader

BY_CUSTOMER = {
    "name": "hours_of_customer",
    "description": "hours spent for a customer",
    "sql": "SELECT day, SUM(hours) AS hours, COUNT(*) AS tickets FROM tickets WHERE customer_id = :customer"
    " GROUP BY day ORDER BY day DESC",
    "parameters": {"customer": {"claim": "customer"}},
    "max_rows": 2,
}


def reader(warehouse: RedshiftConfig, login: dict[str, str], *queries: dict[str, Any]) -> FactReader:
    return FactReader(facts_of(login, *queries), warehouse, [TICKETS])


def rows(facts: FactReader, name: str, **values: str) -> object:
    fact = facts.read(name, values)
    return fact and fact.rows


def test_a_fact_has_its_rows_as_of_the_last_load(ticket_warehouse: RedshiftConfig, facts_login: dict[str, str]) -> None:
    with closing(reader(ticket_warehouse, facts_login, BY_CUSTOMER, ALL)) as facts:
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
    ticket_warehouse: RedshiftConfig, facts_login: dict[str, str], warehouse_dsn: str
) -> None:
    with psycopg.connect(warehouse_dsn, autocommit=True) as admin:
        admin.execute(f"INSERT INTO desk.tickets__rows ({RESERVED}, id)"
                      " SELECT 'x' || n, TRUE, 1, '0', '0', now(), '', n FROM generate_series(10, 700) n")  # fmt: skip
    with closing(reader(ticket_warehouse, facts_login, SLOW, ALL)) as facts:
        with pytest.raises(UnavailableError, match="took longer"):
            facts.read("slow", {})
        assert rows(facts, "tickets") == ((697,),)


def test_a_login_that_can_write_is_refused(
    ticket_warehouse: RedshiftConfig, facts_login: dict[str, str], warehouse_dsn: str
) -> None:
    with psycopg.connect(warehouse_dsn, autocommit=True) as admin:
        admin.execute("GRANT DELETE ON desk.tickets__rows TO facts")
    with closing(reader(ticket_warehouse, facts_login, ALL)) as facts, pytest.raises(ConfigurationError) as raised:
        facts.check()
    assert raised.value.condition == "FACTS_LOGIN_WRITES"
    with (
        closing(reader(ticket_warehouse, {"user": "facts", "password": "wrong"}, ALL)) as facts,
        pytest.raises(ConfigurationError) as raised,
    ):
        facts.check()
    assert raised.value.condition == "LOGIN_REFUSED"
    with pytest.raises(ConfigurationError, match="not for the way"):
        reader(ticket_warehouse, {"secret_arn": "arn:aws:secretsmanager:x"}, ALL)


def test_a_fact_is_read_from_the_rows_that_its_caller_may_see(
    ticket_warehouse: RedshiftConfig, facts_login: dict[str, str]
) -> None:
    of_customer = {"name": "own", "description": "x", "sql": "SELECT COUNT(*) AS n FROM Tickets t WHERE t.id >= 0"}
    public = ALL | {"public": True}
    with closing(reader(ticket_warehouse, facts_login, of_customer, public)) as facts:
        seen = [
            (facts.read("own", {}, {"public.tickets": [Allowed(("Customer_ID",), values)]}), values)
            for values in (("acme",), ("o'brien",), ("acme", "o'brien"), ("' OR ''='",), ("ACME",))
        ]
        assert [(fact and fact.rows) for fact, _ in seen] == [((3,),), ((3,),), ((6,),), ((0,),), ((0,),)]
        assert facts.read("own", {}, {}) is None
        assert facts.read("own", {}, {"public.customers": []}) is None
        everyone = facts.read("tickets", {}, {})
        assert everyone is not None
        assert everyone.rows == ((6,),)


def test_answers_cite_facts_of_the_callers_rows(
    ticket_warehouse: RedshiftConfig, facts_login: dict[str, str], vectors_dsn: str
) -> None:
    store = indexed_tickets(vectors_dsn)
    facts = facts_of(facts_login, HOURS, ALL)
    everybody = Pipeline(LOCAL, (store,), EXTRACTIVE, tables=(TICKETS,), warehouse=ticket_warehouse, facts=facts)
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
            "parameters": {},
        }
    ]
    said = f"how many hours were spent for a customer: hours 6.75 (loaded {SHOWN})."
    assert answer["answer"].endswith(said)
    assert answer["sentences"][-1] == {"text": said, "citations": [], "facts": [1], "unsupported": []}
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


def test_a_rule_on_a_member_of_a_json_column_restricts_a_fact(
    ticket_warehouse: RedshiftConfig, facts_login: dict[str, str]
) -> None:
    counted = {
        "name": "own",
        "description": "x",
        "sql": "SELECT COUNT(*) AS n FROM tickets t JOIN tickets u ON u.id = t.id",
    }
    by_id, by_number = ("Meta", "tenant", "id"), ("meta", "tenant", "number")
    with closing(reader(ticket_warehouse, facts_login, counted)) as facts:

        def seen(*allowed: tuple[tuple[str, ...], tuple[Scalar, ...]]) -> object:
            fact = facts.read("own", {}, {"public.tickets": [Allowed(*rule) for rule in allowed]})
            return fact and fact.rows[0][0]

        assert seen((by_id, ("acme",))) == 3
        assert seen((by_id, ("acme", "o'brien", "ACME"))) == 6
        assert [seen((by_number, (value,))) for value in (1, "1", True, 1.5)] == [3, 0, 0, 0]
        assert [seen((("meta", "vip"), (value,))) for value in (True, False, "true", 1)] == [1, 5, 0, 0]
        assert seen((by_id, ("acme",)), (("meta", "vip"), (True,))) == 1
        assert seen((by_id, ("o'brien",)), (("meta", "vip"), (True,))) == 0
        assert seen((by_id, ("acme", 1, True))) == 3
        for hostile in ("' OR '1'='1", "acme' --", '"acme"', "%", "{}", "null"):
            assert seen((by_id, (hostile,))) == 0
        for path in (("meta", "absent"), ("meta", "tenant"), ("meta", "tenant", "id", "more")):
            assert seen((path, ("acme",))) == 0
        for unreachable in (("meta", "Tenant"), ("meta", 'tenant"."id')):
            assert seen((unreachable, ("acme",))) is None
        with pytest.raises(ConfigurationError):
            seen((("customer_id", "id"), ("acme",)))


def test_threads_share_a_reader_and_leave_a_warehouse_alone_that_is_away(
    ticket_warehouse: RedshiftConfig, facts_login: dict[str, str]
) -> None:
    facts = FactReader(facts_of(facts_login, BY_CUSTOMER), ticket_warehouse, [TICKETS], connections=3)
    names = ["acme", "o'brien", "nobody"] * 20
    with closing(facts), ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda name: facts.read("hours_of_customer", {"customer": name}), names))
    days = {"acme": ("2026-11-12", "4.25", 1), "o'brien": ("2026-11-12", "5.25", 1)}
    assert [fact and fact.rows[:1] for fact in read] == [(days[name],) if name in days else () for name in names]
    away = ticket_warehouse.model_copy(update={"port": 9})
    with closing(FactReader(facts_of(facts_login, ALL), away, [TICKETS])) as facts:
        conditions = []
        for _ in range(3):
            with pytest.raises(UnavailableError) as raised:
                facts.read("tickets", {})
            conditions.append(raised.value.condition)
    assert conditions == ["UNAVAILABLE", WAREHOUSE_AWAY, WAREHOUSE_AWAY]


@pytest.mark.timeout(20)
def test_a_warehouse_that_hangs_is_given_up(ticket_warehouse: RedshiftConfig, facts_login: dict[str, str]) -> None:
    hurried = ALL | {"timeout_seconds": 0.2}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = ticket_warehouse.model_copy(update={"port": silent.getsockname()[1]})
        with closing(FactReader(facts_of(facts_login, hurried), hanging, [TICKETS])) as facts:
            for condition in ("UNAVAILABLE", WAREHOUSE_AWAY):
                with pytest.raises(UnavailableError) as raised:
                    facts.read("tickets", {})
                assert raised.value.condition == condition
