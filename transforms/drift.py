"""Columns that a table no longer has, and that its key or its document needs. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schemas.changes import Changes, Ignored, Reject
from schemas.errors import StoppedError
from transforms.envelopes.event import KEY_GONE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from schemas.changes import Decoded
    from transforms.context import DecodeContext

CONDITION = "SCHEMA_DRIFT"
NEW_KEY = (
    "If rows have another key, set `keys` to its columns and an epoch some minutes ahead, `epochs: [{at: TIME, source: SOURCE}]`,"
    " and `ragstream run CONFIG` goes on. Load the table once more when that time has come; then `ragstream epoch CONFIG --source"
    " SOURCE --at TIME` ends the rows of the old key."
)
"""How a table with another primary key goes on."""


def column_gone(message: str) -> StoppedError:
    """The error of a job that meets a table without a column of the template; `message` says which."""
    return _gone(
        message,
        "If it is gone, take it out of the template: `ragstream rebuild CONFIG STORE` makes the documents anew; or set"
        " `drift_exceptions: {COLUMN: ignore}`: they keep the text that they have. Then `ragstream run CONFIG` goes on.",
    )


def key_gone(message: str) -> StoppedError:
    """The error of a job that meets a table without a column of its key."""
    return _gone(message, NEW_KEY)


def _gone(message: str, hint: str) -> StoppedError:
    return StoppedError(
        f"{message}. Nothing is lost: the job goes on at this record.",
        condition=CONDITION,
        hint=f"If the column was renamed, set `renamed: {{NEW: OLD}}` for the table, and `ragstream run CONFIG` goes on. {hint}",
    )


@dataclass
class ColumnWatch:
    """Notices a column that a document's text needs and that its table has had and has no more, by what the source announces.

    Schemas are ordered by their sequences: records that are read again, from before a column was added, are no drift.
    """

    context: DecodeContext
    _newest_with: dict[tuple[str, str], str] = field(default_factory=dict)
    """By table and column: the greatest sequence of a schema that has it."""
    _newest_without: dict[tuple[str, str], str] = field(default_factory=dict)
    """The same of a schema that lacks it."""

    def observe(self, decoded: Decoded) -> None:
        """Take in what one record announces; raises StoppedError (SCHEMA_DRIFT)."""
        if isinstance(decoded, Reject) and decoded.condition == KEY_GONE:
            raise key_gone(decoded.message)
        if isinstance(decoded, Changes):
            for change in decoded.changes:
                if change.schema_id is not None:
                    self._announced(change.table, change.sequence, change.columns, change.unavailable)
        elif isinstance(decoded, Ignored) and decoded.schema is not None:
            schema = decoded.schema
            table = self.context.tables.get(schema.table)
            if table is not None:
                self._announced(schema.table, schema.sequence, table.named(schema.columns))

    def _announced(
        self, table_name: str, sequence: str, columns: Collection[str], unavailable: Collection[str] = ()
    ) -> None:
        table = self.context.tables[table_name]
        for name in table.needed_texts:
            place = (table_name, name)
            newest = self._newest_with if name in columns or name in unavailable else self._newest_without
            newest[place] = max(sequence, newest.get(place, ""))
            newest_with = self._newest_with.get(place) or table.announced.get(name, "")
            if newest_with and self._newest_without.get(place, "") > newest_with:
                raise column_gone(f"{table_name} has no column {name} any more, which `document.template` names")


def newest_by_column(announcements: Iterable[tuple[str, Collection[str]]]) -> dict[str, str]:
    """By column: the greatest sequence of the announcements (sequence, columns) that have it."""
    newest: dict[str, str] = {}
    for sequence, columns in announcements:
        newest |= {name: max(sequence, newest.get(name, "")) for name in columns}
    return newest
