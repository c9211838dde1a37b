"""Rows and table definitions as DMS writes them into JSON."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from local_stack.pgoutput import UNCHANGED

if TYPE_CHECKING:
    import psycopg

_TYPES = {
    "int2": "INT2", "int4": "INT4", "int8": "INT8", "float4": "REAL4", "float8": "REAL8", "bool": "BOOLEAN",
    "date": "DATE", "time": "TIME", "timestamp": "DATETIME", "timestamptz": "DATETIME", "bytea": "BLOB",
    "numeric": "NUMERIC", "varchar": "WSTRING", "bpchar": "WSTRING", "uuid": "STRING",
}  # fmt: skip
"""PostgreSQL's type names to DMS's; every other (text, JSON, arrays) is an NCLOB."""
_NUMBERS = {"int2", "int4", "int8", "float4", "float8", "numeric"}


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


def control(table: TableDefinition) -> dict[str, Any]:
    """The create-table record that precedes a load."""
    columns: dict[str, Any] = {}
    for name, kind in table.columns.items():
        columns[name] = {"type": _TYPES.get(kind, "NCLOB"), "nullable": name not in table.keys}
        if kind == "numeric" and table.modifiers[name] > 0:
            modifier = table.modifiers[name] - 4
            columns[name] |= {"precision": modifier >> 16, "scale": modifier & 0xFFFF}
    return {
        "control": {"table-def": {"columns": columns, "primary-key": list(table.keys)}},
        "metadata": {
            "timestamp": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "record-type": "control",
            "operation": "create-table", "partition-key-type": "task-id", "partition-key-value": "local",
            "schema-name": table.schema, "table-name": table.table,
        },
    }  # fmt: skip


def key_of(table: TableDefinition, row: Mapping[str, Any]) -> str:
    """A row's key, as text that tells rows apart."""
    return json.dumps([row.get(name) for name in table.keys])


def rendered(table: TableDefinition, row: Mapping[str, Any], *, null_and_empty: bool) -> dict[str, Any]:
    """Write a row's text values down as DMS does; an unchanged large column is not there."""
    data: dict[str, Any] = {}
    for name, value in row.items():
        if value is UNCHANGED or (not null_and_empty and name not in table.keys and value in {None, ""}):
            continue
        data[name] = None if value is None else _value(value, table.columns[name])
    return data


def _value(text: str, kind: str) -> Any:
    if kind in _NUMBERS:
        number = Decimal(text)
        return (int(text) if kind.startswith("int") else number) if number.is_finite() else text
    if kind == "bool":
        return text in {"t", "true"}
    if kind in {"timestamp", "timestamptz"} and text not in {"infinity", "-infinity"}:
        return re.sub(r"\+00$", "", text).replace(" ", "T") + "Z"
    if kind == "bytea":
        return "0x" + text.removeprefix("\\x")
    return text
