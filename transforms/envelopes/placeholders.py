"""Which values of a Debezium record were not sent: unchanged large values of PostgreSQL, by placeholder or by type.

A large value that an update leaves alone is absent from PostgreSQL's log. Debezium 3.5 sends a placeholder in its place for
most types, and null for the others; as recorded for every type that is stored out of line, in each `binary.handling.mode`.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from transforms.values import exact_json

PLACEHOLDER_ARRAYS = frozenset(
    {"_text", "_varchar", "_bpchar", "_json", "_jsonb", "_bytea", "_int4", "_int8", "_date", "_uuid"}
)
"""Array types, as `pg_type` names them, that get a placeholder; `_bytea` only as bytes."""
NULL_TYPES = frozenset({"bit", "varbit", "vector", "halfvec", "sparsevec", "geometry", "geography"})
"""Other types that get null."""
SMALL_BITS = 128
"""Bits of a `bit(n)` that always stays in its row: PostgreSQL moves no value that its pointer (24 bytes) would not shorten."""
UNSENT_ARRAYS = frozenset({"_interval", "_money", "_varbit", "_point", "_name", "_bit"})
"""Array types that Debezium never sends: the column is missing, or always null (`_bit`)."""
_BYTES_AS_TEXT = frozenset({"bytea", "path", "polygon", "jsonpath"})
"""Types that get null where `binary.handling.mode` makes text of bytes; beside them multiranges."""
_NULL_NAMES = frozenset(
    f"io.debezium.data.{name}"
    for name in (
        "Bits", "DoubleVector", "FloatVector", "SparseDoubleVector", "geometry.Geometry", "geometry.Geography",
    )
)  # fmt: skip


def has_placeholder(base_type: str, *, in_domain: bool) -> bool:
    """Whether an unchanged value of a type (`pg_type.typname`, below domains) gets a placeholder in a record of bytes mode."""
    if base_type.startswith("_"):
        return base_type in PLACEHOLDER_ARRAYS and not in_domain
    return base_type not in NULL_TYPES


def is_null_unsure(field: Mapping[str, Any]) -> bool:
    """Whether a null in a field of a Connect schema may stand for an unchanged value that was not sent."""
    kind, name = field.get("type"), field.get("name")
    source = _source_type(field)
    if kind == "array":
        as_text = source == "_bytea" and (field.get("items") or {}).get("type") == "string"
        return name in _NULL_NAMES or as_text or not (source in PLACEHOLDER_ARRAYS or not source)
    return name in _NULL_NAMES or (kind == "string" and (source in _BYTES_AS_TEXT or source.endswith("multirange")))


def is_never_sent(field: Mapping[str, Any]) -> bool:
    """Whether a field of a Connect schema is null whatever the value: an array that Debezium announces as something else."""
    return field.get("type") == "bytes" and _source_type(field) in UNSENT_ARRAYS


def _source_type(field: Mapping[str, Any]) -> str:
    """The column's type at the source (`column.propagate.source.type`), as `pg_type` names it; empty where it is not sent."""
    return str((field.get("parameters") or {}).get("__debezium.source.column.type", "")).lower()


def is_placeholder(value: Any, placeholder: str) -> bool:
    """Whether a value is the placeholder in any of its forms."""
    if isinstance(value, str):
        return value in placeholder_texts(placeholder)
    if isinstance(value, list) and value:
        return value in _placeholder_lists(placeholder)
    return isinstance(value, dict) and value == {placeholder: placeholder}


@lru_cache
def placeholder_texts(placeholder: str) -> frozenset[str]:
    """The placeholder as text, as the base64, hex and url-safe forms of a bytes column, and as an hstore written as JSON."""
    raw = placeholder.encode()
    encoded = {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode(), raw.hex()}
    return frozenset({placeholder, exact_json.dumps({placeholder: placeholder}), *encoded})


@lru_cache
def _placeholder_lists(placeholder: str) -> tuple[list[Any], ...]:
    """The placeholder in arrays: text, bytes, the codes of its characters (integers), a name-based UUID."""
    raw = placeholder.encode()
    digest = bytearray(hashlib.md5(raw, usedforsecurity=False).digest())
    named = str(uuid.UUID(bytes=bytes(digest), version=3))
    return [placeholder], [base64.b64encode(raw).decode()], [raw.hex()], list(raw), [named]
