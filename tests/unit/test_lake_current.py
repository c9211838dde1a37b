"""Names of paths, types by evidence, and rows as `ragstream table` shows them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.history.current import TableFold, row_of
from lake.layout import LakeLayout, escape
from lake.tables.observed_types import ObservedTypes, canonical, types_of
from schemas.changes import Change
from schemas.tables import TableConfig


@given(st.text(max_size=20), st.text(max_size=20))
def test_escaped_names_are_safe_and_told_apart(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)
    assert set(escape(one)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
    assert not escape(one).startswith((".", "_"))


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ("public.tickets", "/l/tables/public/tickets"),
        ("inv.Mixed Case", "/l/tables/inv/Mixed~20Case"),
        ("a.../../b", "/l/tables/a/~2e.~2f..~2fb"),
        ("a.b.c", "/l/tables/a/b.c"),
    ],
)
def test_a_table_is_one_folder_below_its_schema(table: str, path: str) -> None:
    assert LakeLayout("/l/").table(table) == path


def test_declared_types_win_over_announced_ones_and_newer_over_older() -> None:
    table = TableConfig(table="a.b", keys=("id",), columns={"price": "decimal(10,2)"})
    observed = ObservedTypes({"price": ["text"], "n": ["int", "bigint"]})
    assert types_of(table, observed) == {"price": "decimal(10,2)", "n": "bigint"}


def test_values_take_the_form_of_their_type_and_keep_it() -> None:
    types = {"d": "date", "n": "bigint", "p": "decimal(10,2)"}
    once = canonical({"d": 19782, "n": "7", "p": "1.10", "other": "7"}, types)
    assert once == {"d": "2024-02-29", "n": 7, "p": Decimal("1.10"), "other": "7"}
    assert canonical(once, types) == once


def test_a_pending_column_is_left_out_and_an_absent_one_is_null() -> None:
    fold = TableFold()
    fold.add(Change("a.b", "u", "2", "k", {"id": 1}, unavailable=("body",)))
    fold.add(Change("a.b", "c", "3", "l", {"id": 2}, complete=True))
    live = fold.live()
    assert row_of(live["k"], ["id", "body"], {}) == {"id": 1}
    assert row_of(live["l"], ["id", "body"], {}) == {"id": 2, "body": None}


def test_a_truncated_row_is_gone_whichever_came_first() -> None:
    changes = [
        Change("a.b", "c", "1", "k", {"id": 1}, complete=True),
        Change("a.b", "t", "2", ""),
        Change("a.b", "c", "3", "l", {"id": 2}, complete=True),
    ]
    for history in (changes, changes[::-1]):
        fold = TableFold()
        for change in history:
            fold.add(change)
        assert fold.live().keys() == {"l"}
