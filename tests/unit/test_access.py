"""The rules of access: what a configuration may say, and what a caller's claims let through."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from pydantic import TypeAdapter, ValidationError

from glue_jobs.cli.ask import caller_of, search
from glue_jobs.config.values import Substitution
from retrieval.access import Access, Scope
from retrieval.config import AccessConfig
from retrieval.facts.notes import left_out
from schemas.caller import ANYONE, Caller
from schemas.errors import ConfigurationError
from schemas.tables import DocumentConfig, TableConfig
from sinks.search import ANYTHING, Grant
from warehouse.facts.allowed import Allowed
from warehouse.facts.config import FactsConfig


def table(name: str, *metadata: str, **columns: str) -> TableConfig:
    document = DocumentConfig(template="{body}", metadata=metadata)
    return TableConfig(table=name, keys=("id",), columns=columns, document=document)


TICKETS = table("public.tickets", "tenant", "attrs", "level", tenant="bigint", attrs="json")
ARTICLES = table("public.articles", "tenant", "area")
LAKE_ONLY = TableConfig(table="public.log", keys=("id",))
TABLES = (TICKETS, ARTICLES, LAKE_ONLY)


def granted(access: dict[str, Any], caller: Caller) -> tuple[Grant, ...]:
    applied = Access(access, TABLES).applied(ANYTHING, caller).access
    assert applied is not None
    return applied


def tables_of(access: dict[str, Any], caller: Caller) -> list[str]:
    return [name for grant in granted(access, caller) for name in grant.tables]


BOTH = {"tenant": "${claim:tenant}"}
OWN = {"public.tickets": {"tenant": "${claim:tenant}", "attrs.team": "${claim:team}"}, "public.articles": "public"}


def test_without_rules_everybody_finds_everything_and_the_filters_stay() -> None:
    assert Access(None, TABLES).applied(ANYTHING, ANYONE) is ANYTHING
    assert Access().applied(ANYTHING, Caller({"a": "b"})).access is None


@pytest.mark.parametrize(
    ("access", "claims", "tables"),
    [
        (BOTH, {"tenant": 7}, ["public.tickets", "public.articles"]),
        (BOTH, {"tenant": "7"}, ["public.tickets", "public.articles"]),
        (BOTH, {"tenant": "acme"}, ["public.articles"]),
        (BOTH, {"tenant": ("acme", 7)}, ["public.tickets", "public.articles"]),
        (BOTH, {"tenant": ()}, []),
        (BOTH, {"tenant": ""}, []),
        (BOTH, {}, []),
        (OWN, {}, ["public.articles"]),
        (OWN, {"tenant": 7}, ["public.articles"]),
        (OWN, {"tenant": 7, "team": "red"}, ["public.tickets", "public.articles"]),
        (OWN | BOTH, {"team": "red"}, ["public.articles"]),
        ({"public.tickets": BOTH}, {"tenant": 7}, ["public.tickets"]),
        ({"public.tickets": {}}, {"tenant": 7}, []),
        ({"area": "public docs"}, {}, ["public.tickets", "public.articles"]),
        ({}, {"tenant": 7}, []),
    ],
)
def test_a_table_is_granted_where_every_rule_of_it_has_its_claim(
    access: dict[str, Any], claims: dict[str, Any], tables: list[str]
) -> None:
    assert tables_of(TypeAdapter(AccessConfig).validate_python(access), Caller(claims)) == tables


def test_a_rule_of_all_tables_and_one_of_the_table_hold_together() -> None:
    (grant,) = granted({"tenant": "${claim:tenant}", "public.tickets": {"level": 3}}, Caller({"tenant": 7}))[:1]
    assert [condition.path for condition in grant.conditions] == [("tenant",), ("level",)]


def test_a_claim_is_compared_by_its_own_value_and_shown_nowhere() -> None:
    (grant,) = granted({"public.articles": BOTH}, Caller({"tenant": "acme"}))
    (condition,) = grant.conditions
    assert [value.kind for value in condition.values] == ["s"]
    assert b"acme".hex() not in repr(Access(BOTH, TABLES).applied(ANYTHING, Caller({"tenant": "acme"})))
    assert "n" not in [
        v.kind for v in granted({"public.articles": BOTH}, Caller({"tenant": "007"}))[0].conditions[0].values
    ]


@pytest.mark.parametrize(
    "access",
    [
        {"tenant": "acme-${claim:tenant}"}, {"tenant": "${claim:a}${claim:b}"}, {"": "x"}, {"a b": "x"}, {"tenant": None},
        {"tenant": ["a"]}, {"public.tickets": {"tenant": {"x": "y"}}}, {"public.tickets": {"'": "x"}},
    ],
)  # fmt: skip
def test_a_rule_that_means_nothing_is_refused(access: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(AccessConfig).validate_python(access)


@pytest.mark.parametrize("rule", ["public", {"tenant": "x"}])
def test_a_rule_of_a_table_that_is_not_there_is_refused(rule: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"no table public\.artcles") as raised:
        Access({"public.artcles": rule}, TABLES)
    assert "public.articles" in raised.value.hint


def test_rules_that_let_nobody_find_anything_are_told() -> None:
    assert Access(OWN, TABLES).problems() == []
    assert Access({"public.tickets": {"owner": "${claim:sub}"}}, TABLES).problems() == [
        "public.tickets does not keep 'owner' as metadata, so nobody finds its rows",
        "public.articles has no rule of `access` and is not `public`, so nobody finds its rows",
    ]


def test_the_warehouse_is_told_the_rows_that_a_caller_may_see() -> None:
    caller = Caller({"tenant": 7, "team": ("blue", 3)})
    by_column, by_member = Allowed(("tenant",), (7,)), Allowed(("attrs", "team"), ("blue", 3))
    assert Access(OWN, TABLES).allowed_rows(caller) == {"public.tickets": (by_column, by_member), "public.articles": ()}
    assert Access(OWN, TABLES).allowed_rows(Caller({"tenant": 7, "team": ""})) == {"public.articles": ()}
    assert Access({"level.team": "x", "tenant": 1}, [TICKETS]).allowed_rows(caller) is not None
    no_json = table("public.tickets", "tenant", tenant="bigint")
    assert Access({"tenant.team": "${claim:team}"}, [no_json]).allowed_rows(caller) == {}
    assert Access(None, TABLES).allowed_rows(caller) is None


def facts_of(fact: dict[str, Any]) -> FactsConfig:
    return FactsConfig.model_validate({"user": "u", "password": "p", "queries": [fact]})


def test_a_member_that_the_warehouse_cannot_reach_is_noted() -> None:
    fact: dict[str, Any] = {"name": "f", "description": "d", "sql": "SELECT 1"}
    rules = {"public.tickets": {"attrs.Team": "${claim:team}"}, "public.articles": "public"}
    config: Any = SimpleNamespace(facts=facts_of(fact), access=rules, tables=TABLES)
    (note,) = left_out(config)
    assert "public.tickets: attrs.Team is a member" in note
    config.access = {"public.tickets": {"attrs.team": "${claim:team}"}, "public.articles": "public"}
    assert list(left_out(config)) == []
    config.access, config.facts = (
        rules,
        facts_of(fact | {"public": True}),
    )
    assert list(left_out(config)) == []


def test_a_table_or_column_that_cannot_be_searched_is_refused() -> None:
    access = Access(None, TABLES)
    assert access.filters(Scope()) is ANYTHING
    assert access.filters(Scope(("public.tickets",), ("tenant = 7",))).tables == ("public.tickets",)
    for scope in (Scope(("public.log",)), Scope(("tickets",)), Scope(("public.tickets",), ("area = x",))):
        with pytest.raises(ConfigurationError, match=r"public\.|documents"):
            access.filters(scope)


def test_a_claim_is_left_to_the_caller_in_access_alone() -> None:
    substitution = Substitution({"claim:tenant": "x"}, Path("nowhere"))
    assert substitution.apply({"access": {"t": "${claim:tenant}"}}) == {"access": {"t": "${claim:tenant}"}}
    assert substitution.problems == []
    substitution.apply({"name": "${claim:tenant}"})
    assert [problem.path for problem in substitution.problems] == [("name",)]


def test_claims_of_the_command_line_are_typed_as_they_read() -> None:
    claims = [
        "tenant=7",
        "code=007",
        "price=1.10",
        "admin=true",
        'groups=["a", "b"]',
        "name=a=b",
        "none=null",
        'quoted="7"',
    ]
    assert dict(caller_of("ada", claims).claims) == {
        "sub": "ada", "tenant": 7, "code": "007", "price": "1.10", "admin": True, "groups": ("a", "b"), "name": "a=b",
        "none": "null", "quoted": "7",
    }  # fmt: skip
    assert caller_of(None, ()) == ANYONE
    for user, wrong in ((None, ["tenant"]), (None, ["=7"]), ("ada", ["sub=eve"]), (None, ["a=1", "a=2"])):
        with pytest.raises(click.BadParameter):
            caller_of(user, wrong)
    with pytest.raises(ConfigurationError):
        caller_of(None, ['a=[{"b": 1}]'])


def test_filters_are_options_that_repeat_and_may_hold_a_hyphen() -> None:
    line = ["c.yaml", "text", "--filter", "price > -5", "--filter", "-a = 1", "--table", "public.t", "--claim", "x=-1"]
    params = search.make_context("search", line).params
    assert (params["conditions"], params["tables"], params["claims"]) == (
        ("price > -5", "-a = 1"),
        ("public.t",),
        ("x=-1",),
    )
