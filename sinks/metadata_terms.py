"""Metadata as terms of an inverted index: a document contains a filter if it has all of the filter's terms. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from transforms.documents.planning import digest
from transforms.values import exact_json


def metadata_terms(metadata: Mapping[str, Any]) -> list[str]:
    """One term for each value in metadata, in order; a document that satisfies a filter has all of the filter's terms.

    The semantics are those of jsonb containment (`@>`): numbers compare by value, an array contains any part of itself. One
    differs: in an array of objects a filter's values may come from several of them. Terms are digests, as values have any length.
    """
    stored = exact_json.loads(exact_json.storable(dict(metadata)))
    return sorted({digest(leaf)[:32] for leaf in _leaves(stored, "")})


def _leaves(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield f"{path}{{}}"
        for name, member in value.items():
            yield from _leaves(member, f"{path}.{exact_json.dumps(name)}")
    elif isinstance(value, list):
        yield f"{path}[]"
        for member in value:
            yield from _leaves(member, f"{path}[]")
    elif isinstance(value, int | Decimal) and not isinstance(value, bool):
        sign, digits, exponent = Decimal(value).as_tuple()
        significant = "".join(map(str, digits)).strip("0")
        number = f"{'-' * sign}{significant}e{int(exponent) + len(digits)}" if significant else "0"
        yield f"{path}={number}"
    else:
        yield f"{path}={exact_json.dumps(value)}"
