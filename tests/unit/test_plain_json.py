"""What metadata and keys hold is JSON that every store takes."""

from __future__ import annotations

from decimal import Decimal

import pytest

from sinks.plain_json import plain_json
from transforms.values import exact_json


@pytest.mark.parametrize(
    "number", ["1e1000000", "1e-1000000", "0." + "3" * 20_000, "9" * 131_073, "1." + "3" * 15_500 + "e-900"]
)
def test_a_number_beyond_numeric_is_text_with_all_its_digits(number: str) -> None:
    value = exact_json.loads(f'{{"n":[{number}]}}')
    (told,) = exact_json.loads(plain_json(value))["n"]
    assert isinstance(told, str)
    assert Decimal(told) == Decimal(number)


@pytest.mark.parametrize("number", ["1e1000", "0." + "3" * 14_000, "9" * 4_300])
def test_a_number_that_numeric_holds_is_a_number(number: str) -> None:
    (told,) = exact_json.loads(plain_json([exact_json.loads(number)]))
    assert not isinstance(told, str)
    assert Decimal(told) == Decimal(number)
