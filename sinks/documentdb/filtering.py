"""Filters as a query on documents in DocumentDB; values are values of the query's BSON, and never operators. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sinks.search import Filters
from transforms.filters.conditions import Condition
from transforms.filters.terms import Span, requirement

TERMS = "metadata_terms"
_NOTHING = {"_id": {"$in": list[str]()}}


def conditions(filters: Filters) -> dict[str, Any]:
    """A query that a visible document matches; it has no other key than `$and`, so it goes beside others."""
    parts = [_of_table(filters.tables)] if filters.tables else []
    parts += [part for condition in filters.conditions for part in _holds(condition)]
    if filters.access is not None:
        grants = [
            {"$and": [_of_table(grant.tables), *(part for condition in grant.conditions for part in _holds(condition))]}
            for grant in filters.access
        ]
        parts.append({"$or": grants} if grants else _NOTHING)
    return {"$and": parts} if parts else {}


def _of_table(tables: Sequence[str]) -> dict[str, Any]:
    return {"table": {"$in": list(tables)}}


def _holds(condition: Condition) -> list[dict[str, Any]]:
    needed = requirement(condition)
    alternatives = _spans(needed.any_of)
    conditions = [alternatives[0] if len(alternatives) == 1 else {"$or": alternatives}]
    return [*conditions, {"$nor": _spans(needed.none_of)}] if needed.none_of else conditions


def _spans(spans: Sequence[Span]) -> list[dict[str, Any]]:
    exact = [span.first for span in spans if span.end is None]
    ranges = [{TERMS: {"$elemMatch": {"$gte": span.first, "$lt": span.end}}} for span in spans if span.end is not None]
    return [*([{TERMS: {"$in": exact}}] if exact else []), *ranges]
