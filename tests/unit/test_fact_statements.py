"""The SELECT of a fact: what is refused, and what it becomes."""

from __future__ import annotations

from typing import Any

import pytest
import sqlglot

from schemas.errors import ConfigurationError
from warehouse.facts.allowed import is_navigable
from warehouse.facts.config import FactConfig
from warehouse.facts.statement import ParsedFact, Restriction

VIEWS = ("tickets", "customers", "Odd")


def fact(sql: str, **parameters: dict[str, Any]) -> FactConfig:
    return FactConfig.model_validate({"name": "open", "description": "d", "sql": sql, "parameters": parameters})


def test_a_fact_reads_the_pipelines_views_in_its_order() -> None:
    sql = """WITH t AS (SELECT * FROM Tickets) -- it's :c
        SELECT priority, COUNT(*) AS n FROM t JOIN "Odd" o ON o.id = t.id WHERE c = :c GROUP BY priority ORDER BY n DESC"""
    made = ParsedFact(fact(sql, c={"claim": "customer", "type": "integer"}), "desk", VIEWS)
    statement = made.statement()
    assert sorted(made.views) == ["Odd", "tickets"]
    assert "--" not in statement
    assert statement.count("CAST(:c AS BIGINT)") == 1
    assert statement.endswith("ORDER BY n DESC LIMIT 11")
    assert '"desk"."tickets"' in statement
    assert '"desk"."Odd"' in statement
    (parsed,) = sqlglot.parse(statement, dialect="redshift")
    assert isinstance(parsed, sqlglot.exp.Select)


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELEC", "is not one SELECT"),
        ("SELECT a FROM (", "is not SQL"),
        ("DELETE FROM tickets", "is not one SELECT"),
        ("UNLOAD ('SELECT 1') TO 's3://b' IAM_ROLE default", "is not one SELECT"),
        ("SELECT a FROM tickets; SELECT a FROM tickets", "is not one SELECT"),
        ("SELECT a INTO x FROM tickets", "does more than read"),
        ("SELECT a FROM tickets FOR UPDATE", "does more than read"),
        ("WITH x AS (DELETE FROM tickets RETURNING a) SELECT a FROM x", "does more than read"),
        ("SELECT pg_terminate_backend(1) AS a FROM tickets", "calls pg_terminate_backend"),
        ("SELECT set_config('a', 'b', false) AS a FROM tickets", "calls set_config"),
        ("SELECT 1 AS a", "reads no table"),
        ("SELECT a FROM pg_user", "reads pg_user"),
        ("SELECT a FROM other.tickets", "reads tickets"),
        ("SELECT a FROM tickets__rows", "reads tickets__rows"),
        ('SELECT a FROM "Tickets"', "reads Tickets"),
        ("SELECT (SELECT MAX(b) FROM secret) AS a FROM tickets", "reads secret"),
        ("WITH a AS (SELECT x FROM b), b AS (SELECT x FROM tickets) SELECT x FROM a", "reads b"),
        ("SELECT (WITH s AS (SELECT x FROM tickets) SELECT x FROM s) AS a, (SELECT y FROM s) AS b FROM tickets", "a WITH"),
        ("WITH tickets AS (SELECT x FROM customers) SELECT x FROM tickets", "a WITH"),
        ("SELECT * FROM tickets", "without a name"),
        ("SELECT a, a FROM tickets", "without a name"),
        ("SELECT COUNT(*) FROM tickets", "without a name"),
        ("SELECT a FROM tickets ORDER BY lower(a)", "no column of its result"),
        ("SELECT a FROM tickets ORDER BY b", "no column of its result"),
        ("SELECT a FROM tickets WHERE b = :c", "differ in :c"),
        ("SELECT a FROM tickets WHERE b = $1", "another kind of parameter"),
        ("SELECT a FROM tickets WHERE b = ?", "differ in"),
    ],
)  # fmt: skip
def test_what_is_no_read_of_the_pipelines_views_is_refused(sql: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as raised:
        ParsedFact(fact(sql), "desk", VIEWS)
    assert raised.value.condition == "FACT_INVALID"
    assert raised.value.hint


def test_a_parameter_that_the_select_does_not_use_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="differ in :c"):
        ParsedFact(fact("SELECT a FROM tickets", c={"claim": "x"}), "desk", VIEWS)


@pytest.mark.parametrize(
    "origin", [{}, {"table": "a.b"}, {"column": "c"}, {"table": "a.b", "column": "c", "claim": "d"}]
)
def test_a_parameter_has_one_origin(origin: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="of a cited row, or"):
        fact("SELECT a FROM tickets WHERE a = :c", c=origin)


def test_a_member_of_a_json_column_is_compared_as_its_own_type() -> None:
    own = Restriction(("meta", "tenant", "the id"), ("_access0", "_access1", "_access2"), (str, int, bool))
    made = ParsedFact(fact("SELECT COUNT(*) AS n FROM tickets t JOIN customers c ON c.id = t.c"), "desk", VIEWS)
    sql = made.statement((("tickets", (own,)),))
    (parsed,) = sqlglot.parse(sql, dialect="redshift")
    assert parsed is not None
    path = '_row."meta"."tenant"."the id"'
    for kind, compared, name in [
        ("string", f"CAST({path} AS VARCHAR(65535))", "_access0"),
        ("number", f"JSON_SERIALIZE({path})", "_access1"),
        ("boolean", f"JSON_SERIALIZE({path})", "_access2"),
    ]:
        assert f"(JSON_TYPEOF({path}) = '{kind}' AND {compared} IN (CAST(:{name} AS VARCHAR(65535))))" in sql
    assert '(SELECT * FROM "desk"."tickets" AS _row WHERE' in sql
    assert sql.count("_row.") == 6


@pytest.mark.parametrize("member", ["Tenant", 'te"nant', "té", "a\0b", "a;b", ""])
def test_a_member_that_redshift_would_read_as_another_one_is_not_reached(member: str) -> None:
    assert not is_navigable(("meta", "tenant", member))
    assert is_navigable(("Meta", "tenant_1", "the id"))


def test_a_statement_is_made_once_for_each_number_of_values() -> None:
    made = ParsedFact(fact("SELECT COUNT(*) AS n FROM tickets"), "desk", VIEWS)
    two = (("tickets", (Restriction(("c",), ("_access0", "_access1"), (str, str)),)),)
    assert made.statement(two) is made.statement(
        (("tickets", (Restriction(("c",), ("_access0", "_access1"), (str, str)),)),)
    )
    assert made.statement() is made.statement()
    assert made.statement() != made.statement(two)
