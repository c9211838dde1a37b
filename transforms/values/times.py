"""Dates and times as connectors encode them, as ISO 8601 text; infinity stays infinity in each of their encodings.

Encodings and their infinities are Debezium's (`io.debezium.time`, `PostgresValueConverter`) and pgjdbc's (`PGStatement`).
A year is astronomical and has four digits or, beyond 9999, a plus.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

import numpy as np


class OutOfRangeError(ValueError):
    """A number that its announced type, or its source, cannot have; the message holds no value."""


MILLIS, MICROS, NANOS = 1_000, 1_000_000, 1_000_000_000
"""Units in a second."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_INFINITY, _MINUS_INFINITY = "infinity", "-infinity"
_LAST = 2**63 - 1
_INFINITE_US = {9_223_372_036_825_200_000: _INFINITY, -9_223_372_036_832_400_000: _MINUS_INFINITY}
"""pgjdbc's two moments, taken for microseconds."""
_INFINITE = {
    MILLIS: {us // 1000: text for us, text in _INFINITE_US.items()},
    MICROS: _INFINITE_US,
    NANOS: {
        _LAST: _INFINITY, -(2**63): _MINUS_INFINITY,
        -29_575_808_000: _INFINITY, 22_375_808_000: _MINUS_INFINITY,  # Debezium 3.5: the microseconds, wrapped around
    },
}  # fmt: skip
_INFINITE_DAYS = {
    -2_147_472_692: _INFINITY, -2_147_472_691: _MINUS_INFINITY,
    -622_191_234: _INFINITY, -622_191_233: _INFINITY, -625_821_272: _MINUS_INFINITY, -625_821_271: _MINUS_INFINITY,
}  # fmt: skip
"""Of a streamed date; and of a date in a snapshot, where pgjdbc's moments are days of the worker's time zone, cut to 32 bits."""
_INFINITE_TEXT = {
    "+294247-01-10T04:00:25.2": _INFINITY, "-290308-12-21T19:59:27.6": _MINUS_INFINITY,
    "-5877611-06-21": _INFINITY, "-5877611-06-22": _MINUS_INFINITY,
    "+292278994-08-16": _INFINITY, "+292278994-08-17": _INFINITY,
    "+292269055-12-02": _MINUS_INFINITY, "+292269055-12-03": _MINUS_INFINITY,
}  # fmt: skip
"""The same moments and days where `time.precision.mode` is `isostring`."""
_BEFORE_THE_FIRST_YEAR = 1900
_LONG_YEAR = re.compile(r"\d{5,}-")


def moment(micros: int) -> dt.datetime:
    """Microseconds since the epoch as a datetime in UTC, exactly: by way of a float the year 9999 ends too late.

    Raises OverflowError outside the years 1 to 9999.
    """
    return _EPOCH + dt.timedelta(microseconds=micros)


def iso(value: Any) -> Any:
    """Text of a date or time in UTC without the zone, which the column does not have."""
    if not isinstance(value, str):
        return value
    text = value.removesuffix("Z")
    return _INFINITE_TEXT.get(text, text)


def date_from_days(value: Any) -> Any:
    """Days since the epoch to ISO text; raises OutOfRangeError for a number that is wider than the 32 bits of its type."""
    if type(value) is not int:
        return iso(value)
    if not -(2**31) <= value < 2**31:
        raise OutOfRangeError("is wider than 32 bits")
    return _INFINITE_DAYS.get(value) or _with_sign(str(np.datetime64(value, "D")))


def year(value: Any) -> Any:
    """MySQL's and MariaDB's YEAR: 1901 to 2155, and 0000, for which their binary log's byte 0 comes as 1900."""
    return 0 if value == _BEFORE_THE_FIRST_YEAR else value


def timestamp_from(unit: int) -> Callable[[Any], Any]:
    """Units since the epoch to ISO text without a zone.

    Raises OutOfRangeError for a number wider than 64 bits, and for the microseconds at their ends: there the connector had
    a finite time that does not fit (`TimeUnit.toMicros` stops at the last one, and a fraction added to it wraps around).
    """
    infinite = _INFINITE[unit]

    def convert(value: Any) -> Any:
        if type(value) is not int:
            return iso(value)
        if value in infinite:
            return infinite[value]
        _require_64_bits(value)
        if unit == MICROS and (value == _LAST or value < MICROS - _LAST):
            raise OutOfRangeError("is later than the connector can tell in microseconds")
        seconds, rest = divmod(value, unit)
        return _with_sign(str(np.datetime64(seconds, "s"))) + _fraction(rest, unit)

    return convert


def time_from(unit: int) -> Callable[[Any], Any]:
    """Units of a time of day, or of a signed duration of any length (MySQL's TIME), to `[-]hh:mm:ss` and a fraction."""

    def convert(value: Any) -> Any:
        if type(value) is not int:
            return iso(value)
        _require_64_bits(value)
        seconds, rest = divmod(abs(value), unit)
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        return ("-" if value < 0 else "") + clock + _fraction(rest, unit)

    return convert


def _require_64_bits(value: int) -> None:
    if not -_LAST <= value <= _LAST:
        raise OutOfRangeError("is wider than 64 bits")


def _fraction(rest: int, unit: int) -> str:
    """Six digits, or nine where microseconds are not enough."""
    if not rest:
        return ""
    nanos = rest * (NANOS // unit)
    return f".{nanos // 1000:06d}" if nanos % 1000 == 0 else f".{nanos:09d}"


def _with_sign(text: str) -> str:
    """ISO 8601 wants four digits of a year, and a sign before more; numpy counts a minus among the four."""
    if text.startswith("-"):
        return f"-{text[1:].zfill(len(text))}" if text[4] == "-" else text
    return f"+{text}" if _LONG_YEAR.match(text) else text
