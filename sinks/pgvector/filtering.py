"""Filters as conditions of a statement on a document row `d`, their values bound. Pure."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

from psycopg import sql

from sinks.search import Filters
from transforms.filters.conditions import Condition
from transforms.filters.terms import Span, requirement
from transforms.values import exact_json


class Filtering:
    """A condition in SQL, and the parameters it names; they go beside those of the statement it is part of."""

    def __init__(self, filters: Filters) -> None:
        self.filters = filters
        self.values: dict[str, Any] = {}
        self.is_empty = filters.access is None and not filters.tables and not filters.conditions
        """Whether every document passes."""
        self.is_among = False
        """Whether it is on named documents alone."""
        parts = [self._of_table(filters.tables)] if filters.tables else []
        parts += [self._holds(condition) for condition in filters.conditions]
        if filters.access is not None:
            grants = [
                _all([self._of_table(grant.tables), *map(self._holds, grant.conditions)]) for grant in filters.access
            ]
            parts.append(_any(grants))
        self.condition = _all(parts)

    def among(self, document_ids: list[str]) -> Filtering:
        """The same filter, on these documents alone."""
        narrowed = copy(self)
        narrowed.values, narrowed.is_among, narrowed.is_empty = {**self.values, "among": document_ids}, True, False
        named = sql.SQL("d.document_id = ANY({})").format(sql.Placeholder("among"))
        narrowed.condition = _all([named, self.condition])
        return narrowed

    def _of_table(self, tables: Sequence[str]) -> sql.Composed:
        return sql.SQL("d.table_name = ANY({})").format(self._bound([exact_json.printable(table) for table in tables]))

    def _holds(self, condition: Condition) -> sql.Composed:
        needed = requirement(condition)
        parts = [self._has(needed.any_of)]
        if needed.none_of:
            parts.append(sql.SQL("NOT {}").format(self._has(needed.none_of)))
        return _all(parts)

    def _has(self, spans: Sequence[Span]) -> sql.Composed:
        """Whether the row has a term in any of these spans: single terms by the index, ranges by a look at the row's own.

        The column's collation is "C": its elements compare as bytes.
        """
        exact = [span.first for span in spans if span.end is None]
        parts = [sql.SQL("d.metadata_terms && {}::text[]").format(self._bound(exact))] if exact else []
        for first, end in (span for span in spans if span.end is not None):
            within = "EXISTS (SELECT FROM unnest(d.metadata_terms) AS term WHERE term >= {} AND term < {})"
            parts.append(sql.SQL(within).format(self._bound(first), self._bound(end)))
        return _any(parts)

    def _bound(self, value: Any) -> sql.Placeholder:
        name = f"filter_{len(self.values)}"
        self.values[name] = value
        return sql.Placeholder(name)


@functools.lru_cache(maxsize=512)
def filtering_of(filters: Filters) -> Filtering:
    """The same filters are the same condition: searches of one caller have few."""
    return Filtering(filters)


def _all(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL("({})").format(sql.SQL(" AND ").join([sql.SQL("TRUE"), *parts]))


def _any(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL("({})").format(sql.SQL(" OR ").join([sql.SQL("FALSE"), *parts]))
