"""Canonical values as ASCII text that compares as the values do, byte by byte: what every store can search in an index. Pure.

Numbers compare by value whatever their spelling (1, 1.0, 1E+0), NaN above infinity as in PostgreSQL; moments by the instant, a
zone that is left out being UTC; texts by code points. Only so many characters or digits are kept of a value: a value that
is asked for has fewer (`fits`), and then the comparison is exact.
"""

from __future__ import annotations

import re
from decimal import Decimal

MOST_KEPT = 200
"""Characters of a text, or digits of a number, that are kept: a term stays below DocumentDB's 2,048 bytes of an index entry."""
_BIAS = 500_000
"""Added to exponents, so that they have no sign; PostgreSQL's numeric has 131,072 digits before the point."""
_NINES = str.maketrans("0123456789", "9876543210")
_SPECIAL = {"NaN": "f", "Infinity": "e", "-Infinity": "a", "infinity": "e", "-infinity": "a"}

_ZONE = r"(?P<zone>Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?"
_CLOCK = r"(?P<hour>\d{2,3}):(?P<minute>[0-5]\d)(?::(?P<second>[0-6]\d)(?:\.(?P<fraction>\d{1,9}))?)?"
_MOMENT = re.compile(
    rf"(?P<year>[+-]?\d{{4,7}})-(?P<month>0[1-9]|1[0-2])-(?P<day>0[1-9]|[12]\d|3[01])(?:[T ]{_CLOCK} ?{_ZONE})?",
    re.ASCII,
)
_TIME = re.compile(rf"(?P<sign>-?){_CLOCK}{_ZONE}", re.ASCII)
_NANOS = 1_000_000_000


def of_number(number: int | Decimal) -> str:
    """A finite or infinite number, or NaN."""
    exact = Decimal(number)
    if not exact.is_finite():
        return _SPECIAL["NaN" if exact.is_nan() else "-Infinity" if exact < 0 else "Infinity"]
    sign, digits, _ = exact.as_tuple()
    significant = "".join(map(str, digits)).rstrip("0")
    if not significant:
        return "c"
    exponent = max(0, min(2 * _BIAS - 1, exact.adjusted() + _BIAS))
    kept = significant[:MOST_KEPT]
    if not sign:
        return f"d{exponent:06d}{kept}"
    return f"b{2 * _BIAS - 1 - exponent:06d}{kept.translate(_NINES)}{'x' if len(significant) <= MOST_KEPT else ''}"


def of_text(text: str) -> str:
    """The first characters of a text."""
    return text[:MOST_KEPT].encode("utf-8", "surrogatepass").hex()


def of_special(text: str) -> str | None:
    """NaN and the infinities, which canonical numbers and moments spell as text; None for any other text."""
    return _SPECIAL.get(text)


def of_moment(text: str) -> str | None:
    """A date, or a time stamp with or without its zone (ISO 8601, as `transforms.values.times` has them); None if it is none."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        return None
    days = _days(int(match["year"]), int(match["month"]), int(match["day"]))
    nanos = _of_day(match) if match["hour"] else 0
    return of_number(days * 86_400 * _NANOS + nanos)


def of_time(text: str) -> str | None:
    """A time of day with or without its zone, or MySQL's signed duration; None if it is none."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    nanos = _of_day(match)
    return of_number(-nanos if match["sign"] else nanos)


def fits(text: str) -> bool:
    """Whether a text that is asked for is short enough to be compared by order."""
    return len(text) < MOST_KEPT


def number_fits(number: Decimal) -> bool:
    """Whether a number that is asked for has few enough digits."""
    return not number.is_finite() or len(number.as_tuple().digits) < MOST_KEPT


def _of_day(match: re.Match[str]) -> int:
    """Nanoseconds since midnight in UTC."""
    seconds = int(match["hour"]) * 3600 + int(match["minute"]) * 60 + int(match["second"] or 0)
    return (seconds - _offset(match["zone"] or "")) * _NANOS + int((match["fraction"] or "0").ljust(9, "0"))


def _offset(zone: str) -> int:
    digits = zone.lstrip("Z+-").replace(":", "").ljust(6, "0")
    seconds = int(digits[:2]) * 3600 + int(digits[2:4]) * 60 + int(digits[4:6])
    return -seconds if zone.startswith("-") else seconds


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 of any year of the proleptic Gregorian calendar (Hinnant, "Date Algorithms", `days_from_civil`)."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
