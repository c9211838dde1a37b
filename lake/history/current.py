"""A table's current rows, folded from `changes` as they are read: as fresh as the last landed record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lake.layout import RAW_COLUMNS
from lake.storage import scan
from lake.tables.drift import DriftRules, unsent_defaults
from lake.tables.observed_types import ObservedTypes, announced, canonical, types_of
from schemas.changes import Change, Changes
from schemas.records import Record
from transforms.envelopes.decode import decode
from transforms.envelopes.stored import HEADER
from transforms.fold import Rows, RowState, apply, truncated_at
from transforms.values import exact_json

if TYPE_CHECKING:
    from lake.layout import LakeLayout
    from schemas.tables import TableConfig
    from transforms.context import DecodeContext


@dataclass
class TableFold:
    """Folds the changes of one table; any order, any number of times, the same rows."""

    rows: Rows = field(default_factory=Rows)
    truncated: str = ""

    def add(self, change: Change) -> None:
        """Take one change in."""
        if change.op == "t":
            self.truncated = max(self.truncated, change.sequence)
        else:
            apply(self.rows, change)

    def live(self) -> dict[str, RowState]:
        """The rows that are there, by key."""
        states = {key: truncated_at(state, self.truncated) for key, state in self.rows.items()}
        return {key: state for key, state in states.items() if state.exists}


def fold_table(layout: LakeLayout, table: str, contexts: Mapping[str, DecodeContext]) -> TableFold:
    """Fold all of a table's changes; `contexts` are the decode contexts by source."""
    import pyarrow.dataset as ds

    fold = TableFold()
    for batch in scan(layout.path("changes"), [*RAW_COLUMNS, "_source", "_key"], ds.field("_table") == table):
        for row in batch.to_pylist():
            for change in changes_in(row, table, contexts):
                fold.add(change)
    return fold


def current_rows(
    layout: LakeLayout, table: TableConfig, contexts: Mapping[str, DecodeContext]
) -> Iterator[dict[str, Any]]:
    """The table's rows, business columns only, in the order of their keys.

    An unresolved column, whose value no record has had yet, is left out of its row: it is not NULL (I3).
    """
    observed = announced(layout, [table]).get(table.table, ObservedTypes())
    types, rules = types_of(table, observed), DriftRules.of(table, observed)
    states = fold_table(layout, table.table, contexts).live()
    names = dict.fromkeys([*types, *(name for state in states.values() for name in state.columns)])
    shown = [name for name in names if rules.takes(name)]
    for key in sorted(states):
        unsent = unsent_defaults(states[key], observed.defaulted)
        yield row_of(states[key], [name for name in shown if name not in unsent], types)


def row_of(state: RowState, names: Sequence[str], types: Mapping[str, str]) -> dict[str, Any]:
    """A state as a row."""
    unresolved = set(state.unresolved(names))
    values = canonical(state.values(), types)
    return {name: values.get(name) for name in names if name not in unresolved}


def changes_in(row: Mapping[str, Any], table: str, contexts: Mapping[str, DecodeContext]) -> Iterator[Change]:
    """The changes of a table in a row of `changes`; none when its source is not configured any more.

    A row that landed under other `keys` than there are now names no row of today: an epoch ends what it was (ADR 0051).
    """
    context = contexts.get(row["_source"])
    decoded = decode(record_of(row), context) if context else None
    for change in decoded.changes if isinstance(decoded, Changes) else ():
        if change.table == table and _has_columns_of(row.get("_key"), change.key):
            yield change


def _has_columns_of(landed: str | None, key: str) -> bool:
    """Whether two keys have the same columns; a TRUNCATE has none."""
    if not landed or landed == key or not key:
        return True
    return bool(exact_json.loads(landed).keys() == exact_json.loads(key).keys())


def record_of(row: Mapping[str, Any]) -> Record:
    """A row of `changes` as the record it was, or as what landing kept of it."""
    stream, partition, position, key, value, headers, time = (row[name] for name in RAW_COLUMNS)
    pairs = tuple((h["key"], h["value"]) for h in headers or () if h["key"] != HEADER)
    kept = len(pairs) < len(headers or ())
    return Record(
        stream, partition, position, key, value, pairs, None if time is None else int(time.timestamp() * 1000), kept
    )
