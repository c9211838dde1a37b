"""A document's metadata as terms of an inverted index, and what a condition requires of them. Pure.

A term is the digest of a path, a letter for the kind of value, and the value as ordered text (`transforms.filters.ordered`): so
equality is a term, and an order a range of terms, in any store. One text is several terms where it reads as several kinds
(a text, a moment). Members of a JSON object have paths of their own, the elements of an array have the array's path. A text that
reads as a JSON array stays a text, as a tenant may be called `["acme"]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from transforms.filters import ordered
from transforms.filters.conditions import Condition
from transforms.values import exact_json

FORM = 1
"""Raised with the form of terms: it is part of a document spec's digest, so that older documents count as outdated."""

MOST_MEMBERS = 1_000
"""Terms of one JSON column; of a larger one no member is known, and no condition on a member holds."""
MOST_JSON = 262_144
"""Characters of a JSON column whose members are known."""
MOST_LEVELS = 100
"""Levels of nesting in a JSON column whose members are known."""

_NULL, _PRESENT, _MEMBERS = "0", "!", "j"
"""Marks of a path: NULL, not NULL, and a column whose members are terms."""
_ABOVE, _NEXT = "~", " "
"""Above every character of a value; below every one."""


class Span(NamedTuple):
    """Terms from `first` on and below `end`; None: `first` alone."""

    first: str
    end: str | None = None


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a document's terms must be for a condition to hold: one in any of these spans, and none in those."""

    any_of: tuple[Span, ...]
    none_of: tuple[Span, ...] = ()


class _TooManyError(Exception):
    """A JSON column has more members than are kept."""


def terms_of(metadata: Mapping[str, Any], unresolved: Collection[str] = ()) -> list[str]:
    """The terms of a document, sorted. A column without a known value has none: it is neither NULL nor anything else (I3)."""
    terms: set[str] = set()
    for name, value in metadata.items():
        if value is None:
            terms |= set() if name in unresolved else {_prefix((name,)) + _NULL}
            continue
        terms.update(_of_value((name,), value))
        try:
            terms |= _of_members((name,), value)
        except _TooManyError:
            continue
    return sorted(terms)


def requirement(condition: Condition) -> Requirement:
    """What a condition requires. NULL and an absent column satisfy no comparison, `!=` included."""
    prefix = _prefix(condition.path)
    present = Span(prefix + _PRESENT)
    if condition.operator == "is not null":
        return Requirement((present,))
    if condition.operator == "is null":
        column = _prefix(condition.path[:1])
        if len(condition.path) == 1:
            return Requirement((Span(column + _NULL),))
        return Requirement((Span(column + _NULL), Span(column + _MEMBERS)), (present,))
    if condition.operator == "!=":
        return Requirement((present,), tuple(Span(prefix + value.kind + value.key) for value in condition.values))
    spans = (_span(prefix + value.kind, value.key, condition.operator) for value in condition.values)
    return Requirement(tuple(dict.fromkeys(spans)))


def _span(prefix: str, key: str, operator: str) -> Span:
    match operator:
        case "<":
            return Span(prefix, prefix + key)
        case "<=":
            return Span(prefix, prefix + key + _NEXT)
        case ">":
            return Span(prefix + key + _NEXT, prefix + _ABOVE)
        case ">=":
            return Span(prefix + key, prefix + _ABOVE)
        case _:
            return Span(prefix + key)


@lru_cache(maxsize=4096)
def _prefix(path: tuple[str, ...]) -> str:
    """96 bits of the path's digest: of any length and any characters, it takes as much of a term."""
    return hashlib.sha256(exact_json.dumps(list(path)).encode()).hexdigest()[:24]


def long_text(text: str) -> str:
    """The key of a text that is longer than what is kept of it, for equality."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _of_value(path: tuple[str, ...], value: Any) -> Iterator[str]:
    """The terms of a value itself; of a list those of its elements too."""
    prefix = _prefix(path)
    yield prefix + _PRESENT
    if isinstance(value, bool):
        yield f"{prefix}b{int(value)}"
    elif isinstance(value, int | Decimal):
        yield f"{prefix}n{ordered.of_number(value)}"
    elif isinstance(value, float):
        yield f"{prefix}n{ordered.of_number(Decimal(repr(value)))}"
    elif isinstance(value, str):
        yield from (prefix + kind + key for kind, key in _readings(value))
    elif isinstance(value, list):
        for element in _elements(value, 0):
            yield from _of_value(path, element)


def _elements(values: list[Any], level: int) -> Iterator[Any]:
    """The scalars of an array, those of arrays within it too."""
    for value in values:
        if isinstance(value, list):
            yield from _elements(value, level + 1) if level < MOST_LEVELS else ()
        elif value is not None and not isinstance(value, dict):
            yield value


def _readings(text: str) -> Iterator[tuple[str, str]]:
    """A text as every kind of value that it reads as."""
    yield "s", ordered.of_text(text)
    if not ordered.fits(text):
        yield "h", long_text(text)
        return
    if special := ordered.of_special(text):
        yield "n", special
        yield "t", special
    elif moment := ordered.of_moment(text):
        yield "t", moment
    elif time := ordered.of_time(text):
        yield "c", time


def _of_members(path: tuple[str, ...], value: Any) -> set[str]:
    """The terms of all members of a JSON value, which a source writes as text; none for any other value."""
    if isinstance(value, str):
        value = _parsed(value)
    if not isinstance(value, dict | list):
        return set()
    terms = {_prefix(path) + _MEMBERS}
    for term in _nested(path, value, 0):
        terms.add(term)
        if len(terms) > MOST_MEMBERS:
            raise _TooManyError
    return terms


def _parsed(text: str) -> Any:
    if text[:1] not in {"{", "["} or len(text) > MOST_JSON:
        return None
    try:
        return exact_json.loads(text)
    except (ValueError, RecursionError):
        return None


def _nested(path: tuple[str, ...], value: Any, level: int) -> Iterator[str]:
    if level > MOST_LEVELS:
        raise _TooManyError
    if isinstance(value, list):
        for element in value:
            yield from _nested(path, element, level + 1)
    elif isinstance(value, dict):
        for name, member in value.items():
            inner = (*path, name)
            if member is not None:
                yield from _of_value(inner, member)
                yield from _nested(inner, member, level + 1)
