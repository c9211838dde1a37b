"""The rows that a source ends with: its changes applied one after the other, in its own order. Pure; no code of the fold's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from schemas.changes import Change


@dataclass
class ModelRow:
    """A row as the changes up to here tell it."""

    shown: dict[str, Any] = field(default_factory=dict)
    """Columns with the values that they have now."""
    untold: dict[str, Any] = field(default_factory=dict)
    """Columns that the newest whole record did not tell, with their older values: a store shows them as pending."""
    holes: frozenset[str] = frozenset()
    """Columns of a changed key's new row whose value nothing has told."""
    whole: bool = False
    """Whether a record has told the row as a whole: then a column that nothing has told is NULL."""

    def is_pending(self, name: str) -> bool:
        """Whether a column's value is not known."""
        return name in self.untold or name in self.holes or not (self.whole or name in self.shown)


class Model:
    """The tables of a source."""

    def __init__(self) -> None:
        """Begin with empty tables."""
        self.tables: dict[str, dict[str, ModelRow]] = {}
        self._leaving: dict[tuple[str, str, str], ModelRow] = {}
        """Rows whose key has changed, by table, old and new key, until the new row comes."""

    def apply(self, changes: Iterable[Change]) -> None:
        """Apply changes, which come in the order in which the source made them."""
        for change in changes:
            rows = self.tables.setdefault(change.table, {})
            if change.op == "t":
                rows.clear()
            elif change.op == "d":
                gone = rows.pop(change.key, None)
                if change.new_key and gone is not None:
                    self._leaving[change.table, change.key, change.new_key] = gone
            else:
                rows[change.key] = _written(self._before(change, rows), change)

    def _before(self, change: Change, rows: dict[str, ModelRow]) -> ModelRow:
        if change.old_key is None:
            return rows.get(change.key, ModelRow())
        leaving = self._leaving.pop((change.table, change.old_key, change.key), None)
        return leaving or rows.get(change.old_key) or ModelRow()


def _written(before: ModelRow, change: Change) -> ModelRow:
    known = before.untold | before.shown
    image = dict(change.columns)
    if change.old_key is not None:  # what the new row's record does not tell is as it was in the old row
        shown = known | image
        whole = change.complete or before.whole
        return ModelRow(shown, {}, frozenset(change.unavailable) - shown.keys(), whole=whole)
    if change.complete:
        return ModelRow(image, {name: value for name, value in known.items() if name not in image}, whole=True)
    left = {name: value for name, value in before.untold.items() if name not in image}
    return ModelRow(before.shown | image, left, before.holes - image.keys(), before.whole)
