"""Columns that a configuration names and that its tables do not have, as `ragstream check` says it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from glue_jobs.runtime.status_record import read_all
from lake.layout import LakeLayout
from lake.storage import rows_of

if TYPE_CHECKING:
    from glue_jobs.config import PipelineConfig


def notes(config: PipelineConfig) -> list[str]:
    """What the lake can tell of tables that no `capture` covers: by schemas their source announced, else by whole rows."""
    covered = {capture.source or config.sources[0].name for capture in config.capture}
    announced = _announced(config)
    missing = {
        table: told[1] for record in read_all(config.checkpoint) for table, told in record.columns_missing.items()
    }
    found = []
    for table in config.tables:
        if table.table in announced and config.owner(table) not in covered:
            found += [f"{each} (as announced so far)" for each in table.unknown_columns(announced[table.table])]
        elif config.owner(table) not in covered:
            named = [
                *table.named_columns.get("document.template", ()),
                *table.named_columns.get("document.metadata", ()),
            ]
            rows = [name for name in missing.get(table.table, ()) if name in named]
            found += [
                f"{table.table}: its newest whole row has no column {name!r}, which its document names" for name in rows
            ]
    return found


def _announced(config: PipelineConfig) -> dict[str, set[str]]:
    """Every column that a source ever announced, by table."""
    columns: dict[str, set[str]] = {}
    for row in rows_of(LakeLayout(config.lake.path).path("schemas"), ["_table", "columns"]):
        columns.setdefault(row["_table"], set()).update(json.loads(row["columns"]))
    return columns
