"""Who may find which rows: the `access` section of a configuration, and the filters it makes of a caller's claims. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from retrieval.config import CLAIM, PUBLIC, is_of_table
from schemas.caller import ANYONE, Caller, Scalar
from schemas.errors import ConfigurationError
from sinks.search import ANYTHING, Filters, Grant
from transforms.filters.conditions import Condition, Value
from transforms.filters.parsing import Filterable, parse, path_of
from transforms.filters.typed import UNKNOWN, claim_values, declared, member_claim
from warehouse.facts.allowed import Allowed, AllowedRows, is_navigable

if TYPE_CHECKING:
    from schemas.tables import TableConfig


@dataclass(frozen=True, slots=True)
class Scope:
    """What a question is asked of: tables (none named: all), conditions as they are written, and who asks."""

    tables: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    caller: Caller = ANYONE


EVERYTHING = Scope()


@dataclass(frozen=True, slots=True)
class Rule:
    """A column, or a member of a JSON column, that must equal a claim or a constant."""

    path: tuple[str, ...]
    claim: str | None
    constant: Scalar | None
    canonical: str

    def condition(self, caller: Caller) -> Condition | None:
        """The condition for a caller; None where the caller lacks the claim, or it is none of the column's type."""
        values = [value for claim in self._claims(caller) for value in self._values(claim)]
        return Condition(self.path, "in", tuple(dict.fromkeys(values))) if values else None

    def allowed(self, caller: Caller) -> Allowed:
        """The values that the column or member may equal for a caller; a member of what is no JSON equals nothing."""
        is_json = len(self.path) == 1 or self.canonical in {UNKNOWN, "json"}
        return Allowed(self.path, tuple(self._claims(caller)) if is_json else ())

    def _claims(self, caller: Caller) -> list[Scalar]:
        stated = self.constant if self.claim is None else caller.claims.get(self.claim)
        claims = stated if isinstance(stated, tuple) else () if stated is None else (stated,)
        return [claim for claim in claims if claim != ""]

    def _values(self, claim: Scalar) -> tuple[Value, ...]:
        if len(self.path) > 1:
            return member_claim(claim) if self.canonical in {UNKNOWN, "json"} else ()
        return claim_values(claim, self.canonical)


class Access:
    """The rules of a pipeline, by table; a table without a rule is found by nobody, unless it is public."""

    def __init__(self, config: Mapping[str, Any] | None = None, tables: Sequence[TableConfig] = ()) -> None:
        """`config` is an `AccessConfig`, `tables` are the pipeline's; without a configuration everybody finds everything."""
        documents = [table for table in tables if table.document]
        names = {table.table for table in tables}
        self.filterable = Filterable({t.table: _columns(t) for t in documents})
        self._rules: dict[str, tuple[Rule, ...]] | None = None
        self._public = frozenset(name for name in names if config and config.get(name) == PUBLIC)
        if config is not None:
            _require_tables(config, names)
            general = {name: value for name, value in config.items() if not is_of_table(name, value)}
            self._rules = {t.table: _rules(t, general, config.get(t.table)) for t in documents}

    def filters(self, scope: Scope) -> Filters:
        """The filters of a question, without what its caller may see.

        Raises:
            ConfigurationError: a table becomes no documents, or a condition is none (`transforms.filters.parsing`).
        """
        unknown = [table for table in scope.tables if table not in self.filterable.tables]
        if unknown:
            raise ConfigurationError(
                f"filter: no documents are made of {', '.join(map(repr, unknown))}",
                condition="FILTER_INVALID",
                hint=f"name one of {', '.join(self.filterable.tables) or 'the tables with a `document` section'}",
            )
        conditions = tuple(parse(text, self.filterable, scope.tables) for text in scope.conditions)
        return Filters(scope.tables, conditions) if scope.tables or conditions else ANYTHING

    def applied(self, filters: Filters, caller: Caller) -> Filters:
        """The filters with what the caller may see."""
        if self._rules is None:
            return filters
        grants = (self._grant(table, caller) for table in self._rules)
        return replace(filters, access=tuple(grant for grant in grants if grant is not None))

    def allowed_rows(self, caller: Caller) -> AllowedRows | None:
        """What holds of the rows that a caller may see, by table, for the warehouse; None without rules.

        A table is missing where the caller sees none of its rows.
        """
        if self._rules is None:
            return None
        rows: dict[str, tuple[Allowed, ...]] = dict.fromkeys(self._public, ())
        for table, rules in self._rules.items():
            allowed = tuple(rule.allowed(caller) for rule in rules)
            if table not in rows and allowed and all(condition.values for condition in allowed):
                rows[table] = allowed
        return rows

    def unreachable(self) -> list[str]:
        """Rules on members that the warehouse cannot be asked for, as `TABLE: PATH`: facts of these tables are left out."""
        return [
            f"{table}: {'.'.join(rule.path)}"
            for table, rules in (self._rules or {}).items()
            for rule in rules
            if table not in self._public and not is_navigable(rule.path)
        ]

    def problems(self) -> list[str]:
        """Rules that let nobody find anything, one sentence each."""
        problems = []
        for table, rules in (self._rules or {}).items():
            if not rules and table not in self._public:
                problems.append(f"{table} has no rule of `access` and is not `public`, so nobody finds its rows")
            problems += [
                f"{table} does not keep {rule.path[0]!r} as metadata, so nobody finds its rows"
                for rule in rules
                if table not in self._public and rule.path[0] not in self.filterable.tables[table]
            ]
        return problems

    def _grant(self, table: str, caller: Caller) -> Grant | None:
        if table in self._public:
            return Grant((table,))
        rules = (self._rules or {}).get(table, ())
        conditions = [condition for rule in rules if (condition := rule.condition(caller)) is not None]
        return Grant((table,), tuple(conditions)) if rules and len(conditions) == len(rules) else None


def _columns(table: TableConfig) -> dict[str, str | None]:
    assert table.document is not None  # noqa: S101 - the caller looked
    return {column: table.types.get(column) for column in table.document.metadata}


def _rules(table: TableConfig, general: Mapping[str, Any], own: object) -> tuple[Rule, ...]:
    wanted = [*general.items(), *(own.items() if isinstance(own, dict) else ())]
    return tuple(_rule(table, name, value) for name, value in wanted)


def _rule(table: TableConfig, name: str, value: Scalar) -> Rule:
    path = path_of(name)
    assert path is not None  # noqa: S101 - the configuration was checked
    claim = CLAIM.fullmatch(value) if isinstance(value, str) else None
    return Rule(path, claim[1] if claim else None, None if claim else value, declared(table.types.get(path[0])))


def _require_tables(config: Mapping[str, Any], names: set[str]) -> None:
    unknown = [name for name, value in config.items() if is_of_table(name, value) and name not in names]
    if unknown:
        raise ConfigurationError(
            f"access: there is no table {', '.join(unknown)}",
            condition="ACCESS_INVALID",
            hint=f"name one of {', '.join(sorted(names))}, or a column and what it must equal",
        )
