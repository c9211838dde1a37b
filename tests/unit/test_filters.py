"""Conditions on metadata: how they are written, what they are typed as, and values as ordered text."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from sinks.documentdb import filtering as documentdb
from sinks.opensearch import filtering as opensearch
from sinks.pgvector.filtering import Filtering
from sinks.search import Filters
from transforms.filters import ordered
from transforms.filters.parsing import FORM, MOST_CHARACTERS, MOST_VALUES, Filterable, parse
from transforms.filters.terms import MOST_MEMBERS, Span, requirement, terms_of

COLUMNS = Filterable({
    "public.tickets": {
        "status": "text", "price": "decimal(10,2)", "open": "boolean", "at": "timestamptz", "attrs": "json", "uid": "uuid",
        "raw": "bytes", "clock": "time", "free": None, "odd column": None, "a.b": "int", "tags": "array<int>",
    },
    "public.articles": {"status": "int", "area": "text"},
    "public.plain": {},
})  # fmt: skip


def lets_through(condition: str, metadata: Mapping[str, Any], tables: tuple[str, ...] = ("public.tickets",)) -> bool:
    """Whether the terms of a document are those that a condition requires."""
    terms, needed = terms_of(metadata), requirement(parse(condition, COLUMNS, tables))

    def within(spans: tuple[Span, ...]) -> bool:
        return any(term == first if end is None else first <= term < end for first, end in spans for term in terms)

    return within(needed.any_of) and not within(needed.none_of)


numbers = st.one_of(
    st.integers(-(10**40), 10**40),
    st.decimals(allow_nan=False, allow_infinity=False, places=30),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda number: Decimal(repr(number))),
    st.sampled_from([Decimal("1E+400"), Decimal("-1E-400"), 10**300, Decimal("0E+5"), Decimal("-0")]),
)


@given(numbers, numbers)
def test_numbers_have_the_order_of_their_ordered_text(one: Decimal, other: Decimal) -> None:
    assert (ordered.of_number(one) < ordered.of_number(other)) == (one < other)
    assert (ordered.of_number(one) == ordered.of_number(other)) == (one == other)


def test_a_number_of_too_many_digits_is_still_in_its_place() -> None:
    long, near = 10**300 + 1, 10**300
    for sign in (1, -1):
        texts = [ordered.of_number(Decimal(sign * n)) for n in (near - 10**102, near, long, near + 10**102)]
        assert texts == sorted(texts, reverse=sign < 0)
        assert len(set(texts)) == 4
    assert sorted(map(ordered.of_number, map(Decimal, ("NaN", "Infinity", "0", "-Infinity", "-1")))) == [
        ordered.of_number(Decimal(text)) for text in ("-Infinity", "-1", "0", "Infinity", "NaN")
    ]


@given(st.text(max_size=199), st.text(max_size=300))
def test_texts_have_the_order_of_their_code_points(asked: str, stored: str) -> None:
    assert (ordered.of_text(stored) < ordered.of_text(asked)) == (stored < asked)
    assert (ordered.of_text(stored) == ordered.of_text(asked)) == (stored == asked)


moments = st.datetimes(timezones=st.timezones() | st.just(dt.UTC)).filter(lambda m: 1 < m.year < 9999)


@given(moments, moments)
def test_moments_have_the_order_of_their_instants(one: dt.datetime, other: dt.datetime) -> None:
    texts = [ordered.of_moment(moment.isoformat()) for moment in (one, other)]
    assert (str(texts[0]) < str(texts[1])) == (one < other)
    assert (texts[0] == texts[1]) == (one == other)


def test_dates_and_moments_that_python_does_not_know_are_in_order_too() -> None:
    texts = [
        "-0044-03-15", "0000-12-31", "0001-01-01T00:00:00", "1969-12-31T23:59:59.999999999", "1970-01-01",
        "1970-01-01T00:00:00.000000001", "9999-12-31", "+12345-01-01T00:00:00Z",
    ]  # fmt: skip
    keys = [ordered.of_moment(text) for text in texts]
    assert None not in keys
    assert keys == sorted(keys, key=str)
    assert str(ordered.of_special("-infinity")) < str(keys[0]) < str(keys[-1]) < str(ordered.of_special("infinity"))
    clocks = [
        ordered.of_time(text)
        for text in ("-838:59:59", "-00:00:01", "00:00:00", "12:00:00+01:00", "12:00:00Z", "838:59:59")
    ]
    assert None not in clocks
    assert clocks == sorted(clocks, key=str)
    for text in (
        "2026-13-01",
        "2026-1-1",
        "26-01-01",
        "2026-01-01T",
        "2026-01-01 x",
        "noon",
        "",
        "12:61:00",
        "1:00:00",
    ):
        assert ordered.of_moment(text) is None
        assert ordered.of_time(text) is None


TYPED = [
    ("status = open", {"status": "open"}, True),
    ("status = 'it''s'", {"status": "it's"}, True),
    ('status = "say ""x"""', {"status": 'say "x"'}, True),
    ("status = 10", {"status": "10"}, True),
    ("status = 10", {"status": "10.0"}, False),
    ("status < 9", {"status": "10"}, True),
    ("price = '10'", {"price": Decimal("10.00")}, True),
    ("price < 9", {"price": Decimal("10.00")}, False),
    ("price > 1e1", {"price": "NaN"}, True),
    ("price > 1e1", {"price": "Infinity"}, True),
    ("OPEN = true".replace("OPEN", "open"), {"open": True}, True),
    ("open != TRUE", {"open": False}, True),
    ("open = true", {"open": 1}, False),
    ("at >= 2026-11-29", {"at": "2026-11-29T00:30:00+01:00"}, False),
    ("at = '2026-11-29 12:00:00'", {"at": "2026-11-29T12:00:00Z"}, True),
    ("at < 2026-11-29T12:00:00.5Z", {"at": "2026-11-29T12:00:00Z"}, True),
    ("at < infinity", {"at": "2026-11-29T12:00:00Z"}, True),
    ("clock >= 09:30", {"clock": "09:30:00"}, True),
    ("uid = 0A0B0C0D-0000-4000-8000-000000000001", {"uid": "0a0b0c0d-0000-4000-8000-000000000001"}, True),
    ("free >= 2026-11-29", {"free": "2026-11-29T12:00:00Z"}, True),
    ("free = 2026-11-29", {"free": "2026-11-29"}, True),
    ("free = 7", {"free": 7}, True),
    ("free = 7", {"free": "7"}, True),
    ("free = '7'", {"free": 7}, False),
    ("free <> 7", {"free": 8}, True),
    ("free != 7", {"free": None}, False),
    ("free is null", {"free": None}, True),
    ("free is null", {"status": "open"}, False),
    ("free IS NOT NULL", {"free": 0}, True),
    ("tags = 2", {"tags": [1, 2]}, True),
    ("tags != 2", {"tags": [1, 2]}, False),
    ("tags is not null", {"tags": []}, True),
    ('"odd column" in (a, \'b c\', "d")', {"odd column": "b c"}, True),
    ('"a.b" = 1', {"a.b": 1}, True),
    ("attrs.color = red", {"attrs": '{"color": "red"}'}, True),
    ("attrs.color = red", {"attrs": {"color": "red"}}, True),
    ("attrs.color = red", {"attrs": "red"}, False),
    ("attrs.size > 9", {"attrs": '{"size": 10.5}'}, True),
    ("attrs.size > 9", {"attrs": '{"size": "10.5"}'}, False),
    ("attrs.size = '10'", {"attrs": '{"size": 10}'}, False),
    ("attrs.a.b = 1", {"attrs": '{"a": {"b": 1}}'}, True),
    ('attrs."a.b" = 1', {"attrs": '{"a": {"b": 1}}'}, False),
    ('attrs."a.b" = 1', {"attrs": '{"a.b": 1}'}, True),
    ("attrs.a.b = 2", {"attrs": '{"a": [{"b": 1}, {"b": 2}]}'}, True),
    ("attrs.a is null", {"attrs": '{"a": null}'}, True),
    ("attrs.a is null", {"attrs": '{"a": {}}'}, False),
    ("attrs.a is null", {"attrs": None}, True),
    ("attrs.a != 1", {"attrs": "{}"}, False),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "metadata", "passes"), TYPED)
def test_a_condition_compares_by_the_type_of_the_column(condition: str, metadata: dict[str, Any], passes: bool) -> None:  # noqa: FBT001
    assert lets_through(condition, metadata) == passes


def test_a_text_that_reads_as_a_list_is_none_of_its_elements() -> None:
    assert not lets_through("free = acme", {"free": '["acme"]'})
    assert not lets_through("status = acme", {"status": '["acme"]'})
    assert lets_through("""status = '["acme"]'""", {"status": '["acme"]'})


def test_of_a_json_column_with_too_many_members_none_is_known() -> None:
    big = json.dumps({f"m{n}": n for n in range(MOST_MEMBERS)})
    deep = '{"m1":' * 150 + "1" + "}" * 150
    for text in (big, deep, '{"m1": 1', '{"m1": 1}' + " " * 300_000):
        assert not lets_through("attrs.m1 = 1", {"attrs": text})
        assert not lets_through("attrs.m1 is null", {"attrs": text})
        assert lets_through("attrs is not null", {"attrs": text})
        assert len(terms_of({"attrs": text})) < 10


def test_a_column_of_two_types_is_compared_as_either() -> None:
    both = ("public.tickets", "public.articles")
    assert lets_through("status = 7", {"status": 7}, both)
    assert lets_through("status = 7", {"status": "7"}, both)
    assert lets_through("status = open", {"status": "open"}, both)


REFUSED = [
    ("nothing = 1", "keeps 'nothing' as metadata.*public.tickets: status.*document.metadata"),
    ("area = 1", "keeps 'area'"),
    ("price = cheap", r"decimal\(10,2\) in public.tickets"),
    ("price in (1, cheap)", "decimal"),
    ("open = maybe", "boolean"),
    ("at > yesterday", "timestamptz"),
    ("raw > aaaa", "no order"),
    ("uid > 0a0b0c0d-0000-4000-8000-000000000001", "uuid"),
    ("uid = zz", "uuid"),
    ("attrs = 1", "name a member: `attrs.NAME"),
    ("price.cents = 1", "has no members"),
    ("status > " + "x" * 200, "200 characters"),
    ("price = " + "1" * 250, "decimal"),
    ("status = null", "nothing equals NULL"),
    ("status = open or 1=1", "no comparison with one value"),
    ("status = 'open", "quote that does not end"),
    ("status", "no comparison"),
    ("status in ()", "list of values"),
    ("status in (a b)", "list of values"),
    ("status in (a,)", "list of values"),
    ("= open", "begins with no column"),
    ("", "begins with no column"),
    ("1=1", "begins with no column"),
    ("status like open", "no comparison"),
    ("status = " + "x" * MOST_CHARACTERS, "10000 are taken"),
    ("status in (" + ", ".join(["a"] * (MOST_VALUES + 1)) + ")", "1000 are taken"),
]


@pytest.mark.parametrize(("condition", "said"), REFUSED)
def test_what_is_no_condition_is_refused_with_what_to_write(condition: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match="(?s)" + said) as raised:
        parse(condition, COLUMNS, ("public.tickets",))
    assert raised.value.condition == "FILTER_INVALID"
    assert raised.value.hint
    assert "cheap" not in str(raised.value)


@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        parse(text, COLUMNS)
    except ConfigurationError as error:
        assert error.hint or FORM  # noqa: PT017 - refused is as good as parsed


@given(st.text(max_size=300))
@example("imum_")  # a part of OpenSearch's own `minimum_should_match`
def test_a_value_is_never_part_of_a_query(text: str) -> None:
    condition = parse("status = '" + text.replace("'", "''") + "'", COLUMNS, ("public.tickets",))
    filters = Filters((), (condition,))
    harmless = Filters((), (parse("status = a", COLUMNS, ("public.tickets",)),))
    assert Filtering(filters).condition == Filtering(harmless).condition
    shown, form = (
        [str(f), json.dumps(opensearch.clauses(f)), json.dumps(documentdb.conditions(f))] for f in (filters, harmless)
    )
    assert all(part.isascii() and part.isprintable() for part in shown[1:])
    if len(text) > 4:
        assert text not in "".join(shown) or text in "".join(form) or text.isalnum()
