"""The columns of one record in canonical form. A column that does not fit its type is left out alone; the others stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from schemas.changes import Change, Reject
from transforms.values.encodings import Convert
from transforms.values.times import OutOfRangeError

MAX_DEPTH = 100
"""Levels of nesting in one value, as many as MongoDB takes in a document; a deeper value is a reject."""
_NESTED = frozenset({list, dict})
UNFIT = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError)
"""What a converter raises for a value that is not of its type."""


class Columns(NamedTuple):
    """Values by column, and the reason by column that does not fit; a column is in one of the two."""

    values: dict[str, Any]
    unfit: dict[str, str]


def converted(row: dict[str, Any], *converters: Mapping[str, Convert]) -> Columns:
    """Apply each mapping of converters in turn to the values that are not NULL; the row itself is changed."""
    values, unfit = row, dict[str, str]()
    for name in deep(row):
        del values[name]
        unfit[name] = f"is nested deeper than {MAX_DEPTH} levels"
    for by_name in converters:
        for name, convert in by_name.items():
            value = values.get(name)
            if value is None:
                continue
            try:
                values[name] = convert(value)
            except UNFIT as error:
                del values[name]
                unfit[name] = (
                    str(error)
                    if isinstance(error, OutOfRangeError)
                    else f"does not fit its type: {type(error).__name__}"
                )
    return Columns(values, unfit)


def deep(row: Mapping[str, Any]) -> list[str]:
    """The columns whose values are nested too deep for what reads them later."""
    if _NESTED.isdisjoint(map(type, row.values())):
        return []
    return [name for name, value in row.items() if isinstance(value, (list, dict)) and _is_deep(value)]


def _is_deep(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [part for outer in level for part in _nested_parts(outer)]
        if not level:
            return False
    return True


def _nested_parts(outer: Any) -> Iterable[Any]:
    parts = outer.values() if isinstance(outer, dict) else outer
    return () if _NESTED.isdisjoint(map(type, parts)) else [part for part in parts if isinstance(part, (list, dict))]


def key_reject(table: str, keys: Iterable[str], unfit: Mapping[str, str]) -> Reject | None:
    """The reject of a record with a key column that does not fit: it names no row. None where all key columns fit."""
    return next((_reject(table, name, unfit[name]) for name in keys if name in unfit), None)


def column_rejects(change: Change, unfit: Mapping[str, str]) -> tuple[Reject, ...]:
    """A reject for each column that a change lacks because its value does not fit; no message contains a value."""
    return tuple(
        _reject(change.table, name, why, column=name, key=change.key, sequence=change.sequence)
        for name, why in unfit.items()
    )


def _reject(table: str, name: str, why: str, **place: str) -> Reject:
    return Reject("BAD_VALUE", f"a value of column {name} of {table} {why}", table, **place)
