"""Reads the facts of a pipeline from its warehouse, by a login that can only read."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from embeddings.pool import Pool
from schemas.errors import ConfigurationError
from schemas.tables import TableConfig
from warehouse.clients import Client, open_client
from warehouse.config import RedshiftConfig
from warehouse.facts.config import FactConfig, FactsConfig
from warehouse.facts.statement import FactStatement, Restrictions, statement_of
from warehouse.shape import ROWS, folded, names_of
from warehouse.sql import literal, quoted

type Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Fact:
    """The rows of a fact, and when the tables behind it were last loaded."""

    name: str
    description: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    loaded_at: str | None
    """In ISO 8601, UTC: the earliest of the last loads of its tables; None before the first."""
    truncated: bool
    """Whether there are more rows than the fact's limit."""


type Allowed = Mapping[str, Sequence[tuple[str, Sequence[str]]]]
"""By source table: columns, with the values, as text, that each may have in the rows that a caller may see; other tables have
no such row."""


class FactReader:
    """Runs facts, over a bounded number of connections. It reads alone, so that a repeated read changes nothing. Thread-safe."""

    def __init__(
        self, facts: FactsConfig, warehouse: RedshiftConfig, tables: Sequence[TableConfig], connections: int = 1
    ) -> None:
        """Parse every fact; nothing is connected. Raises ConfigurationError for a fact that is no SELECT over these tables."""
        self.facts: Mapping[str, FactConfig] = {fact.name: fact for fact in facts.queries}
        self._view_of = names_of(tables, warehouse)
        self._schema, self._views = warehouse.schema_name, tuple(self._view_of.values())
        self._statements: dict[str, FactStatement] = {
            fact.name: statement_of(fact, self._schema, self._views) for fact in facts.queries
        }
        login = login_of(facts, warehouse)
        self._clients: Pool[Client] = Pool("facts", partial(open_client, login), connections)

    def read(self, name: str, values: Mapping[str, str], allowed: Allowed | None = None) -> Fact | None:
        """Run a fact with a value, as text, for each of its parameters; `allowed` are the rows that its caller may see.

        None when the caller may see no row of one of its tables: `allowed` lacks it, and the fact is not public.

        Raises UnavailableError when the warehouse does not answer in time or all connections are in use, ConfigurationError when
        it refuses.
        """
        fact, statement = self.facts[name], self._statements[name]
        if allowed is not None and not fact.public:
            of_views = {
                self._view_of[table]: conditions for table, conditions in allowed.items() if table in self._view_of
            }
            if not of_views.keys() >= set(statement.views):
                return None
            restrictions, bound = _restrictions({view: of_views[view] for view in statement.views})
            statement = statement_of(fact, self._schema, self._views, restrictions)
            values = {**values, **bound}
        with self._clients.borrowed() as client:
            result = client.query(statement.sql, values, fact.timeout_seconds)
        rows = [row[2:] for row in result.rows if row[1] is not None]
        loaded_at = result.rows[0][0] if result.rows else None
        return Fact(
            name,
            fact.description,
            result.columns[2:],
            tuple(tuple(map(_plain, row)) for row in rows[: fact.max_rows]),
            None if loaded_at is None else _utc(loaded_at),
            truncated=len(rows) > fact.max_rows,
        )

    def check(self) -> None:
        """Connect and raise ConfigurationError where the login may write; before the first load there is nothing to write."""
        with self._clients.borrowed() as client:
            self._check(client)

    def _check(self, client: Client) -> None:
        schema = literal(self._schema)
        client.run([f"SET statement_timeout TO {_CHECK_MS}"])
        if not client.run([f"SELECT nspname FROM pg_namespace WHERE nspname = {schema}"]):
            return
        tables = client.run([f"SELECT tablename FROM pg_tables WHERE schemaname = {schema}"])
        behind = {view + ROWS for view in self._views} & {str(name) for (name,) in tables}
        named = [literal(f"{quoted(self._schema)}.{quoted(name)}") for name in sorted(behind)]
        rights = [
            f"HAS_TABLE_PRIVILEGE({name}, '{right}')" for name in named for right in ("INSERT", "UPDATE", "DELETE")
        ]
        (granted,) = client.run([f"SELECT {', '.join([f"HAS_SCHEMA_PRIVILEGE({schema}, 'CREATE')", *rights])}"])
        if any(granted):
            raise ConfigurationError(
                "facts: the login that reads facts can write",
                condition="FACTS_LOGIN_WRITES",
                hint=f"give it USAGE on the schema {self._schema} and SELECT on its tables and views, and nothing else",
            )

    def close(self) -> None:
        """Close the connections."""
        self._clients.close()


_CHECK_MS = 30_000


def login_of(facts: FactsConfig, warehouse: RedshiftConfig) -> RedshiftConfig:
    """The warehouse as the login of the facts reaches it; raises ConfigurationError for a login of the other way."""
    if (warehouse.data_api is None) != (facts.secret_arn is None):
        wanted = "`user` and `password`" if warehouse.data_api is None else "`secret_arn`"
        raise ConfigurationError(
            "facts: the login is not for the way that the warehouse is reached by",
            condition="FACTS_LOGIN",
            hint=f"give {wanted} under `facts`",
        )
    if warehouse.data_api is None:
        return warehouse.model_copy(update={"user": facts.user, "password": facts.password})
    return warehouse.model_copy(
        update={"data_api": warehouse.data_api.model_copy(update={"secret_arn": facts.secret_arn})}
    )


def _restrictions(allowed: Allowed) -> tuple[Restrictions, dict[str, str]]:
    """The restrictions of views, and the values of their parameters, whose names no fact can have."""
    bound: dict[str, str] = {}
    restrictions: dict[str, list[tuple[str, list[str]]]] = {}
    for view, columns in allowed.items():
        for column, values in columns:
            names = [f"_access{len(bound) + place}" for place in range(len(values))]
            bound |= dict(zip(names, values, strict=True))
            restrictions.setdefault(view, []).append((folded(column), names))
    return restrictions, bound


def _plain(value: Any) -> Value:
    """A value as JSON has it: numbers beyond a double's digits, dates and times as text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, decimal.Decimal):
        return str(value.normalize()) if value != value.to_integral_value() else str(value.quantize(decimal.Decimal(1)))
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ")
    return str(value)


def _utc(moment: Any) -> str:
    """A time stamp with a zone, of the wire or of the Data API (`2026-11-29 14:00:00.5+00`), in ISO 8601."""
    parsed = moment if isinstance(moment, dt.datetime) else dt.datetime.fromisoformat(str(moment))
    utc = parsed.replace(tzinfo=dt.UTC) if parsed.tzinfo is None else parsed.astimezone(dt.UTC)
    return utc.isoformat(timespec="milliseconds")
