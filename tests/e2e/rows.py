"""Rows in one form, whoever tells them: the source, the lake, its tables, a vector store."""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np
import psycopg
from psycopg import sql
from psycopg.adapt import Loader

from local_stack.models.instant import instant_vector
from schemas.tables import TableConfig
from transforms.context import key_text
from transforms.documents.chunking import split
from transforms.documents.template import render
from transforms.values import exact_json

type Rows = dict[str, dict[str, Any]]
"""By key, as one JSON object: column to value."""
type Kinds = dict[str, str]
"""Column to PostgreSQL's own name of its type."""
type Documents = dict[str, tuple[dict[str, Any], list[str]]]
"""By key: metadata, and the chunks in their order."""

_SPECIAL = {"nan": "NaN", "inf": "Infinity", "infinity": "Infinity", "-inf": "-Infinity", "-infinity": "-Infinity"}


class _AsText(Loader):
    """Leaves a value as PostgreSQL prints it."""

    def load(self, data: Any) -> str:
        return bytes(data).decode()


def normal(value: Any, kind: str) -> Any:
    """One form of a value that PostgreSQL holds as `kind`."""
    if value is None:
        return None
    if kind.endswith("[]"):
        return [normal(item, kind[:-2]) for item in value]
    return _NORMAL.get(kind.partition("(")[0], str)(value)


def _number(value: Any) -> str:
    special = _SPECIAL.get(str(value).lower())
    return special or f"{Decimal(str(value)):f}"


def _float(value: Any) -> str:
    number = float(value)
    return repr(number) if math.isfinite(number) else _SPECIAL[repr(number)]


def _float4(value: Any) -> str:
    number = float(value)
    return str(np.float32(number)) if math.isfinite(number) else _SPECIAL[repr(number)]


def _bytes(value: Any) -> str:
    return value if isinstance(value, str) else base64.b64encode(value).decode()


def _json(value: Any) -> str:
    return exact_json.dumps(exact_json.loads(value) if isinstance(value, str) else value, sort_keys=True)


def _moment(value: Any) -> str:
    moment = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    return str(moment.astimezone(dt.UTC) if moment.tzinfo else moment)


def _time(value: Any) -> str:
    return str(dt.time.fromisoformat(value) if isinstance(value, str) else value)


_NORMAL: Mapping[str, Callable[[Any], Any]] = {
    "smallint": int, "integer": int, "bigint": int, "boolean": bool, "numeric": _number, "real": _float4,
    "double precision": _float, "bytea": _bytes, "json": _json, "jsonb": _json, "timestamp with time zone": _moment,
    "timestamp without time zone": _moment, "time without time zone": _time, "uuid": lambda v: str(uuid.UUID(str(v))),
}  # fmt: skip


def kinds_of(connection: psycopg.Connection[Any], table: str) -> Kinds:
    """The columns of a table, by its name as the configuration writes it."""
    statement = """SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
                   WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
    return dict(connection.execute(statement, [_quoted(table).as_string(connection)]).fetchall())


def source_rows(dsn: str, table: TableConfig) -> tuple[Rows, Kinds]:
    """The rows the source holds, without columns that must not travel."""
    with psycopg.connect(dsn, options="-c TimeZone=UTC") as connection:
        for kind in ("json", "jsonb", "timestamp", "timestamptz"):
            connection.adapters.register_loader(kind, _AsText)
        kinds = kinds_of(connection, table.table)
        cursor = connection.execute(sql.SQL("SELECT * FROM {}").format(_quoted(table.table)))
        rows = [dict(zip(kinds, row, strict=True)) for row in cursor]
    kinds = {name: kind for name, kind in kinds.items() if table.rules.get(name) != "drop"}
    return in_one_form(rows, table, kinds), kinds


def in_one_form(
    rows: Iterator[Mapping[str, Any]] | Sequence[Mapping[str, Any]], table: TableConfig, kinds: Kinds
) -> Rows:
    """Rows by key; a column that a row does not tell is left out."""
    by_key: Rows = {}
    for row in rows:
        normalised = {name: normal(row[name], kind) for name, kind in kinds.items() if name in row}
        key = key_text(table.keys, normalised)
        assert key is not None, f"{table.table}: a row without its key"
        assert key not in by_key, f"{table.table}: the key {key} stands twice"
        by_key[key] = normalised
    return by_key


def _quoted(table: str) -> sql.Composable:
    schema, _, name = table.partition(".")
    return sql.Identifier(schema, name)


def documents_of(rows: Rows, table: TableConfig) -> Documents:
    """The documents a store should hold of these rows; a row without text has none to show."""
    assert table.document is not None
    documents: Documents = {}
    for key, row in rows.items():
        text = render(table.document.template, row)
        if pieces := _pieces(text, table.document.chunk):
            documents[key] = ({name: row[name] for name in table.document.metadata}, list(pieces))
    return documents


_pieces = lru_cache(maxsize=4096)(split)
"""Whoever waits for a store asks for the same texts twice a second; a large one takes seconds to cut."""


def stored_documents(dsn: str, view: str, table: TableConfig, kinds: Kinds) -> Documents:
    """The documents a reader of the store sees; every vector is checked against the instant model's."""
    statement = sql.SQL(
        """SELECT key::text, metadata::text, chunk_index, chunk_text, embedding::text FROM {}
           WHERE table_name = %s ORDER BY document_id, chunk_index"""
    ).format(sql.Identifier(view))
    documents: Documents = {}
    with psycopg.connect(dsn) as connection:
        for key, metadata, index, text, vector in connection.execute(statement, [table.table]):
            known = exact_json.loads(key)
            name = key_text(table.keys, {column: normal(known[column], kinds[column]) for column in table.keys}) or ""
            stored = {column: normal(value, kinds[column]) for column, value in exact_json.loads(metadata).items()}
            before, pieces = documents.setdefault(name, (stored, []))
            assert index == len(pieces), f"{table.table} {name}: chunk {index} stands where {len(pieces)} should"
            assert before == stored
            assert vector_fits(text, vector), f"{table.table} {name}: chunk {index} has another text's vector"
            pieces.append(text)
    return documents


@lru_cache(maxsize=4096)
def vector_fits(text: str, vector: str) -> bool:
    """Whether a stored vector is the one the instant model gives its text, padded with zeros."""
    wanted = instant_vector(text)
    got = np.asarray(json.loads(vector), np.float32)
    return bool(np.allclose(got[: len(wanted)], wanted, atol=1e-6) and not got[len(wanted) :].any())


def differences(wanted: Mapping[str, Any], actual: Mapping[str, Any], what: str) -> list[str]:
    """What is wrong, by key and column, without any value."""
    messages = [f"{what}: {key} is missing" for key in wanted.keys() - actual.keys()]
    messages += [f"{what}: {key} should not be there" for key in actual.keys() - wanted.keys()]
    for key in wanted.keys() & actual.keys():
        if wanted[key] != actual[key]:
            messages.append(f"{what}: {key} differs in {_where(wanted[key], actual[key])}")
    return messages


def _where(wanted: Any, actual: Any) -> str:
    if isinstance(wanted, tuple):
        chunks = "" if wanted[1] == actual[1] else f"chunks ({len(actual[1])} instead of {len(wanted[1])})"
        return " and ".join(filter(None, [_where(wanted[0], actual[0]) if wanted[0] != actual[0] else "", chunks]))
    names = {n for n in wanted.keys() | actual.keys() if wanted.get(n, ...) != actual.get(n, ...)}
    return ", ".join(f"{n} (untold)" if n not in actual else n for n in sorted(names))
