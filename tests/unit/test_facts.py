"""The values of a fact's parameters, and a fact as a sentence of an answer."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from retrieval.facts import fact_sentence, values_of
from schemas.caller import ANYONE, Caller
from sinks.search import Hit
from warehouse.facts.config import FactConfig
from warehouse.facts.reader import Fact

HITS = [
    Hit("d1", "public.notes", {"id": 1}, "c1", 0, "text", {"customer": 7, "price": Decimal("1.50")}, 0.9, 0.0),
    Hit("d2", "public.customers", {"id": 8}, "c2", 0, "text", {"id": 99, "name": "o'brien"}, 0.8, 0.0),
    Hit("d3", "public.customers", {"id": 9}, "c3", 0, "text", {}, 0.7, 0.0),
]


def fact(**parameters: dict[str, Any]) -> FactConfig:
    return FactConfig.model_validate({"name": "f", "description": "d", "sql": "SELECT 1", "parameters": parameters})


def row(table: str, column: str, kind: str = "text") -> dict[str, Any]:
    return {"table": table, "column": column, "type": kind}


def test_values_are_of_the_best_cited_row_and_of_the_callers_claims() -> None:
    wanted = fact(
        customer=row("public.customers", "id", "integer"),
        name=row("public.customers", "name"),
        price=row("public.notes", "price", "decimal"),
        tenant={"claim": "tenant"},
        admin={"claim": "admin", "type": "boolean"},
    )
    caller = Caller({"tenant": "acme", "admin": True})
    values = values_of(wanted, HITS, caller)
    assert values == {"customer": "8", "name": "o'brien", "price": "1.50", "tenant": "acme", "admin": "true"}
    assert values_of(wanted, HITS, ANYONE) is None, "without the claim"
    assert values_of(wanted, HITS[:1], caller) is None, "without a row of the table"
    assert values_of(fact(), [], ANYONE) == {}


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("integer", [5, "-5", str(2**63 - 1)], ["5; DROP", "1.5", str(2**63), "5e3", True]),
        ("decimal", ["1.5", 2, Decimal("0.10"), "1E3"], ["NaN", "Infinity", "x", float("inf")]),
        ("boolean", [True, "false"], ["yes", 1]),
        ("date", ["2026-11-29"], ["2026-13-01", "today"]),
        ("timestamp", ["2026-11-29T12:00:00+00:00"], ["now()"]),
        ("text", ["' OR 1 = 1 --", "日本"], ["", "\0", None, ["a"], {"a": 1}]),
    ],
)
def test_a_value_that_is_not_of_its_type_is_none(kind: str, right: list[Any], wrong: list[Any]) -> None:
    wanted = fact(value={"claim": "v", "type": kind})
    listed = fact(value=row("public.notes", "v", kind))
    for value in right:
        assert values_of(wanted, [], Caller({"v": str(value) if isinstance(value, Decimal) else value})) is not None, (
            value
        )
    for value in wrong:
        hit = Hit("d", "public.notes", {}, "c", 0, "", {"v": value}, 1.0, 1.0)
        assert values_of(listed, [hit], ANYONE) is None, value


def test_a_fact_is_said_with_its_columns_and_when_it_was_loaded() -> None:
    read = Fact(
        "f", "open tickets", ("priority", "n"), (("high", 3), (None, 0)), "2026-11-29T12:00:00+00:00", truncated=True
    )
    assert (
        fact_sentence(read)
        == "open tickets: priority high, n 3; priority none, n 0 and more (loaded 2026-11-29T12:00:00+00:00)."
    )
