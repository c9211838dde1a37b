"""Filters as clauses of an OpenSearch query on document rows; values are members of the request's JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sinks.search import Filters
from transforms.filters.conditions import Condition
from transforms.filters.terms import Span, requirement

TERMS = "metadata_terms"


def clauses(filters: Filters) -> list[dict[str, Any]]:
    """Clauses that a visible document passes all of."""
    parts = [_of_table(filters.tables)] if filters.tables else []
    parts += [_holds(condition) for condition in filters.conditions]
    if filters.access is not None:
        grants = [_all([_of_table(grant.tables), *map(_holds, grant.conditions)]) for grant in filters.access]
        parts.append(_any(grants))
    return parts


def _of_table(tables: Sequence[str]) -> dict[str, Any]:
    return {"terms": {"table_name": list(tables)}}


def _holds(condition: Condition) -> dict[str, Any]:
    needed = requirement(condition)
    without = {"must_not": _spans(needed.none_of)} if needed.none_of else {}
    return {"bool": {"filter": [_any(_spans(needed.any_of))], **without}}


def _spans(spans: Sequence[Span]) -> list[dict[str, Any]]:
    exact = [span.first for span in spans if span.end is None]
    ranges = [{"range": {TERMS: {"gte": span.first, "lt": span.end}}} for span in spans if span.end is not None]
    return [*([{"terms": {TERMS: exact}}] if exact else []), *ranges]


def _all(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"bool": {"filter": list(parts)}}


def _any(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Any of these; nothing passes none of them, where OpenSearch takes an empty `should` for everything."""
    listed = list(parts)
    return {"bool": {"should": listed, "minimum_should_match": 1}} if listed else {"match_none": {}}
