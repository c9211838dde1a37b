"""Columns as a captured database, its records and the pipeline name them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.tables import TableConfig


@dataclass(frozen=True)
class KnownTable:
    """A table as the database has it."""

    columns: tuple[str, ...]
    keys: tuple[str, ...]
    """Columns of the primary key."""
    name: str = field(default="", compare=False)
    """The one of its names that it has in the database; empty where it was not looked up."""


def adjusted(name: str) -> str:
    """A column's name as Debezium adjusts it for Avro (`field.name.adjustment.mode=avro`)."""
    valid = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"_{valid}" if valid[:1].isdigit() else valid


def recorded(tables: Sequence[TableConfig], known: Mapping[str, KnownTable]) -> list[TableConfig]:
    """The tables with the columns of the database renamed as records in Avro have them."""
    return [_recorded(table, known[table.table].columns) if table.table in known else table for table in tables]


def _recorded(table: TableConfig, columns: Sequence[str]) -> TableConfig:
    fields = {column: adjusted(column) for column in columns}
    renamed = {column: table.renamed.get(name, name) for column, name in fields.items() if name != column}
    return table.model_copy(update={"renamed": table.renamed | renamed}) if renamed else table


def record_keys(tables: Sequence[TableConfig], known: Mapping[str, KnownTable]) -> dict[str, tuple[str, ...]]:
    """By table: the columns of `keys`, named as the database does, where they are not the primary key."""

    def differing() -> Iterator[tuple[str, tuple[str, ...]]]:
        for table in tables:
            if (existing := known.get(table.table)) is None:
                continue
            columns = {table.renamed.get(column, column): column for column in existing.columns}
            keys = tuple(columns[key] for key in table.keys if key in columns)
            if len(keys) == len(table.keys) and set(keys) != set(existing.keys):
                yield table.table, keys

    return dict(differing())
