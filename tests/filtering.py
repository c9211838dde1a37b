"""Rows with typed metadata, written into a store as a pipeline writes them; and what a filter means, said once more in Python."""

from __future__ import annotations

import datetime as dt
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from schemas.changes import Change
from schemas.tables import ChunkConfig, DocumentConfig, TableConfig
from sinks.protocol import Sink
from sinks.search import Filters, Index, Question
from tests.feeding import row_state, vector_of
from tests.history import TABLE, key_of
from transforms.documents.planning import DocumentSpec, document_id, plan
from transforms.filters.parsing import Filterable, parse
from transforms.positions.postgresql import lsn_position
from transforms.positions.sequence import sequence, stream_position

TYPES = {
    "big": "bigint", "price": "numeric", "flag": "boolean", "name": "text", "at": "timestamptz", "day": "date",
    "doc": "json", "tags": "array<text>", "free": None,
}  # fmt: skip
"""The metadata columns of `THINGS` and their declared types; the last has none."""
THINGS = TableConfig(
    table=TABLE,
    keys=("id",),
    columns={name: canonical for name, canonical in TYPES.items() if canonical},
    document=DocumentConfig(template="{body}", metadata=tuple(TYPES), chunk=ChunkConfig(max_tokens=200)),
)
COLUMNS = Filterable({TABLE: TYPES})


class Rows:
    """Writes rows of one table, each anew or over what is stored."""

    def __init__(self, sink: Sink, table: TableConfig = THINGS) -> None:
        self._sink = sink
        self._spec = DocumentSpec(table.table, table.document) if table.document else None
        self._position = 0

    def put(self, number: int, row: Mapping[str, Any], *, whole: bool = True) -> None:
        """Write a row; of one that is not `whole`, absent columns are told by no change."""
        self.put_all({number: row}, whole=whole)

    def put_all(self, rows: Mapping[int, Mapping[str, Any]], *, whole: bool = True) -> None:
        """Write many rows at once."""
        assert self._spec is not None
        table, ids = self._spec.table, {number: document_id(self._spec.table, key_of(number)) for number in rows}
        stored, writes = self._sink.read(list(ids.values())), []
        for number, row in rows.items():
            self._position += 1
            at = sequence(0, lsn_position(self._position, self._position), stream_position(str(self._position)))
            change = Change(table, "c", at, key_of(number), {"id": number, **row}, complete=whole)
            write = plan(stored.get(ids[number]), row_state(change), key_of(number), self._spec)
            assert write is not None
            writes.append(write)
        self._sink.keep_vectors({c.content_hash: vector_of(c.chunk_text) for w in writes for c in w.added})
        assert self._sink.write(writes) == set()


def where(*conditions: str, tables: tuple[str, ...] = ()) -> Filters:
    """The filters that these conditions say of `THINGS`."""
    return Filters(tables, tuple(parse(condition, COLUMNS, tables) for condition in conditions))


def hit_numbers(index: Index, way: str, filters: Filters) -> set[Any]:
    """The numbers of the rows that a question about all of them finds."""
    hits = getattr(index, way)(Question("row", vector_of("row")), 200, filters)
    return {hit.key["id"] for hit in hits}


COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def meant(column: str, value: Any) -> Any:
    """A stored value as Python compares it."""
    if value is None:
        return None
    if column == "at":
        moment = dt.datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    if column == "day":
        return dt.date.fromisoformat(value)
    if column in {"big", "price"}:
        return Decimal(value)
    return value


def member(row: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The value of a column, or of a member of a JSON column."""
    value = row.get(path[0])
    if len(path) > 1 and value is not None:
        value = json.loads(value, parse_float=Decimal)
        for name in path[1:]:
            value = value.get(name) if isinstance(value, dict) else None
    return value


def holds(row: Mapping[str, Any], path: Sequence[str], sign: str, values: Sequence[Any]) -> bool:
    """What a condition means of a row, in Python's own types."""
    stored = member(row, path)
    if sign in {"is null", "is not null"}:
        return (stored is None) == (sign == "is null")
    if stored is None:
        return False
    elements = [meant(path[0], e) for e in (stored if isinstance(stored, list) else [stored])]
    wanted = [meant(path[0], value) for value in values]
    if sign == "!=":
        return not any(_alike(e, v) and e == v for e in elements for v in wanted)
    compare = COMPARE["=" if sign == "in" else sign]
    return any(_alike(e, v) and compare(e, v) for e in elements for v in wanted)


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are of one JSON type: a boolean is no number here."""

    def kind(value: Any) -> str:
        return (
            "bool"
            if isinstance(value, bool)
            else "number"
            if isinstance(value, int | Decimal)
            else type(value).__name__
        )

    return kind(one) == kind(other)
