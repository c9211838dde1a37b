"""Metadata as terms that an index finds: a filter that is contained in a document's metadata has only terms of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from transforms.documents.planning import digest
from transforms.values import exact_json


def metadata_terms(metadata: Mapping[str, Any]) -> list[str]:
    """A term for each value that metadata hold: a document has all terms of a filter that it satisfies.

    As jsonb's containment: equal numbers are equal however they are written, an array contains any part of itself. Only
    in an array of objects may a filter's values come from several of them. Terms are digests, as values have any length.
    """
    plain = exact_json.loads(exact_json.storable(dict(metadata)))
    return sorted({digest(leaf)[:32] for leaf in _leaves(plain, "")})


def _leaves(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield f"{path}{{}}"
        for name, held in value.items():
            yield from _leaves(held, f"{path}.{exact_json.dumps(name)}")
    elif isinstance(value, list):
        yield f"{path}[]"
        for held in value:
            yield from _leaves(held, f"{path}[]")
    elif isinstance(value, int | Decimal) and not isinstance(value, bool):
        sign, digits, exponent = Decimal(value).as_tuple()
        told = "".join(map(str, digits)).strip("0")
        yield f"{path}={'-' * sign}{told}e{int(exponent) + len(digits)}" if told else f"{path}=0"
    else:
        yield f"{path}={exact_json.dumps(value)}"
