"""The types of a table's columns: declared by its owner, else announced by its source; never guessed from a value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from lake.storage import rows_of
from transforms.context import under_names
from transforms.values.columns import UNFIT
from transforms.values.types import converter

if TYPE_CHECKING:
    from lake.layout import LakeLayout
    from schemas.tables import TableConfig

type Types = Mapping[str, str]
"""From a column to its canonical type (`transforms.values.types`)."""


class Announcement(NamedTuple):
    """The columns that a source announced for a table, with their canonical types."""

    sequence: str
    """That of the first change with these columns; empty in a lake of an earlier version."""
    columns: Mapping[str, str]
    keys: frozenset[str] = frozenset()
    """The columns of the key that records are sent with."""
    defaulted: frozenset[str] = frozenset()
    """Those that are NOT NULL or have a default."""


@dataclass(frozen=True)
class ObservedTypes:
    """Every type that was announced for the columns of one table, oldest first; the last one is the newest.

    Which is older the log's own positions say, so the same set of landed records gives the same, in whatever order they came.
    """

    kinds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    schema_ids: frozenset[str] = frozenset()
    announcements: Sequence[Announcement] = ()

    @property
    def newest(self) -> dict[str, str]:
        """The newest type of each column."""
        return {name: kinds[-1] for name, kinds in self.kinds.items()}

    @property
    def defaulted(self) -> dict[str, str]:
        """Columns that came later and are not NULL in the rows that were there: since which sequence."""
        since: dict[str, str] = {}
        for announcement in self.announcements:
            for name in announcement.columns.keys() - since.keys():
                since[name] = announcement.sequence if name in announcement.defaulted else ""
        return {name: sequence for name, sequence in since.items() if sequence and name not in self.first}

    @property
    def first(self) -> Mapping[str, str]:
        """What was announced first."""
        return self.announcements[0].columns if self.announcements else {}


def announced(layout: LakeLayout, tables: Iterable[TableConfig] = ()) -> dict[str, ObservedTypes]:
    """What the sources announced, by table, under the names that `tables` give renamed columns; the type `any` does not count."""
    columns = ["_table", "columns", "keys", "_ingest_time", "schema_id", "_sequence", "defaulted"]
    return observed_in(rows_of(layout.path("schemas"), columns), {table.table: table.renamed for table in tables})


def observed_in(rows: Iterable[Mapping[str, Any]], names: Mapping[str, Mapping[str, str]]) -> dict[str, ObservedTypes]:
    """The same from rows of `schemas`; `names` are new names of columns, by table."""
    earliest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows:
        name = (row["_table"], row["schema_id"])
        if name not in earliest or _order(row) < _order(earliest[name]):
            earliest[name] = row
    of_tables: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(earliest.values(), key=_order):
        of_tables.setdefault(row["_table"], []).append(row)
    return {table: _observed(of_table, names.get(table, {})) for table, of_table in of_tables.items()}


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row.get("_sequence") or "", row["_ingest_time"], row["schema_id"]


def _observed(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> ObservedTypes:
    kinds: dict[str, list[str]] = {}
    announcements = []
    for row in rows:
        columns = under_names(json.loads(row["columns"]), names)
        defaulted = {names.get(name, name) for name in row.get("defaulted") or ()}
        keys = {names.get(name, name) for name in row["keys"] or ()}
        announcements.append(Announcement(row.get("_sequence") or "", columns, frozenset(keys), frozenset(defaulted)))
        for name, kind in columns.items():
            if kind != "any":
                kinds.setdefault(name, []).append(kind)
    return ObservedTypes(kinds, frozenset(row["schema_id"] for row in rows), tuple(announcements))


def types_of(table: TableConfig, observed: ObservedTypes) -> dict[str, str]:
    """The types of a table's columns as far as they are known; a declared type counts before an announced one."""
    return observed.newest | dict(table.types)


def canonical(values: Mapping[str, Any], types: Types) -> dict[str, Any]:
    """Values by their types, for records that came without a schema; values that have their form already keep it."""
    typed = dict(values)
    for name, value in values.items():
        convert = converter(types[name]) if value is not None and name in types else None
        if convert:
            try:
                typed[name] = convert(value)
            except UNFIT:
                continue
    return typed
