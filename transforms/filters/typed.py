"""What a written value means for a column: by the column's canonical type, or as it is written where none is declared. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from transforms.filters import ordered
from transforms.filters.conditions import Value
from transforms.filters.terms import long_text

UNKNOWN = "any"
"""The canonical type of a column that the configuration declares no type for."""
EQUALITY_ALONE = frozenset({"bytes", "bits", "interval", "uuid"})
"""Types whose values have no order that their text would show."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,5})?", re.ASCII)
_CANONICAL_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_BOOLEANS = {"true": Value("b", "1"), "false": Value("b", "0"), "t": Value("b", "1"), "f": Value("b", "0")}
_ARRAY = re.compile(r"array<(.+)>")
_NUMERIC = ("smallint", "int", "bigint", "numeric", "real", "double")


class Written(NamedTuple):
    """A value as it is written: a text in quotes, or a bare word."""

    text: str
    quoted: bool


def declared(canonical: str | None) -> str:
    """The type that decides: of an array that of its elements; `any` where none is declared."""
    elements = _ARRAY.fullmatch(canonical or UNKNOWN)
    return declared(elements[1]) if elements else (canonical or UNKNOWN)


def values_of(written: Written, canonical: str, *, ordering: bool) -> tuple[Value, ...]:
    """What a written value is compared as; nothing if it is none of the type's.

    Without a declared type a bare word is whatever it reads as, since all values of a column are of one type; a date or time in
    quotes is one, any other text in quotes is text.
    """
    if canonical in {UNKNOWN, "json"}:
        return _undeclared(written, ordering=ordering)
    convert = _number if canonical.startswith("decimal(") else _CONVERT.get(canonical, text_of)
    return convert(written.text)


def member_values(written: Written, *, ordering: bool) -> tuple[Value, ...]:
    """What a value is compared as with a member of a JSON column: JSON's own types, as it is written."""
    if not written.quoted:
        typed = _number(written.text) or _boolean(written.text)
        if typed:
            return typed
    return text_of(written.text) if ordered.fits(written.text) or not ordering else ()


def claim_values(claim: str | float | bool, canonical: str) -> tuple[Value, ...]:  # noqa: FBT001 - the claim itself
    """What a claim is compared as, by equality: a number or its text where no type is declared, as tokens write either."""
    if isinstance(claim, bool):
        text = "true" if claim else "false"
        return (Value("b", str(int(claim))), *text_of(text)) if canonical == UNKNOWN else _typed(text, canonical)
    text = claim if isinstance(claim, str) else str(claim) if isinstance(claim, int) else repr(claim)
    if canonical != UNKNOWN:
        return _typed(text, canonical)
    if not isinstance(claim, str):
        return (*_number(text), *text_of(text))
    return (*text_of(text), *(_number(text) if _CANONICAL_NUMBER.fullmatch(text) else ()))


def member_claim(claim: str | float | bool) -> tuple[Value, ...]:  # noqa: FBT001 - the claim itself
    """What a claim is compared as with a member of a JSON column: a value of its own JSON type."""
    if isinstance(claim, bool):
        return (Value("b", str(int(claim))),)
    return text_of(claim) if isinstance(claim, str) else _number(str(claim) if isinstance(claim, int) else repr(claim))


def text_of(text: str) -> tuple[Value, ...]:
    """A text of any length."""
    return (Value("s", ordered.of_text(text)) if ordered.fits(text) else Value("h", long_text(text)),)


def _typed(text: str, canonical: str) -> tuple[Value, ...]:
    return values_of(Written(text, quoted=True), canonical, ordering=False)


def _undeclared(written: Written, *, ordering: bool) -> tuple[Value, ...]:
    moment = _moment(written.text) or _time(written.text)
    exact = moment if written.quoted else moment or _number(written.text) or _boolean(written.text)
    if exact:
        return exact if ordering else (*exact, *text_of(written.text))
    return text_of(written.text) if ordered.fits(written.text) or not ordering else ()


def _number(text: str) -> tuple[Value, ...]:
    if special := _SPECIAL_NUMBERS.get(text):
        return (Value("n", special),)
    if not _NUMBER.fullmatch(text):
        return ()
    try:
        number = Decimal(text)
    except InvalidOperation:
        return ()
    return (Value("n", ordered.of_number(number)),) if ordered.number_fits(number) else ()


_SPECIAL_NUMBERS: Mapping[str, str] = {
    name: key for name in ("NaN", "Infinity", "-Infinity") if (key := ordered.of_special(name))
}


def _boolean(text: str) -> tuple[Value, ...]:
    value = _BOOLEANS.get(text.casefold())
    return (value,) if value else ()


def _moment(text: str) -> tuple[Value, ...]:
    key = ordered.of_special(text) if text in {"infinity", "-infinity"} else ordered.of_moment(text)
    return (Value("t", key),) if key else ()


def _time(text: str) -> tuple[Value, ...]:
    key = ordered.of_time(text)
    return (Value("c", key),) if key else ()


def _uuid(text: str) -> tuple[Value, ...]:
    return text_of(text.lower()) if _UUID.fullmatch(text) else ()


def _interval(text: str) -> tuple[Value, ...]:
    return (*_number(text), *text_of(text))


_CONVERT: Mapping[str, Callable[[str], tuple[Value, ...]]] = {
    **dict.fromkeys(_NUMERIC, _number), "boolean": _boolean, "uuid": _uuid, "interval": _interval,
    **dict.fromkeys(("date", "timestamp", "timestamptz"), _moment), **dict.fromkeys(("time", "timetz"), _time),
}  # fmt: skip
"""By canonical type (`transforms.values.types`); any other is text."""
