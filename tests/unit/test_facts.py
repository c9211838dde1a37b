"""The values of a fact's parameters, and a fact as a sentence of an answer."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from glue_jobs.config.problems import across_parts
from retrieval.facts.calls import RefusedInput, input_values, tool_of
from retrieval.facts.relevant import MOST_CHARACTERS, as_of, fact_sentence, fact_text, values_of
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
    asked = replace(read, asked=(("since", "2026-11-01"),), truncated=False)
    assert fact_text(asked).splitlines() == [
        "open tickets",
        "where since is 2026-11-01",
        "priority high, n 3",
        "priority none, n 0",
        "loaded on 2026-11-29 at 12:00:00 UTC",
    ]
    never = replace(read, loaded_at=None)
    assert as_of([read, never, asked]) == "(F1, F3 loaded 2026-11-29T12:00:00+00:00.)"
    assert as_of([never]) == ""


def test_a_long_fact_takes_a_bounded_part_of_a_prompt() -> None:
    rows = tuple(("x" * 60_000, number) for number in range(100))
    text = fact_text(Fact("f", "open tickets", ("text", "n"), rows, None, truncated=False))
    assert len(text) < MOST_CHARACTERS + 100
    assert text.splitlines()[-1] == "and more rows"
    assert text.count("…") == text.count(", n ") == len(text.splitlines()) - 2 > 3


ASKED: dict[str, dict[str, Any]] = {
    "since": {"model": "the first day", "type": "date", "minimum": "2020-01-01"},
    "priority": {"model": "which priority", "choices": ["low", "high"]},
    "most": {"model": "how many", "type": "integer", "minimum": 1, "maximum": 50},
}
GIVEN = {"since": "2026-11-01", "priority": "high", "most": 20}


def test_a_model_is_offered_what_is_its_own_and_nothing_else() -> None:
    wanted = fact(**ASKED, tenant={"claim": "tenant"}, customer=row("public.customers", "id", "integer"))
    tool = tool_of(wanted)
    assert tool.schema.keys() == {"type", "properties", "required"}
    assert tool.schema["required"] == ["since", "priority", "most"]
    properties = tool.schema["properties"]
    assert properties["priority"]["enum"] == ["low", "high"]
    assert (properties["most"]["minimum"], properties["most"]["maximum"]) == (1, 50)
    assert properties["since"] == {
        "type": "string", "format": "date", "description": "the first day (a date as YYYY-MM-DD from 2020-01-01)",
    }  # fmt: skip
    assert input_values(wanted, GIVEN) == {"since": "2026-11-01", "priority": "high", "most": "20"}
    for claim in ({"tenant": "other"}, {"customer": 9}, {"_access0": "other"}, {"sql": "SELECT 1"}):
        with pytest.raises(RefusedInput, match="no other: since, priority, most"):
            input_values(wanted, GIVEN | claim)


@pytest.mark.parametrize(
    ("kind", "limits", "right", "wrong"),
    [
        ("text", {"max_length": 20}, ["a", "' OR 1 = 1 --", "日本"], ["", "x" * 21, "\0", "\ud800", 5, True, None, ["a"], {}]),
        ("text", {"choices": ["low", "high"]}, ["low"], ["Low", "low ", "low' OR ''='", "", 1, ["low"]]),
        ("integer", {"minimum": 1, "maximum": 50}, [1, 50], [0, 51, 5.0, "5", "1; DROP TABLE t", True, None, 10**20, [1]]),
        ("integer", {"choices": [1, 3]}, [3], [2, "3", 3.0]),
        ("decimal", {"minimum": 0.5}, [0.5, 2, 1e20], [0.4, -1, "2", float("nan"), float("inf"), 1e300, True]),
        ("boolean", {}, [True, False], ["true", 1, 0, None, "yes"]),
        ("date", {"minimum": "2020-01-01", "maximum": "2026-12-31"}, ["2020-01-01"],
         ["2019-12-31", "2027-01-01", "2026-13-01", "today", "2026-11-01T00:00:00", "CURRENT_DATE", 20261101, ""]),
        ("timestamp", {"maximum": "2026-11-29T12:00:00Z"}, ["2026-11-29T13:00:00+01:00", "2026-11-29T12:00:00"],
         ["2026-11-29T12:00:01Z", "2026-11-29T12:00:00-01:00", "now()", 0]),
    ],
)  # fmt: skip
def test_what_a_model_gives_is_of_the_type_and_within_the_limits(
    kind: str, limits: dict[str, Any], right: list[Any], wrong: list[Any]
) -> None:
    wanted = fact(value={"model": "a value", "type": kind, **limits})
    for value in right:
        assert input_values(wanted, {"value": value}), value
    for value in wrong:
        with pytest.raises(RefusedInput) as refused:
            input_values(wanted, {"value": value})
        assert not (isinstance(value, str) and len(value) > 4 and value in str(refused.value)), "it is not repeated"


@pytest.mark.parametrize("inputs", [None, {}, {"since": "2026-11-01"}, {**GIVEN, "x": 1}, {"Since": 1}])
def test_an_input_that_is_not_the_declared_object_is_refused(inputs: dict[str, Any] | None) -> None:
    with pytest.raises(RefusedInput):
        input_values(fact(**ASKED), inputs)


@pytest.mark.parametrize(
    "parameter",
    [
        {"claim": "c", "choices": ["a"]},
        {"claim": "c", "model": "m"},
        {"table": "a.b", "column": "c", "model": "m"},
        {"model": ""},
        {"model": "m", "minimum": 1},
        {"model": "m", "type": "boolean", "choices": ["true"]},
        {"model": "m", "type": "integer", "minimum": "x"},
        {"model": "m", "type": "date", "maximum": "tomorrow"},
        {"model": "m", "type": "date", "choices": ["2026-11-29"]},
        {"model": "m", "type": "integer", "choices": ["1.5"]},
    ],
)
def test_limits_that_make_no_sense_are_refused(parameter: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|bound or a choice|limits|give"):
        fact(value=parameter)


@pytest.mark.parametrize(
    ("generation", "refused"),
    [
        (None, 1),
        ({"type": "extractive"}, 1),
        ({"type": "sagemaker", "format": "inputs"}, 1),
        ({"type": "sagemaker"}, 0),
        ({"type": "bedrock"}, 0),
    ],
)
def test_a_parameter_of_a_text_model_needs_one_that_takes_tools(
    generation: dict[str, str] | None, refused: int
) -> None:
    queries = [{"name": "f", "parameters": {"tenant": {"claim": "c"}, "since": {"model": "the day"}}}]
    raw = {"facts": {"queries": queries}, "warehouse": {"type": "redshift"}, "generation": generation}
    paths = [problem.path for problem in across_parts(raw)]
    assert paths == [("facts", "queries", 0, "parameters", "since")] * refused
