"""How a table's columns differ from those that its source announced first, and what the configuration does about it. Pure.

What is decided depends on the configuration and on what has landed, never on the order in which it came.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Literal

from lake.tables.kinds import wider
from schemas.errors import StoppedError
from transforms.drift import CONDITION, NEW_KEY
from transforms.values.types import spark_type

if TYPE_CHECKING:
    from lake.tables.observed_types import ObservedTypes
    from schemas.tables import Drift, TableConfig
    from transforms.fold import RowState


@dataclass(frozen=True)
class DriftRules:
    """Which columns the stores take; plain data, so it pickles."""

    drift: Drift = "evolve"
    exceptions: Mapping[str, Drift] = field(default_factory=dict)
    original: frozenset[str] = frozenset()
    """Columns that the configuration names, or that were announced first."""
    replaced: frozenset[str] = frozenset()
    """Names that `renamed` replaces."""

    @classmethod
    def of(cls, table: TableConfig, observed: ObservedTypes) -> DriftRules:
        """The rules of a table."""
        named = {name for names in table.named_columns.values() for name in names}
        return cls(
            table.drift, table.drift_exceptions, frozenset(named | observed.first.keys()), frozenset(table.renamed)
        )

    def of_column(self, column: str) -> Drift:
        """What becomes of a column that differs."""
        return self.exceptions.get(column, self.drift)

    def takes(self, column: str) -> bool:
        """Whether the stores show a column."""
        return column not in self.replaced and (column in self.original or self.of_column(column) == "evolve")

    def concerns_shape(self, column: str) -> bool:
        """Whether a column that a record has and the table lacks concerns the table's shape."""
        return self.takes(column) or self.of_column(column) == "stop"

    def rejects(self, column: str) -> bool:
        """Whether each value of a column is a reject."""
        return not self.takes(column) and self.of_column(column) == "reject"


EVOLVE = DriftRules()
"""Every column is taken in."""


@dataclass(frozen=True)
class ColumnDrift:
    """One column that is not as it was announced first."""

    column: str
    change: Literal["added", "dropped", "retyped"]
    drift: Drift
    kinds: tuple[str, ...]
    """Its types, oldest first."""

    @property
    def words(self) -> str:
        """The same for people."""
        kinds = " → ".join(dict.fromkeys(self.kinds))
        return f"{self.column} was {self.change}" + (f" ({kinds})" if self.change != "dropped" and kinds else "")

    @property
    def sentence(self) -> str:
        """What is done about it, and how to do otherwise."""
        take = f"`drift_exceptions: {{{self.column}: evolve}}`"
        if self.drift == "stop":
            return f"{self.words}: merge and load stop ({take} takes it in)"
        if self.change == "dropped":
            return f"{self.words}: rows keep the value they had"
        if self.drift == "evolve":
            return f"{self.words}: taken in"
        if self.change == "added":
            return f"{self.words}: left out; {take} takes it in, with what has landed of it"
        return f"{self.words}: what does not fit the first type is a reject; {take} makes the column wider"


def drifts(table: TableConfig, observed: ObservedTypes) -> Iterator[ColumnDrift]:
    """The columns of a table that differ from its first schema, but for those whose type the configuration declares."""
    if len(observed.announcements) < 2:
        return
    newest = observed.announcements[-1].columns
    for name in dict.fromkeys(name for announcement in observed.announcements for name in announcement.columns):
        kinds = tuple(observed.kinds.get(name, ()))
        drift = table.drift_of(name)
        if name not in observed.first:
            if name not in table.columns:
                yield ColumnDrift(name, "added", drift, kinds)
        elif name not in newest:
            yield ColumnDrift(name, "dropped", drift, kinds)
        elif name not in table.columns and kinds and joined(kinds) != spark_type(kinds[0]):
            yield ColumnDrift(name, "retyped", drift, kinds)


def unsent_defaults(state: RowState, since: Mapping[str, str]) -> set[str]:
    """Columns that were added with a default after a row was last sent whole: not NULL, and of a value that no record has."""
    if not since or not state.exists:
        return set()
    return {name for name, sequence in since.items() if name not in state.columns and state.complete < sequence}


def joined(kinds: tuple[str, ...]) -> str:
    """The narrowest column type for all values of several canonical types."""
    return reduce(wider, map(spark_type, kinds))


def changed_key(table: TableConfig, observed: ObservedTypes) -> frozenset[str]:
    """The columns of a primary key that is not the one that `keys` were written for, and that `keys` do not hold."""
    keys, was_right = frozenset(table.keys), False
    for announcement in observed.announcements:
        if announcement.keys and announcement.keys <= keys:
            was_right = True
        elif was_right and announcement.keys:
            return announcement.keys
    return frozenset()


def refuse_drift(table: TableConfig, observed: ObservedTypes, seen: Collection[str] = ()) -> None:
    """Raise StoppedError (SCHEMA_DRIFT) where a column differs whose `drift` is stop, or the key; `seen` was not announced."""
    key = changed_key(table, observed)
    if key and not table.needed_columns.isdisjoint(table.keys):
        raise StoppedError(
            f"{table.table}: its key was {', '.join(table.keys)}, as `keys` say, and is {', '.join(sorted(key))} now: rows may"
            " have lost their names. Nothing is lost: `changes` has every record",
            condition=CONDITION,
            hint="Where `keys` still name one row each, say so: `drift_exceptions: {KEY COLUMN: ignore}`, and `ragstream run"
            f" CONFIG` goes on. {NEW_KEY}",
        )
    rules = DriftRules.of(table, observed)
    words = [drift.words for drift in drifts(table, observed) if drift.drift == "stop"]
    words += [f"{name} was added" for name in seen if not rules.takes(name) and rules.of_column(name) == "stop"]
    if words:
        raise StoppedError(
            f"{table.table}: {', '.join(words)}, and `drift` is stop. Nothing is lost: `changes` has every record",
            condition=CONDITION,
            hint="`drift_exceptions: {COLUMN: evolve}` of the table takes the column in, `ignore` or `reject` leaves it out;"
            " then `ragstream run CONFIG` goes on where it stopped.",
        )
