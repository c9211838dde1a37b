"""The statement of a fact: parsed, restricted to the pipeline's views, and completed. Pure.

Amazon Redshift Database Developer Guide, "SELECT". Parameters are bound by name, as text, and compared as their type.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from schemas.errors import ConfigurationError
from warehouse.facts.config import FactConfig
from warehouse.shape import ROWS
from warehouse.sql import quoted

LOADED_AT, IS_ROW = "ragstream_loaded_at", "ragstream_is_row"
"""Columns that the completed statement adds in front: when the tables were last loaded, and 1 for a row of the fact."""
_TYPES = {
    "text": "VARCHAR(65535)", "integer": "BIGINT", "decimal": "DECIMAL(38, 10)", "boolean": "BOOLEAN", "date": "DATE",
    "timestamp": "TIMESTAMPTZ",
}  # fmt: skip


ROW = "_row"
"""The alias of a view whose rows are restricted: a path into a JSON column begins with it."""
_MEMBER_TYPES: Mapping[type, str] = {str: "string", bool: "boolean", int: "number", float: "number"}
"""What JSON_TYPEOF says of a member that equals a value."""


class Restriction(NamedTuple):
    """A column of a view, or a member of a JSON column, that must equal one of several parameters."""

    path: tuple[str, ...]
    parameters: tuple[str, ...]
    types: tuple[type, ...]
    """Of their values."""


type Restrictions = tuple[tuple[str, tuple[Restriction, ...]], ...]
"""By view; all of a view's restrictions hold at once."""


class ParsedFact:
    """A fact's SELECT, parsed and checked once. Thread-safe: each statement is made from a copy."""

    def __init__(self, fact: FactConfig, schema: str, views: Collection[str]) -> None:
        """`views` are the pipeline's, by their names in the warehouse's `schema`.

        Raises ConfigurationError for anything but one SELECT over them with exactly the declared parameters, and a result whose
        columns have names of their own.
        """
        query = _parsed(fact)
        _refuse_effects(fact, query)
        _bind_parameters(fact, query)
        self.views = _bind_views(fact, query, schema, views)
        """The views that it reads."""
        columns = query.named_selects
        if not columns or "*" in columns or "" in columns or len(set(columns)) < len(columns):
            raise _invalid(
                fact, "its result has columns without a name of their own", "name each one: SELECT COUNT(*) AS tickets"
            )
        self._order = _order_of(fact, query, columns)
        self._fact, self._schema, self._query = fact, schema, query
        self._statements = functools.lru_cache(_STATEMENTS)(self._made)

    def statement(self, restrictions: Restrictions = ()) -> str:
        """The SELECT with its types, its limit, the time of the last load, and restrictions of rows; made once for each.

        Its rows: LOADED_AT, IS_ROW, then the fact's columns; one without IS_ROW is none.
        Raises ConfigurationError where a restricted view is more than read.
        """
        return self._statements(restrictions)

    def _made(self, restrictions: Restrictions) -> str:
        query = self._query.copy()
        _restrict(self._fact, query, dict(restrictions))
        loads = " UNION ALL ".join(
            f"SELECT MAX(_loaded_at) AS loaded FROM {quoted(self._schema)}.{quoted(view + ROWS)}" for view in self.views
        )
        return (
            f"SELECT l.{LOADED_AT}, f.* FROM (SELECT MIN(loaded) AS {LOADED_AT} FROM ({loads}) AS loads) AS l "
            f"LEFT JOIN (SELECT 1 AS {IS_ROW}, q.* FROM ({query.sql(dialect='redshift', comments=False)}) AS q) AS f "
            f"ON 1 = 1{self._order} LIMIT {self._fact.max_rows + 1}"
        )


_STATEMENTS = 64
"""Statements kept of a fact: one for each number of values that callers' claims have."""


def _order_of(fact: FactConfig, query: Any, columns: Sequence[str]) -> str:
    """The ORDER BY that the completed statement repeats outside."""
    from sqlglot import exp

    orders = [key.copy() for key in (query.args["order"].expressions if query.args.get("order") else ())]
    for key in orders:
        column = key.this
        if not (isinstance(column, exp.Column) and not column.table and column.name in columns):
            raise _invalid(
                fact, "it is ordered by something that is no column of its result", "ORDER BY a column's name"
            )
    return f" ORDER BY {', '.join(key.sql(dialect='redshift') for key in orders)}" if orders else ""


def _parsed(fact: FactConfig) -> Any:
    import sqlglot
    from sqlglot import exp

    try:
        statements = [statement for statement in sqlglot.parse(fact.sql, dialect="redshift") if statement is not None]
    except sqlglot.errors.SqlglotError:
        raise _invalid(
            fact, "it is not SQL of Redshift", "try it in the query editor with values for its parameters"
        ) from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Select | exp.SetOperation):
        raise _invalid(fact, "it is not one SELECT", "a fact only reads, by one statement")
    return statements[0]


def _refuse_effects(fact: FactConfig, query: Any) -> None:
    """Refuse what a SELECT could do beside reading: INTO, locks, statements in CTEs, functions of the server."""
    from sqlglot import exp

    effects = (exp.Into, exp.Lock, exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.DDL, exp.Command)
    if any(not isinstance(node, exp.Select | exp.SetOperation) for node in query.find_all(*effects)):
        raise _invalid(fact, "it does more than read", "leave out INTO, FOR UPDATE and statements other than SELECT")
    for call in query.find_all(exp.Anonymous):
        if call.name.lower().startswith(("pg_", "set_", "dblink", "lo_", "nextval")):
            raise _invalid(fact, f"it calls {call.name.lower()}", "leave that function out")


def _bind_views(fact: FactConfig, query: Any, schema: str, views: Collection[str]) -> tuple[str, ...]:
    """Qualify the views by the schema; anything else is refused."""
    from sqlglot import exp

    subqueries = {cte.alias: place for place, cte in enumerate(query.ctes)}
    if len(subqueries) < len(list(query.find_all(exp.CTE))) or subqueries.keys() & set(views):
        raise _invalid(
            fact, "a WITH is not at its beginning, or has the name of a table", "write one WITH, with other names"
        )
    reads: dict[str, None] = {}
    for table in list(query.find_all(exp.Table)):
        around = table.find_ancestor(exp.CTE)
        if not table.db and subqueries.get(table.name, len(subqueries)) < (
            subqueries[around.alias] if around else len(subqueries)
        ):
            continue
        name = table.name if table.this.quoted else table.name.lower()
        if table.catalog or table.db not in {"", schema} or name not in views:
            listed = ", ".join(sorted(views))
            raise _invalid(fact, f"it reads {table.name}, which is no table of this pipeline", f"it can read: {listed}")
        table.set("this", exp.to_identifier(name, quoted=True))
        table.set("db", exp.to_identifier(schema, quoted=True))
        reads[name] = None
    if not reads:
        raise _invalid(fact, "it reads no table", "select from one of the pipeline's tables")
    return tuple(reads)


def _restrict(fact: FactConfig, query: Any, restrictions: Mapping[str, Sequence[Restriction]]) -> None:
    """Put a subquery of the rows that the caller may see in the place of each restricted view."""
    from sqlglot import exp

    for table in [table for table in query.find_all(exp.Table) if table.name in restrictions and table.db]:
        if any(table.args[name] for name in table.args.keys() - {"this", "db", "alias"}):
            raise _invalid(fact, f"it does more with {table.name} than read it", "write a plain FROM or JOIN")
        view = exp.Table(
            this=table.this.copy(), db=table.args["db"].copy(), alias=exp.TableAlias(this=exp.to_identifier(ROW))
        )
        rows = exp.select("*").from_(view)
        for restriction in restrictions[table.name]:
            rows = rows.where(_member(restriction) if len(restriction.path) > 1 else _column(restriction))
        table.replace(rows.subquery(table.alias or exp.to_identifier(table.name, quoted=True)))


def _column(restriction: Restriction) -> Any:
    """That a column is one of the values, as text."""
    from sqlglot import exp

    column = exp.column(exp.to_identifier(restriction.path[0], quoted=True), table=ROW)
    return exp.In(this=_as_text(column), expressions=[_parameter(name) for name in restriction.parameters])


def _member(restriction: Restriction) -> Any:
    """That a member of a JSON column is one of the values, and of its JSON type: 7 is not '7'.

    Redshift's SUPER ("Querying semistructured data"): a path that is not there is NULL, and so is a cast that fails. A text is
    compared as a VARCHAR, a number or a boolean as its JSON, which is exact.
    """
    from sqlglot import exp

    names = [exp.to_identifier(name, quoted=True) for name in restriction.path]
    path = exp.Dot.build([exp.column(names[0], table=ROW), *names[1:]])
    by_type: dict[str, list[str]] = {}
    for name, python_type in zip(restriction.parameters, restriction.types, strict=True):
        by_type.setdefault(_MEMBER_TYPES[python_type], []).append(name)
    conditions = []
    for kind, parameters in by_type.items():
        is_kind = exp.EQ(this=exp.func("JSON_TYPEOF", path.copy()), expression=exp.Literal.string(kind))
        compared = _as_text(path.copy()) if kind == "string" else exp.func("JSON_SERIALIZE", path.copy())
        is_equal = exp.In(this=compared, expressions=[_parameter(name) for name in parameters])
        conditions.append(exp.and_(is_kind, is_equal))
    return exp.or_(*conditions) if conditions else exp.false()


def _as_text(expression: Any) -> Any:
    from sqlglot import exp

    return exp.cast(expression, _TYPES["text"], dialect="redshift")


def _parameter(name: str) -> Any:
    from sqlglot import exp

    return _as_text(exp.Var(this=f":{name}"))


def _bind_parameters(fact: FactConfig, query: Any) -> None:
    """Have each parameter compared as its type."""
    from sqlglot import exp

    used = {placeholder.name for placeholder in query.find_all(exp.Placeholder)}
    if used != fact.parameters.keys() or any(query.find_all(exp.Parameter)):
        problem = ", ".join(sorted(f":{name}" for name in used ^ fact.parameters.keys())) or "another kind of parameter"
        raise _invalid(
            fact,
            f"its SELECT and its `parameters` differ in {problem}",
            "write `:name` in the one for each of the other",
        )
    for placeholder in list(query.find_all(exp.Placeholder)):
        kind = _TYPES[fact.parameters[placeholder.name].type]
        placeholder.replace(exp.cast(exp.Var(this=f":{placeholder.name}"), kind, dialect="redshift"))


def _invalid(fact: FactConfig, problem: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"fact {fact.name}: {problem}", condition="FACT_INVALID", hint=hint)
