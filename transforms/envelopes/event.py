"""What a change has beside its columns in every envelope, and the rejects that all envelopes share."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.changes import Decoded, Ignored, Op, Reject
from transforms.envelopes.registry import FramedError
from transforms.values import exact_json

if TYPE_CHECKING:
    from transforms.context import DecodeContext, TableContext


class Event(NamedTuple):
    """The change of one row, read from a parsed envelope; its columns are as they came."""

    table: TableContext
    op: Op
    sequence: str
    commit_us: int | None
    """Microseconds since the epoch."""
    row: dict[str, Any]
    """The row after the change, or what was sent of a deleted one."""
    before: dict[str, Any] | None = None
    """Columns of the row before an update, where they may hold another key."""
    hides_old_key: bool = False

    def renamed(self) -> Event:
        """The same change under the names that the columns have in this pipeline."""
        before = None if self.before is None else self.table.named(self.before)
        return self._replace(row=self.table.named(self.row), before=before)


class RoundedNumberError(ValueError):
    """A position, time or name was parsed as a float: the parser was not exact, and the record has to be parsed anew."""


def require_exact(*values: Any) -> None:
    """Raise RoundedNumberError for a float, which `exact_json` never gives."""
    if float in map(type, values):
        raise RoundedNumberError


def unreadable(error: Exception) -> Reject:
    """Reject a record whose value could not be parsed."""
    if isinstance(error, FramedError):
        return Reject(error.condition, str(error))
    return Reject("MALFORMED_JSON", f"the value is not JSON in UTF-8: {type(error).__name__}")


def other_table(name: str, context: DecodeContext) -> Decoded:
    """Decide on a record of a table that this source does not have."""
    if name in context.others:
        return Reject("OTHER_SOURCE", f"table {name} belongs to another source of this pipeline", name)
    return Ignored("signal" if name in context.ignored else "table not configured", name)


def bad_commit_time(table: TableContext) -> Reject:
    """Reject a record whose commit time no store can show."""
    return Reject(
        "BAD_COMMIT_TIME", f"a record of {table.table} was committed outside the years 1 to 9999", table.table
    )


def no_key(table: TableContext, announced: Collection[str] = ()) -> Reject:
    """Reject a record that names no row; the columns that its schema announced say whether the key is gone from the table."""
    if announced and (gone := sorted(table.needed.intersection(table.keys).difference(announced))):
        return Reject(
            KEY_GONE, f"{table.table} has no column {', '.join(gone)} any more, which `keys` names", table.table
        )
    message = (
        f"a record of {table.table} lacks a key column of {', '.join(table.keys)}; where they are no primary key, the connector "
        f"tells them by message.key.columns and a log with whole old rows (REPLICA IDENTITY FULL)"
    )
    return Reject("NO_KEY", message, table.table)


KEY_GONE = "KEY_COLUMN_GONE"
"""The condition of a record whose table has lost a key column: every reader of it stops."""


def schema_id(columns: Mapping[str, str], defaulted: Sequence[str] = ()) -> str:
    """Name a set of column types by its content; the columns of another key are `defaulted`, as they are NOT NULL."""
    content: object = [columns, sorted(defaulted)] if defaulted else columns
    return hashlib.sha256(exact_json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
