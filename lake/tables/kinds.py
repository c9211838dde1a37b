"""Which column type holds the values of two. Pure."""

from __future__ import annotations

import re

_DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")
_INTEGERS = ("smallint", "int", "bigint")
_INTEGER_DIGITS = {"smallint": 5, "int": 10, "bigint": 19}
_EXACT_IN = {
    ("smallint", "float"): "float", ("int", "float"): "double", ("smallint", "double"): "double", ("int", "double"): "double",
}  # fmt: skip
"""Binary floating point numbers that hold an integer, and the other type, exactly."""


def decimal_digits(kind: str) -> tuple[int, int] | None:
    """Precision and scale of a decimal type; None for another type."""
    decimal = _DECIMAL.fullmatch(kind)
    return (int(decimal[1]), int(decimal[2])) if decimal else None


def wider(one: str, other: str) -> str:
    """The narrowest type that holds all values of two; text where there is no other."""
    if one == other:
        return one
    if one in _INTEGERS and other in _INTEGERS:
        return max(one, other, key=_INTEGERS.index)
    if {one, other} == {"float", "double"}:
        return "double"
    if floating := _EXACT_IN.get((one, other)) or _EXACT_IN.get((other, one)):
        return floating
    digits = _digits_of(one), _digits_of(other)
    if digits[0] and digits[1]:
        whole, scale = max(digits[0][0], digits[1][0]), max(digits[0][1], digits[1][1])
        return f"decimal({whole + scale},{scale})" if whole + scale <= 38 else "string"
    return "string"


def _digits_of(kind: str) -> tuple[int, int] | None:
    """Digits before and after the point; integers have none after it."""
    if kind in _INTEGER_DIGITS:
        return _INTEGER_DIGITS[kind], 0
    digits = decimal_digits(kind)
    return (digits[0] - digits[1], digits[1]) if digits else None
