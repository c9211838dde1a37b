"""Reads the facts of a pipeline from its warehouse, by a login that can only read."""

from __future__ import annotations

import datetime as dt
import decimal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from embeddings.pool import Pool
from schemas.errors import ConfigurationError, UnavailableError
from schemas.tables import TableConfig
from warehouse.clients import Client, Result, open_client
from warehouse.config import RedshiftConfig
from warehouse.errors import STATEMENT_TIMEOUT
from warehouse.facts.allowed import Allowed, AllowedRows, is_navigable
from warehouse.facts.config import FactConfig, FactsConfig
from warehouse.facts.statement import ParsedFact, Restriction, Restrictions
from warehouse.facts.values import unquoted
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
    asked: tuple[tuple[str, str], ...] = ()
    """The parameters whose values a text model gave, with these values as text."""
    evident: tuple[str, ...] = ()
    """Those of these values that a sentence may repeat."""

    @property
    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What tells it from the other facts of an answer."""
        return self.name, self.asked


class FactReader:
    """Runs facts. It reads alone, so that a repeated read changes nothing. Thread-safe.

    A warehouse that does not answer is not asked again for a few seconds: answers are given without facts meanwhile, at once.
    """

    def __init__(
        self, facts: FactsConfig, warehouse: RedshiftConfig, tables: Sequence[TableConfig], connections: int = 1
    ) -> None:
        """Parse every fact; nothing is connected. Raises ConfigurationError for a fact that is no SELECT over these tables."""
        self.facts: Mapping[str, FactConfig] = {fact.name: fact for fact in facts.queries}
        self._view_of = names_of(tables, warehouse)
        self._schema, self._views = warehouse.schema_name, tuple(self._view_of.values())
        self._parsed = {fact.name: ParsedFact(fact, self._schema, self._views) for fact in facts.queries}
        login = login_of(facts, warehouse)
        self._clients: Pool[Client] = Pool("facts", partial(open_client, login), connections, _WAIT_SECONDS)
        self._away_until = 0.0

    def read(self, name: str, values: Mapping[str, str], allowed: AllowedRows | None = None) -> Fact | None:
        """Run a fact with a value, as text, for each of its parameters; `allowed` are the rows that its caller may see.

        None when the caller may see no row of one of its tables, and the fact is not public: `allowed` lacks it, or a condition
        of it is on a member that a statement cannot reach.

        Raises UnavailableError when the warehouse does not answer in time, ConfigurationError when it refuses.
        """
        fact, parsed = self.facts[name], self._parsed[name]
        parameters = dict(values)
        restrictions: Restrictions = ()
        if allowed is not None and not fact.public:
            of_views = {self._view_of[table]: rows for table, rows in allowed.items() if table in self._view_of}
            if not all(view in of_views and _can_be_read(of_views[view]) for view in parsed.views):
                return None
            restrictions, bound = _restrictions({view: of_views[view] for view in parsed.views})
            parameters |= bound
        result = self._query(parsed.statement(restrictions), parameters, fact.timeout_seconds)
        rows = [row[2:] for row in result.rows if row[1] is not None]
        loaded_at = result.rows[0][0] if result.rows else None
        return Fact(
            name,
            fact.description,
            result.columns[2:],
            tuple(tuple(map(_plain, row)) for row in rows[: fact.max_rows]),
            None if loaded_at is None else _utc(loaded_at),
            truncated=len(rows) > fact.max_rows,
            asked=tuple((name, values[name]) for name in fact.asked),
        )

    def _query(self, sql: str, values: Mapping[str, str], seconds: float) -> Result:
        if time.monotonic() < self._away_until:
            raise UnavailableError("facts: the warehouse did not answer a moment ago", condition=WAREHOUSE_AWAY)
        result = self._clients.run(partial(self._queried, sql, values, seconds))
        if isinstance(result, UnavailableError):
            raise result
        return result

    def _queried(
        self, sql: str, values: Mapping[str, str], seconds: float, client: Client
    ) -> Result | UnavailableError:
        """The rows; or that it took too long, which is no reason to try another connection."""
        try:
            result = client.query(sql, values, seconds)
        except UnavailableError as error:
            if error.condition == STATEMENT_TIMEOUT:
                return error
            self._away_until = time.monotonic() + _AWAY_SECONDS
            raise
        self._away_until = 0.0
        return result

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


WAREHOUSE_AWAY = "WAREHOUSE_AWAY"
"""The condition of a warehouse that is left alone for a moment."""
_CHECK_MS = 30_000
_WAIT_SECONDS = 2.0
"""For a connection that other threads use."""
_AWAY_SECONDS = 10.0
"""How long a warehouse that did not answer is left alone."""


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


def _can_be_read(rows: Sequence[Allowed]) -> bool:
    return all(is_navigable(allowed.path) and allowed.values for allowed in rows)


def _restrictions(of_views: AllowedRows) -> tuple[Restrictions, dict[str, str]]:
    """The restrictions of views, and the values of their parameters, whose names no fact can have."""
    bound: dict[str, str] = {}
    restrictions: list[tuple[str, tuple[Restriction, ...]]] = []
    for view, rows in of_views.items():
        of_view = []
        for path, values in rows:
            names = tuple(f"_access{len(bound) + place}" for place in range(len(values)))
            bound |= zip(names, map(unquoted, values), strict=True)
            of_view.append(Restriction((folded(path[0]), *path[1:]), names, tuple(map(type, values))))
        restrictions.append((view, tuple(of_view)))
    return tuple(restrictions), bound


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
