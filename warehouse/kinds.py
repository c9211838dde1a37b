"""Column types: what a source announces, as Redshift holds it, and the limits a value must keep.

Types and limits: Redshift Database Developer Guide, "Data types", "SUPER data type" and "Limitations" (2026).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from functools import reduce
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lake.tables.kinds import decimal_digits, wider
from lake.tables.shape import accepted_kinds
from lake.tables.typed import UnfitError, arrow_type, into
from transforms.values import exact_json
from transforms.values.types import spark_type

if TYPE_CHECKING:
    from lake.tables.observed_types import ObservedTypes
    from schemas.tables import TableConfig

TEXT_BYTES = 65_535
"""VARCHAR's and a SUPER string's most bytes of UTF-8."""
LARGE_BYTES = 16 * 1024 * 1024
"""SUPER's and VARBYTE's most bytes."""
MOST_DIGITS, MOST_SCALE = 38, 37
"""Of Redshift's DECIMAL."""
_EXPONENT = 308
"""Of the largest double, and of the smallest that is whole."""

_TYPES = {
    "smallint": "SMALLINT", "int": "INTEGER", "bigint": "BIGINT", "float": "REAL", "double": "DOUBLE PRECISION",
    "boolean": "BOOLEAN", "string": f"VARCHAR({TEXT_BYTES})", "binary": f"VARBYTE({LARGE_BYTES})", "date": "DATE",
    "timestamp_ntz": "TIMESTAMP", "timestamp": "TIMESTAMPTZ", "super": "SUPER",
}  # fmt: skip


def kind_of(canonical: str) -> str:
    """The kind of a column of a canonical type: Spark's name for it, `super` for JSON and arrays.

    A decimal wider than Redshift's gets the widest there is: values that do not fit it are rejects.
    """
    if canonical == "json" or canonical.startswith("array<"):
        return "super"
    if digits := decimal_digits(canonical):
        precision, scale = min(digits[0], MOST_DIGITS), min(digits[1], MOST_SCALE)
        return f"decimal({max(precision, scale)},{scale})"
    return spark_type(canonical)


def column_kind(source: str, table: TableConfig, observed: ObservedTypes, current: str | None) -> str:
    """The narrowest kind for the values that were announced, or declared, and those in the column: it never narrows."""
    types = [table.types[source]] if source in table.types else accepted_kinds(source, table, observed)
    kinds = ([current] if current else []) + [kind_of(canonical) for canonical in types]
    return reduce(wider, kinds) if kinds else "string"


def redshift_type(kind: str) -> str:
    """The column type in DDL."""
    return _TYPES.get(kind) or kind.upper()


def staged_type(kind: str) -> str:
    """The column type of a staging table.

    JSON comes as bytes, since a VARCHAR is too short for it; a moment as UTC without its zone, since Redshift reads
    Parquet as external tables do, which have no TIMESTAMPTZ ("CREATE EXTERNAL TABLE").
    """
    return redshift_type({"super": "binary", "timestamp": "timestamp_ntz"}.get(kind, kind))


def staged_arrow(kind: str) -> pa.DataType:
    """The column's type in a staged file."""
    return arrow_type({"super": "binary", "timestamp": "timestamp_ntz"}.get(kind, kind))


def unstaged(column: str, kind: str) -> str:
    """A staged column as its table's expression."""
    if kind == "timestamp":
        return f"({column} AT TIME ZONE 'UTC')"
    return f"JSON_PARSE({column})" if kind == "super" else column


def cast(column: str, current: str, kind: str) -> str:
    """A column's values in a wider kind; text is what the lake would write."""
    if kind != "string":
        return f"CAST({column} AS {redshift_type(kind)})"
    text = f"JSON_SERIALIZE({column})" if current == "super" else f"CAST({column} AS {redshift_type('string')})"
    if current == "boolean":
        text = f"CASE WHEN {column} THEN 'true' WHEN NOT {column} THEN 'false' END"
    if current == "binary":
        text = f"TO_HEX({column})"
    if current in {"timestamp", "timestamp_ntz"}:
        text = f"REPLACE({text}, ' ', 'T')"
    return f"REPLACE({text}, '+00', 'Z')" if current == "timestamp" else text


def fitted(value: Any, kind: str) -> Any:
    """A canonical value as a staged file holds it; raises UnfitError for one that its column cannot hold."""
    if value is None:
        return None
    if kind == "super":
        return _json(value)
    typed = into(value, kind)
    too_long = isinstance(typed, str) and len(typed) * 4 > TEXT_BYTES and len(typed.encode()) > TEXT_BYTES
    if too_long or (isinstance(typed, bytes) and len(typed) > LARGE_BYTES):
        raise UnfitError(kind)
    return typed.replace(tzinfo=None) if isinstance(typed, dt.datetime) else typed


def _json(value: Any) -> bytes:
    """A JSON document in bytes; text is JSON already, as the source wrote it. One that JSON_PARSE may refuse does not fit."""
    try:
        document = exact_json.loads(value) if isinstance(value, str) else value
        if any(not _fits_super(part) for part in _scalars(document)):
            raise UnfitError("super")
        text = exact_json.dumps(document, ascii_only=False)
        if r"\u0000" in text:
            text = exact_json.dumps(_without_nul(document), ascii_only=False)
        encoded = exact_json.printable(text).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise UnfitError("super") from error
    if len(encoded) > LARGE_BYTES:
        raise UnfitError("super")
    return encoded


def _scalars(document: Any) -> Iterator[Any]:
    """Everything in a document but its lists and objects, names included."""
    if isinstance(document, dict):
        yield from document
        document = list(document.values())
    if isinstance(document, list):
        for part in document:
            yield from _scalars(part)
    else:
        yield document


def _fits_super(scalar: Any) -> bool:
    """Whether a SUPER takes it: a string of up to 65,535 bytes, a number of up to 38 digits that is no larger than a double."""
    if isinstance(scalar, str):
        return len(scalar) * 4 <= TEXT_BYTES or len(exact_json.printable(scalar).encode()) <= TEXT_BYTES
    if isinstance(scalar, (int, float, Decimal)) and not isinstance(scalar, bool):
        number = Decimal(scalar) if isinstance(scalar, int) else Decimal(str(scalar))
        return (
            number.is_finite() and len(number.as_tuple().digits) <= MOST_DIGITS and abs(number.adjusted()) < _EXPONENT
        )
    return True


def _without_nul(document: Any) -> Any:
    if isinstance(document, dict):
        return {_without_nul(name): _without_nul(part) for name, part in document.items()}
    if isinstance(document, list):
        return [_without_nul(part) for part in document]
    return document.replace("\0", "\ufffd") if isinstance(document, str) else document
