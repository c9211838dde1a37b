"""What the tests of facts share: a table of tickets in the warehouse, its documents in a store, and facts about it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from pydantic import SecretStr

from embeddings import open_embedder
from lake.tables.observed_types import ObservedTypes
from lake.tables.shape import TableShape
from local_stack.servers.aws import Ministack
from schemas.tables import TableConfig
from sinks import open_sink
from sinks.pgvector.config import PgvectorConfig
from tests.helpdesk import LOCAL, SPECS, put
from tests.warehouse_fixtures import warehouse_config
from warehouse.clients import open_client
from warehouse.config import RedshiftConfig
from warehouse.facts.config import FactsConfig
from warehouse.loader import prepare
from warehouse.shape import evolved
from warehouse.sql import Registry, TableStatements

TICKETS = TableConfig(
    table="public.tickets",
    keys=("id",),
    document=SPECS["public.tickets"].document,
    columns={"id": "bigint", "customer_id": "text", "hours": "decimal(10,2)", "day": "date", "meta": "json"},
)
RESERVED = "_key, _live, _revision, _sequence, _oldest, _loaded_at, _state"
LOADED = dt.datetime(2026, 11, 29, 12, 0, 0, 500_000, dt.UTC)
SHOWN = "2026-11-29T12:00:00.500+00:00"
CUSTOMERS = {
    "acme": "The printer in the lobby jams on thick paper",
    "o'brien": "The window in the kitchen does not close",
}
ALL = {"name": "tickets", "description": "how many tickets there are", "sql": "SELECT COUNT(*) AS tickets FROM tickets"}
HOURS = {
    "name": "hours",
    "description": "how many hours were spent for a customer",
    "sql": "SELECT SUM(hours) AS hours FROM tickets WHERE customer_id = :customer",
    "parameters": {"customer": {"table": "public.tickets", "column": "customer_id"}},
}
SINCE = {
    "name": "opened_since",
    "description": "how many tickets were opened since a day",
    "sql": "SELECT COUNT(*) AS tickets FROM tickets WHERE day >= :since",
    "parameters": {"since": {"model": "the first day of the period", "type": "date", "minimum": "2020-01-01"}},
}
SLOW = {
    "name": "slow",
    "description": "how many tickets there are",
    "sql": "SELECT COUNT(*) AS n FROM tickets a, tickets b, tickets c, tickets d, tickets e, tickets f, tickets g, tickets h",
    "timeout_seconds": 0.001,
}


def loaded_warehouse(dsn: str, aws: Ministack) -> RedshiftConfig:
    """A loaded schema: six live tickets of two customers, and a deleted one."""
    config = RedshiftConfig.model_validate(warehouse_config(dsn, aws))
    with closing(open_client(config)) as client:
        registry = Registry("desk")
        prepare(client, registry)
        shape = evolved(TableShape(), TICKETS, ObservedTypes())
        client.run(TableStatements(registry, TICKETS.table, "tickets").create(shape))
    rows = [
        (
            f"k{number}", number != 6, number, "o'brien" if number % 2 else "acme", f"{number}.25", f"2026-11-{10 + number // 2}",
            json.dumps({"tenant": {"id": "o'brien" if number % 2 else "acme", "number": number % 2}, "vip": number == 0}),
        )
        for number in range(7)
    ]  # fmt: skip
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO desk.tickets__rows ({RESERVED}, id, customer_id, hours, day, meta)"
            f" VALUES (%s, %s, 1, '0', '0', '{LOADED.isoformat()}', '', %s, %s, %s, %s, %s)",
            rows,
        )
    return config


@contextmanager
def reading_user(dsn: str) -> Iterator[dict[str, str]]:
    """A user with SELECT alone, as `facts` has it."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE USER facts PASSWORD 'reads'")
        admin.execute("GRANT USAGE ON SCHEMA desk TO facts")
        admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA desk TO facts")
        yield {"user": "facts", "password": "reads"}
        admin.execute("DROP OWNED BY facts")
        admin.execute("DROP USER facts")


def facts_of(login: dict[str, str], *queries: dict[str, Any]) -> FactsConfig:
    """A `facts` section."""
    return FactsConfig.model_validate({**login, "queries": queries})


def indexed_tickets(dsn: str) -> PgvectorConfig:
    """A store with one document of each customer."""
    store = PgvectorConfig(type="pgvector", dsn=SecretStr(dsn), table="kb")
    embedder = open_embedder(LOCAL)
    with closing(open_sink(store, embedder.fingerprint, LOCAL.dimensions)) as sink:
        sink.prepare()
        rows = [
            {"id": number, "customer_id": customer, "subject": text, "body": f"{text}.", "status": "open", "priority": "low"}
            for number, (customer, text) in enumerate(CUSTOMERS.items())
        ]  # fmt: skip
        put(sink, embedder, TICKETS.table, rows)
    return store
