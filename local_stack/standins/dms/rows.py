"""Rows and table definitions in DMS's envelope."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from local_stack.standins.dms.source import TableDefinition
from local_stack.standins.dms.stream import Record


def control(table: TableDefinition, operation: str) -> Record:
    """Write the record of a table's definition; its partition key is the task's, so it lands beside no row."""
    key = f"local.{table.name}"
    definition = {
        "columns": {name: dict(column) for name, column in table.columns.items()},
        "primary-key": [*table.keys],
    }
    metadata = _metadata(table, "control", operation, "task-id") | {"partition-key-value": key}
    return Record(key, {"control": {"table-def": definition}, "metadata": metadata})


def change_of(before: TableDefinition, after: TableDefinition) -> str:
    """Name what happened to a table as DMS does."""
    if set(before.columns) < set(after.columns):
        return "add-column"
    return "drop-column" if set(after.columns) < set(before.columns) else "change-columns"


def envelope(
    table: TableDefinition, operation: str, document: dict[str, Any], key: str | None, position: Mapping[str, Any]
) -> Record:
    """Put a row's document in its envelope; without a key it goes by table."""
    metadata = _metadata(table, "data", operation, "primary-key" if key else "schema-table")
    if key:
        metadata["partition-key-value"] = key
    return Record(key or table.name, {**document, "metadata": {**metadata, **position}})


def key_text(table: TableDefinition, row: Mapping[str, Any]) -> str | None:
    """Name a row as a partition key (PartitionIncludeSchemaTable): `schema.table.key`; None without a primary key."""
    return ".".join([table.name, *(str(row.get(name)) for name in table.keys)]) if table.keys else None


def _metadata(table: TableDefinition, record_type: str, operation: str, key_type: str) -> dict[str, Any]:
    return {
        "timestamp": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "record-type": record_type,
        "operation": operation, "partition-key-type": key_type, "schema-name": table.schema, "table-name": table.table,
    }  # fmt: skip
