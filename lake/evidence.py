"""What the columns of a table are: declared by its owner, else announced by its source; never read off one row's look."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lake.storage import rows_of
from transforms.types import converter

if TYPE_CHECKING:
    from lake.layout import LakeLayout
    from schemas.tables import TableConfig

type Types = Mapping[str, str]
"""From a column to its canonical type (`transforms.types`)."""


def announced(layout: LakeLayout) -> dict[str, dict[str, str]]:
    """The types the sources announced, by table and column; of several announcements the latest counts."""
    columns = ["_table", "columns", "_ingest_time", "schema_id"]
    found: dict[str, dict[str, str]] = {}
    rows = rows_of(layout.path("schemas"), columns)
    for row in sorted(rows, key=lambda r: (r["_ingest_time"], r["schema_id"])):
        found.setdefault(row["_table"], {}).update(json.loads(row["columns"]))
    return found


def types_of(table: TableConfig, seen: Mapping[str, Types]) -> dict[str, str]:
    """The types of a table's columns, as far as there is evidence; `any` is none."""
    told = {name: kind for name, kind in seen.get(table.table, {}).items() if kind != "any"}
    return told | dict(table.columns)


def canonical(values: Mapping[str, Any], types: Types) -> dict[str, Any]:
    """Values by their types, for records that came without a schema; values that have their form already keep it."""
    typed = dict(values)
    for name, value in values.items():
        convert = converter(types[name]) if value is not None and name in types else None
        if convert:
            try:
                typed[name] = convert(value)
            except (ValueError, ArithmeticError, TypeError):
                continue
    return typed
