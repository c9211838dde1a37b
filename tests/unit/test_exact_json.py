"""Exact JSON: one text for a value, whichever library renders it, and the same value back."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import simplejson
from hypothesis import given
from hypothesis import strategies as st

from transforms.values import exact_json

TEXTS = st.text(st.characters(exclude_categories=()), max_size=8) | st.sampled_from(["\x7f", "\u2028", "\ud800", "\0"])
LEAVES = st.none() | st.booleans() | st.integers() | st.integers(-(2**70), 2**70) | st.decimals() | TEXTS
VALUES = st.recursive(LEAVES, lambda some: st.lists(some, max_size=4) | st.dictionaries(TEXTS, some, max_size=4))


@given(VALUES, st.booleans(), st.booleans())
def test_a_text_is_what_simplejson_renders(value: Any, ascii_only: bool, sort_keys: bool) -> None:  # noqa: FBT001
    rendered = simplejson.dumps(
        value, use_decimal=True, separators=(",", ":"), ensure_ascii=ascii_only, sort_keys=sort_keys
    )
    assert exact_json.dumps(value, ascii_only=ascii_only, sort_keys=sort_keys) == rendered


@pytest.mark.parametrize(
    "text",
    ["1.50", "1E+400", "-0.0", str(2**80), '"\\u0000\\ud800\\u007f"', '{"":[[],{},null,true]}', "[" * 300 + "]" * 300],
)
def test_what_was_read_is_written_as_it_was(text: str) -> None:
    assert exact_json.dumps(exact_json.loads(text)) == text


def test_a_number_no_decimal_holds_stays_text() -> None:
    assert exact_json.loads("[1e9999999999999999999, 1.0]") == ["1e9999999999999999999", Decimal("1.0")]


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError):
        exact_json.dumps({"a": object()})


@pytest.mark.parametrize(
    "number", ["1e1000000", "1e-1000000", "0." + "3" * 20_000, "9" * 131_073, "1." + "3" * 15_500 + "e-900"]
)
def test_a_number_beyond_numeric_is_text_with_all_its_digits(number: str) -> None:
    value = exact_json.loads(f'{{"n":[{number}]}}')
    (stored,) = exact_json.loads(exact_json.storable(value))["n"]
    assert isinstance(stored, str)
    assert Decimal(stored) == Decimal(number)


@pytest.mark.parametrize("number", ["1e1000", "0." + "3" * 14_000, "9" * 4_300])
def test_a_number_that_numeric_holds_is_a_number(number: str) -> None:
    (stored,) = exact_json.loads(exact_json.storable([exact_json.loads(number)]))
    assert not isinstance(stored, str)
    assert Decimal(stored) == Decimal(number)
