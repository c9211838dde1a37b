"""What a filter lets through is the same in every store, and what Python says of the values."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest

from sinks import open_index
from sinks.protocol import Sink
from sinks.search import Filters, Grant, Index, Question
from tests.contract.conftest import STORES
from tests.feeding import vector_of
from tests.filtering import TYPES, Rows, hit_numbers, holds, where
from tests.history import TABLE
from tests.stores import Store

pytestmark = pytest.mark.parametrize("store", [s for s in STORES if s != "opensearch_by_seq_no"], indirect=True)
WAYS = ("dense", "lexical")

POOL: dict[str, list[Any]] = {
    "big": [0, 1, -1, 2**63 - 1, 2**63 - 2, -(2**63), 2**53, 2**53 + 1, 10, 9],
    "price": [
        *map(Decimal, ("0", "0.1", "0.10", "-0.1", "1E+2", "99.999999999999999999", "100.0", "-7.5", "1e-30")),
        Decimal("12345678901234567890.5"),
    ],
    "flag": [True, False],
    "name": [
        "", "a", "A", "ä", "aä", "a\U0001f600", "a\uffff", "it's", 'say "x"', "50%", "a_b", "back\\slash", "null", "true",
        "10", "9", "*", "a) OR (1=1", "$ne", "NaN", " padded ", "x" * 199, "x" * 200, "x" * 201, '["a"]', '{"k": "a"}',
        "two\nlines",
    ],
    "at": [
        "2026-11-29T12:00:00Z", "2026-11-29T12:00:00.000001Z", "2026-11-29T13:00:00+01:00", "2026-11-29T11:59:59Z",
        "1969-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
    ],
    "day": ["2026-11-29", "2026-02-28", "1970-01-01", "1969-12-31", "0400-02-29", "9999-12-31"],
    "doc": [
        "{}", '{"k": "a"}', '{"k": 10}', '{"k": "10"}', '{"k": 9.5}', '{"k": true}', '{"k": null}', '{"k": 1e2}', '{"k": "A"}',
        '{"k": ["a", "b"]}', '{"k": {"deep key": "it\'s"}}', '{"other": [1, {"k": "z"}]}',
    ],
    "tags": [[], ["a"], ["a", "b"], ["ä", "it's"], ["10"]],
    "free": [1, Decimal("1.0"), 2, 10],
}  # fmt: skip
"""Values of each column, as decoding gives them, chosen for what text, floating point or another order would get wrong."""
PATHS = [(name,) for name in TYPES if name not in {"doc", "free"}] + [
    ("doc", "k"),
    ("doc", "k", "deep key"),
    ("doc", "none"),
]
QUESTION = Question("row", vector_of("row"))
SIGNS = ("=", "!=", "<", "<=", ">", ">=", "in", "is null", "is not null")


@pytest.fixture
def index(store: Store, sink: Sink) -> Iterator[Index]:
    sink.check()
    with closing(open_index(store.config, "model=test")) as opened:
        yield opened


@pytest.fixture
def things(sink: Sink) -> dict[int, dict[str, Any]]:
    """A row for each interesting value, the other columns chosen at random, NULL among them."""
    rng, rows = random.Random(22), dict[int, dict[str, Any]]()
    for column, values in POOL.items():
        for value in values:
            row = {c: rng.choice([None, *v]) for c, v in POOL.items()}
            number = len(rows) + 1
            rows[number] = {**row, column: value, "body": f"row number{number}"}
    Rows(sink).put_all(rows)
    return rows


def written(value: Any) -> str:
    """A value as a condition writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | Decimal):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"


def name_of(path: tuple[str, ...]) -> str:
    return ".".join([path[0], *(f'"{name}"' if " " in name else name for name in path[1:])])


def conditions(rng: random.Random, number: int) -> Iterator[tuple[str, tuple[str, ...], str, list[Any]]]:
    """Random conditions: the text, and what it says."""
    for _ in range(number):
        path, sign = rng.choice(PATHS), rng.choice(SIGNS)
        pool: list[Any] = (
            ["a", "A", "b", 10, "10", Decimal("9.5"), 100, True, "it's"] if len(path) > 1 else POOL[path[0]]
        )
        pool = [e for values in pool for e in values] if path == ("tags",) else pool
        if sign in {"<", "<=", ">", ">="}:
            pool = [value for value in pool if not isinstance(value, str) or len(value) < 200]
        values = (
            [] if sign.startswith("is") else [rng.choice(pool) for _ in range(rng.randint(1, 3) if sign == "in" else 1)]
        )
        shown = ", ".join(written(value) for value in values)
        text = f"{name_of(path)} {sign} {f'({shown})' if sign == 'in' else shown}"
        yield text, path, sign, values


def test_filters_mean_the_same_in_every_store_as_in_python(index: Index, things: dict[int, dict[str, Any]]) -> None:
    wrong, let_through = [], 0
    for number, (text, path, sign, values) in enumerate(conditions(random.Random(1), 150)):
        expected = {n for n, row in things.items() if holds(row, path, sign, values)}
        let_through += len(expected)
        if hit_numbers(index, WAYS[number % 2], where(text)) != expected:
            wrong.append(text)
    assert wrong == []
    assert let_through > 1000


def test_several_conditions_hold_together_and_grants_apart(index: Index, things: dict[int, dict[str, Any]]) -> None:
    first, second = where("big >= 0", "flag = true"), where("name is not null")
    both = {n for n, r in things.items() if holds(r, ["big"], ">=", [0]) and holds(r, ["flag"], "=", [True])}
    named = {n for n, row in things.items() if row["name"] is not None}
    either = Filters(access=(Grant((TABLE,), first.conditions), Grant((TABLE,), second.conditions)))
    for way in WAYS:
        assert hit_numbers(index, way, first) == both
        assert hit_numbers(index, way, either) == both | named
        assert hit_numbers(index, way, Filters((TABLE,), second.conditions, either.access)) == named
        assert hit_numbers(index, way, Filters(("public.elsewhere",), (), either.access)) == set()
        assert hit_numbers(index, way, Filters(access=())) == set()
        assert hit_numbers(index, way, Filters(access=(Grant(()),))) == set()
        assert hit_numbers(index, way, Filters(access=(Grant(("public.elsewhere",)),))) == set()
        assert hit_numbers(index, way, Filters(access=(Grant((TABLE,)),))) == set(things)


def test_a_column_that_nobody_told_is_neither_null_nor_anything(sink: Sink, index: Index) -> None:
    rows = Rows(sink)
    rows.put(1, {"name": "a", "body": "row one"}, whole=False)
    rows.put(2, {"name": "a", "big": None, "body": "row two"})
    for way in WAYS:
        assert hit_numbers(index, way, where("big is null")) == {2}
        assert hit_numbers(index, way, where("big is not null")) == set()
        assert hit_numbers(index, way, where("big != 5")) == set()
        assert hit_numbers(index, way, where("name = a")) == {1, 2}


def test_an_undeclared_column_is_compared_as_the_value_reads(index: Index, things: dict[int, dict[str, Any]]) -> None:
    ones = {number for number, row in things.items() if row["free"] == 1}
    assert (
        hit_numbers(index, "dense", where("free = 1")) == hit_numbers(index, "lexical", where("free in (1.00)")) == ones
    )
    assert hit_numbers(index, "dense", where("free = '1'")) == set()
    assert hit_numbers(index, "dense", where("free > 1")) == {n for n, r in things.items() if (r["free"] or 0) > 1}


INJECTIONS = [
    "' OR '1'='1", "x') OR TRUE --", "'; DROP TABLE kb; --", '"}}]}},{"match_all":{}}', '{"$gt": ""}', "$where", "*",
    "name:* OR _exists_:name", "%(filter_0)s", "{}", "%s", "\\", "a\x00b",
]  # fmt: skip


def test_what_is_asked_for_is_never_part_of_the_query(index: Index, things: dict[int, dict[str, Any]]) -> None:
    for text in INJECTIONS:
        quoted = written(text)
        for path in (("name",), ("doc", "k"), ("tags",)):
            expected = {number for number, row in things.items() if holds(row, path, "=", [text])}
            for way, condition in zip(
                WAYS, (f"{'.'.join(path)} = {quoted}", f"{'.'.join(path)} in ({quoted})"), strict=True
            ):
                assert hit_numbers(index, way, where(condition)) == expected, condition
        odd = text.replace('"', '""')
        assert hit_numbers(index, "lexical", where(f'doc."{odd}" is not null')) == set()
        assert hit_numbers(index, "dense", Filters((text,))) == set()
        assert (
            hit_numbers(index, "lexical", Filters(access=(Grant((text,), where("name is not null").conditions),)))
            == set()
        )
    assert hit_numbers(index, "dense", where("name is not null")) == {
        n for n, r in things.items() if r["name"] is not None
    }


def test_what_passes_no_more_is_not_live_for_who_asks(sink: Sink, index: Index) -> None:
    rows = Rows(sink)
    rows.put(1, {"name": "acme", "body": "row of acme"})
    (hit,) = index.dense(QUESTION, 5, where("name = acme"))
    assert index.live([hit.chunk_id], where("name = acme")) == {hit.chunk_id}
    assert index.live([hit.chunk_id], where("name = globex")) == set()
    rows.put(1, {"name": "globex", "body": "row of acme"})
    assert index.live([hit.chunk_id], where("name = acme")) == set()
    assert index.live([hit.chunk_id], where("name = globex")) == {hit.chunk_id} == index.live([hit.chunk_id])
    assert index.live([hit.chunk_id], Filters(access=())) == set()
