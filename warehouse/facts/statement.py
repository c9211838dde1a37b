"""The statement of a fact: parsed, restricted to the pipeline's views, and completed. Pure.

Amazon Redshift Database Developer Guide, "SELECT". Parameters are bound by name, as text, and compared as their type.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True)
class FactStatement:
    """A fact's statement, ready to be run."""

    sql: str
    """One SELECT with `:name` parameters. Its rows: LOADED_AT, IS_ROW, then the fact's columns; one without IS_ROW is none."""
    views: tuple[str, ...]
    """The views that it reads."""


type Restrictions = Mapping[str, Sequence[tuple[str, Sequence[str]]]]
"""By view: the columns by which its rows are restricted, each with the names of the parameters that it may equal."""


def statement_of(
    fact: FactConfig, schema: str, views: Collection[str], restrictions: Restrictions | None = None
) -> FactStatement:
    """Check a fact's SELECT and complete it with its types, its limit, the time of the last load, and restrictions of rows.

    `views` are the pipeline's, by their names in the warehouse's `schema`. Raises ConfigurationError for anything but one
    SELECT over them with exactly the declared parameters, and a result whose columns have names of their own.
    """
    from sqlglot import exp

    query = _parsed(fact)
    _refuse_effects(fact, query)
    _bind_parameters(fact, query)
    reads = _bind_views(fact, query, schema, views)
    columns = query.named_selects
    if not columns or "*" in columns or "" in columns or len(set(columns)) < len(columns):
        raise _invalid(
            fact, "its result has columns without a name of their own", "name each one: SELECT COUNT(*) AS tickets"
        )
    _restrict(fact, query, restrictions or {})
    orders = [key.copy() for key in (query.args["order"].expressions if query.args.get("order") else ())]
    for key in orders:
        column = key.this
        if not (isinstance(column, exp.Column) and not column.table and column.name in columns):
            raise _invalid(
                fact, "it is ordered by something that is no column of its result", "ORDER BY a column's name"
            )
    ordered = f" ORDER BY {', '.join(key.sql(dialect='redshift') for key in orders)}" if orders else ""
    loads = " UNION ALL ".join(
        f"SELECT MAX(_loaded_at) AS loaded FROM {quoted(schema)}.{quoted(view + ROWS)}" for view in reads
    )
    sql = (
        f"SELECT l.{LOADED_AT}, f.* FROM (SELECT MIN(loaded) AS {LOADED_AT} FROM ({loads}) AS loads) AS l "
        f"LEFT JOIN (SELECT 1 AS {IS_ROW}, q.* FROM ({query.sql(dialect='redshift', comments=False)}) AS q) AS f ON 1 = 1"
        f"{ordered} LIMIT {fact.max_rows + 1}"
    )
    return FactStatement(sql, reads)


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


def _restrict(fact: FactConfig, query: Any, restrictions: Restrictions) -> None:
    """Put a subquery of the rows that the caller may see in the place of each restricted view."""
    from sqlglot import exp

    for table in [table for table in query.find_all(exp.Table) if table.name in restrictions and table.db]:
        if any(table.args[name] for name in table.args.keys() - {"this", "db", "alias"}):
            raise _invalid(fact, f"it does more with {table.name} than read it", "write a plain FROM or JOIN")
        rows = exp.select("*").from_(exp.Table(this=table.this.copy(), db=table.args["db"].copy()))
        for column, parameters in restrictions[table.name]:
            text = exp.cast(exp.column(exp.to_identifier(column, quoted=True)), _TYPES["text"], dialect="redshift")
            allowed = [exp.cast(exp.Var(this=f":{name}"), _TYPES["text"], dialect="redshift") for name in parameters]
            rows = rows.where(exp.In(this=text, expressions=allowed))
        table.replace(rows.subquery(table.alias or exp.to_identifier(table.name, quoted=True)))


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
