"""The documents that PostgreSQL cannot store, as `DocumentRefusedError`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors

from schemas.errors import DocumentRefusedError

MOST_BYTES = 2**30 - 2**20
"""Bytes of a document row's widest columns; PostgreSQL takes messages of 2^30 - 1 bytes (MaxAllocSize) with all columns."""
_WIDE = ("state", "texts", "metadata")


def check_width(sink: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise DocumentRefusedError for a row so wide that PostgreSQL would close the connection without an error."""
    widest = max((sum(len(row[name] or "") for name in _WIDE) for row in rows), default=0)
    if widest >= MOST_BYTES:
        raise _too_large(sink, f"{widest} bytes")


@contextmanager
def documents_refused(sink: str) -> Iterator[None]:
    """Raise DocumentRefusedError where PostgreSQL cannot store a value, or a constraint forbids it."""
    try:
        yield
    except errors.ForeignKeyViolation:
        raise
    except psycopg.Error as error:
        # too wide; "invalid memory alloc request"
        if isinstance(error, errors.ProgramLimitExceeded | errors.InternalError_):
            raise _too_large(sink, error.sqlstate or "") from None
        if isinstance(error, psycopg.DataError | psycopg.IntegrityError | errors.RaiseException):
            raise DocumentRefusedError(
                f"sink {sink}: PostgreSQL refuses a value ({error.sqlstate or type(error).__name__})",
                condition="STORE_REFUSES_DOCUMENT",
                hint="look the SQLSTATE up; the store's schema may have been changed by hand",
            ) from None
        raise


def _too_large(sink: str, detail: str) -> DocumentRefusedError:
    return DocumentRefusedError(
        f"sink {sink}: a document is larger than PostgreSQL takes ({detail})", condition="DOCUMENT_TOO_LARGE",
        hint="a value may have 1 GB, JSON 256 MB, and an entry of an index of your own 2,704 bytes",
    )  # fmt: skip
