"""Rows and table definitions as DMS writes them into JSON."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from local_stack.standins.dms.pgoutput import UNCHANGED, RowChange
from local_stack.standins.dms.stream import Record

if TYPE_CHECKING:
    import psycopg

_TYPES = {
    "int2": "INT2", "int4": "INT4", "int8": "INT8", "float4": "REAL4", "float8": "REAL8", "bool": "BOOLEAN",
    "date": "DATE", "time": "TIME", "timestamp": "DATETIME", "timestamptz": "DATETIME", "bytea": "BLOB",
    "numeric": "NUMERIC", "varchar": "WSTRING", "bpchar": "WSTRING", "uuid": "STRING",
}  # fmt: skip
"""PostgreSQL's type names to DMS's; every other (text, JSON, arrays) is an NCLOB."""
_NUMBERS = {"int2", "int4", "int8", "float4", "float8", "numeric"}
_ISO_TIMESTAMP = re.compile(r"(\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)(?:\+00)?")


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """A table: its columns' PostgreSQL types, and its primary key."""

    schema: str
    table: str
    columns: Mapping[str, str]
    modifiers: Mapping[str, int]
    keys: tuple[str, ...]

    @property
    def name(self) -> str:
        """`schema.table`."""
        return f"{self.schema}.{self.table}"


def table_of(source: psycopg.Connection[Any], name: str) -> TableDefinition:
    """Read a table's definition from the catalogue."""
    schema, table = name.split(".", 1)
    query = """SELECT a.attname, t.typname, a.atttypmod, coalesce(a.attnum = ANY(i.indkey), false)
               FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
               LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
               WHERE a.attrelid = (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                   WHERE n.nspname = %s AND c.relname = %s)
                 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""
    rows = source.execute(query, (schema, table)).fetchall()
    columns = {column: kind for column, kind, _, _ in rows}
    keys = tuple(column for column, _, _, key in rows if key)
    return TableDefinition(schema, table, columns, {c: m for c, _, m, _ in rows}, keys)


def control(table: TableDefinition, operation: str) -> Record:
    """Write the record of a table's definition; its partition key is the task's, so it lands beside no row."""
    columns: dict[str, Any] = {}
    for name, kind in table.columns.items():
        columns[name] = {"type": _TYPES.get(kind, "NCLOB"), "nullable": name not in table.keys}
        if kind == "numeric" and table.modifiers[name] > 0:
            modifier = table.modifiers[name] - 4
            columns[name] |= {"precision": modifier >> 16, "scale": modifier & 0xFFFF}
    key = f"local.{table.name}"
    metadata = _metadata(table, "control", operation, "task-id") | {"partition-key-value": key}
    return Record(
        key,
        {"control": {"table-def": {"columns": columns, "primary-key": list(table.keys)}}, "metadata": metadata},
    )


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


def full_row(table: TableDefinition, change: RowChange) -> dict[str, Any]:
    """Take the row a record shows: the new one, completed from the old where the log has all of it (identity FULL).

    A deleted row shows what the log has: with the default identity its key, and NULL elsewhere.
    """
    if change.new is None:
        return dict.fromkeys(table.columns) | dict(change.old or {})
    old = (change.old or {}) if change.is_old_complete else {}
    return {name: old.get(name, value) if value is UNCHANGED else value for name, value in change.new.items()}


def old_key_row(table: TableDefinition, change: RowChange) -> dict[str, Any]:
    """Take the old key of an update, as the log has it: empty when the key did not change (identity DEFAULT)."""
    return {name: change.old[name] for name in table.keys if name in change.old} if change.old else {}


def rendered(table: TableDefinition, row: Mapping[str, Any], *, null_and_empty: bool) -> dict[str, Any]:
    """Write a row's text values down as DMS does; an unchanged large column is not there."""
    data: dict[str, Any] = {}
    for name, value in row.items():
        if value is UNCHANGED or (not null_and_empty and name not in table.keys and value in {None, ""}):
            continue
        data[name] = None if value is None else _value(value, table.columns.get(name, "text"))
    return data


def _metadata(table: TableDefinition, record_type: str, operation: str, key_type: str) -> dict[str, Any]:
    return {
        "timestamp": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "record-type": record_type,
        "operation": operation, "partition-key-type": key_type, "schema-name": table.schema, "table-name": table.table,
    }  # fmt: skip


def _value(text: str, kind: str) -> Any:
    if kind in _NUMBERS:
        number = Decimal(text)
        return (int(text) if kind.startswith("int") else number) if number.is_finite() else text
    if kind == "bool":
        return text in {"t", "true"}
    if kind in {"timestamp", "timestamptz"}:
        timestamp = _ISO_TIMESTAMP.fullmatch(text)  # infinity and years before Christ stay as PostgreSQL writes them
        return f"{timestamp[1]}T{timestamp[2]}Z" if timestamp else text
    if kind == "bytea":
        return "0x" + text.removeprefix("\\x")
    return text
