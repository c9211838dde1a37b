"""The columns of a warehouse table: which there are, in which place, how they are named and typed, and how they change.

A column keeps its place and its name for ever: the state of a row speaks of places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from urllib.parse import quote, unquote

from lake.tables.drift import DriftRules
from lake.tables.observed_types import ObservedTypes
from lake.tables.shape import ColumnShape, TableShape, column_names
from schemas.errors import ConfigurationError
from schemas.tables import TableConfig
from warehouse.config import NAME_BYTES, RedshiftConfig
from warehouse.kinds import column_kind

RESERVED = (
    "_key", "_live", "_revision", "_sequence", "_oldest", "_commit_time", "_loaded_at", "_pending", "_state",
)  # fmt: skip
"""Columns that a warehouse table has before the business columns."""
_SYSTEM = ("oid", "tableoid", "xmin", "cmin", "xmax", "cmax", "ctid", "deletexid", "insertxid")
"""Names that Redshift or PostgreSQL keep for themselves."""
MOST_COLUMNS = 1500
"""Redshift has room for 1,600, ours and what a change of type needs included ("CREATE TABLE usage notes")."""
_AT_ONCE = 10
"""Columns added by one transaction: the Data API takes 40 statements."""


def evolved(
    current: TableShape, table: TableConfig, observed: ObservedTypes, observed_columns: Iterable[str] = ()
) -> TableShape:
    """The shape that the announced types ask for: new columns at the end, and no type narrower than it is.

    A column that the table's `drift` leaves out is hidden: its values are there once it is taken in.
    """
    rules = DriftRules.of(table, observed)
    kinds, sources = current.kinds, (*table.keys, *table.types, *observed.kinds, *observed_columns)
    names = column_names(current, sources, (*RESERVED, *_SYSTEM), folded)
    if len(names) > MOST_COLUMNS:
        raise ConfigurationError(
            f"{table.table} has {len(names)} columns, the warehouse takes {MOST_COLUMNS}",
            hint="leave the table out of this pipeline, or split it at its source",
        )
    present = {column.source: column for column in current.columns}
    columns = []
    for source, name in names.items():
        kind, before = column_kind(source, table, observed, kinds.get(source)), present.get(source)
        waiting = before is not None and (before.waiting or before.kind != kind)
        columns.append(ColumnShape(source, name, kind, not rules.takes(source), waiting))
    return TableShape(tuple(columns))


def filled(shape: TableShape) -> TableShape:
    """The shape once no row lacks a value that fits."""
    return TableShape(tuple(replace(column, waiting=False) for column in shape.columns))


def folded(source: str) -> str:
    """A name as Redshift folds it, to lower case, and cut to the bytes that it takes."""
    return source.lower().replace("\0", "").encode()[:NAME_BYTES].decode(errors="ignore") or "column"


def steps(current: TableShape, target: TableShape) -> Iterator[TableShape]:
    """The shapes on the way from one to another, each reached by one transaction."""
    kinds = {c.name: c for c in target.columns}
    columns = list(current.columns)
    changing = [at for at, column in enumerate(columns) if kinds[column.name] != column]
    for at in changing:
        columns[at] = kinds[columns[at].name]
        yield TableShape(tuple(columns))
    for at in range(len(columns), len(target.columns), _AT_ONCE):
        yield TableShape(target.columns[: at + _AT_ONCE])


def fingerprint(shape: TableShape) -> str:
    """What a load compares, so that it never writes a row without a column that another driver added."""
    text = repr([(c.source, c.name, registered_kind(c)) for c in shape.columns])
    return hashlib.sha256(text.encode()).hexdigest()


def plain(name: str) -> str:
    """A name of the source as text without quotes, backslashes or anything but ASCII, reversibly."""
    return quote(name, safe=" ")


def registered(rows: Sequence[Sequence[object]]) -> TableShape:
    """The shape in rows of the registry (place, source, name, kind, and what else of the table)."""
    ordered = sorted(rows, key=lambda row: int(str(row[0])))
    return TableShape(tuple(_registered(unquote(str(s)), unquote(str(n)), str(k)) for _, s, n, k, *_ in ordered))


def _registered(source: str, name: str, kind: str) -> ColumnShape:
    kind, *marks = kind.split(" ")
    return ColumnShape(source, name, kind, _HIDDEN in marks, _WAITING in marks)


def registered_kind(column: ColumnShape) -> str:
    """A column's kind as the registry has it."""
    marks = [mark for mark, is_set in ((_HIDDEN, column.hidden), (_WAITING, column.waiting)) if is_set]
    return " ".join([column.kind, *marks])


_HIDDEN, _WAITING = "hidden", "waiting"


def names_of(tables: Iterable[TableConfig], config: RedshiftConfig) -> dict[str, str]:
    """The warehouse's name for each table; raises ConfigurationError where two would share one."""
    names: dict[str, str] = {}
    for table in tables:
        plain_name = config.names.get(table.table) or folded(table.table.partition(".")[2])
        other = next((table_name for table_name, name in names.items() if name == plain_name), None)
        if other is not None or plain_name.startswith("ragstream_") or plain_name.endswith(ROWS):
            problem = f"{table.table} and {other} are both" if other else f"{table.table} cannot be"
            raise ConfigurationError(
                f"warehouse: {problem} called {plain_name}",
                condition="WAREHOUSE_NAME_TAKEN",
                hint=f"give one of them another name: warehouse.names: {{{table.table}: NAME}}",
            )
        names[table.table] = plain_name
    return names


ROWS = "__rows"
"""Suffix of the table behind a view."""


def marked(current: TableShape, target: TableShape) -> list[ColumnShape]:
    """Columns that are hidden, shown, waiting or filled otherwise than before, as they will be."""
    pairs = zip(current.columns, target.columns, strict=False)
    return [after for before, after in pairs if before != after and before.kind == after.kind]


def retyped(current: TableShape, target: TableShape) -> list[tuple[ColumnShape, ColumnShape]]:
    """Columns whose type changes, as they are and as they will be."""
    pairs = zip(current.columns, target.columns, strict=False)
    return [(before, after) for before, after in pairs if before.kind != after.kind]
