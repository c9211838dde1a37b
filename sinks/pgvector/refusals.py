"""What PostgreSQL does not take of a document, as errors of ours that say which kind of thing is to blame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors

from schemas.errors import DocumentRefusedError

MOST_BYTES = 2**30 - 2**20
"""Of a message to PostgreSQL, which takes 2^30 - 1 (MaxAllocSize); the rest is for what else is in it."""
_WIDE = ("state", "texts", "metadata")


def check_width(sink: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise DocumentRefusedError for a head that PostgreSQL would end the connection for instead of refusing it."""
    widest = max((sum(len(row[name] or "") for name in _WIDE) for row in rows), default=0)
    if widest >= MOST_BYTES:
        raise _too_large(sink, f"{widest} bytes")


@contextmanager
def documents_refused(sink: str) -> Iterator[None]:
    """Raise DocumentRefusedError where a value is to blame: one that PostgreSQL cannot keep, or that a constraint forbids."""
    try:
        yield
    except errors.ForeignKeyViolation:
        raise
    except psycopg.Error as error:
        if isinstance(
            error, errors.ProgramLimitExceeded | errors.InternalError_
        ):  # too wide; "invalid memory alloc request"
            raise _too_large(sink, error.sqlstate or "") from None
        if isinstance(error, psycopg.DataError | psycopg.IntegrityError | errors.RaiseException):
            raise DocumentRefusedError(
                f"sink {sink}: PostgreSQL refuses a value ({error.sqlstate or type(error).__name__})",
                condition="STORE_REFUSES_DOCUMENT",
                hint="look the SQLSTATE up; the store's schema may have been changed by hand",
            ) from None
        raise


def _too_large(sink: str, told: str) -> DocumentRefusedError:
    return DocumentRefusedError(
        f"sink {sink}: a document is larger than PostgreSQL takes ({told})", condition="DOCUMENT_TOO_LARGE",
        hint="a value may have 1 GB, JSON 256 MB, and an entry of an index of your own 2,704 bytes",
    )  # fmt: skip
