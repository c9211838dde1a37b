"""The types of a table's columns: declared by its owner, else announced by its source; never guessed from a value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lake.storage import rows_of
from transforms.values.columns import UNFIT
from transforms.values.types import converter

if TYPE_CHECKING:
    from lake.layout import LakeLayout
    from schemas.tables import TableConfig

type Types = Mapping[str, str]
"""From a column to its canonical type (`transforms.values.types`)."""


@dataclass(frozen=True)
class ObservedTypes:
    """Every type that was announced for the columns of one table, oldest first; the last one is the newest."""

    kinds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    schema_ids: frozenset[str] = frozenset()

    @property
    def newest(self) -> dict[str, str]:
        """The newest type of each column."""
        return {name: kinds[-1] for name, kinds in self.kinds.items()}


def announced(layout: LakeLayout) -> dict[str, ObservedTypes]:
    """What the sources announced, by table; the type `any` does not count."""
    columns = ["_table", "columns", "_ingest_time", "schema_id"]
    kinds: dict[str, dict[str, list[str]]] = {}
    ids: dict[str, set[str]] = {}
    rows = rows_of(layout.path("schemas"), columns)
    for row in sorted(rows, key=lambda r: (r["_ingest_time"], r["schema_id"])):
        ids.setdefault(row["_table"], set()).add(row["schema_id"])
        for name, kind in json.loads(row["columns"]).items():
            if kind != "any":
                kinds.setdefault(row["_table"], {}).setdefault(name, []).append(kind)
    return {table: ObservedTypes(kinds.get(table, {}), frozenset(ids[table])) for table in ids}


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
