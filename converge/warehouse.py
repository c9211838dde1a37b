"""What a warehouse holds of a source table, in a form that compares with the model."""

from __future__ import annotations

import contextlib
import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np

from lake.tables.shape import TableShape
from lake.tables.typed import UnfitError
from transforms.values import exact_json
from warehouse.clients import open_client
from warehouse.config import RedshiftConfig
from warehouse.kinds import fitted
from warehouse.shape import registered
from warehouse.sql import Registry, TableStatements, quoted


def loaded(config: RedshiftConfig, table: str, name: str) -> tuple[TableShape, dict[str, dict[str, Any]]]:
    """The columns of a table, and its live rows by key; columns that are pending are left out of their row."""
    with contextlib.closing(open_client(config)) as client:
        statements = TableStatements(Registry(config.schema_name), table, name)
        shape = registered([row[:4] for row in client.run([statements.known()])])
        if not shape.columns:
            return shape, {}
        columns = ", ".join(quoted(column.name) for column in shape.columns)
        rows = client.run([f"SELECT _key, _pending, {columns} FROM {statements.rows} WHERE _live"])  # noqa: S608 - quoted
    sources = [column.source for column in shape.columns]
    live = {}
    for key, pending, *values in rows:
        hidden = _json(pending) or ()
        live[str(key)] = {n: v for n, v in zip(sources, values, strict=True) if n not in hidden}
    return shape, live


def drop(config: RedshiftConfig) -> None:
    """Drop the schemas whose names begin as the configured one, which `schema_beside` named, with all that is in them."""
    with contextlib.closing(open_client(config)) as client:
        for (name,) in client.run(["SELECT nspname FROM pg_namespace"]):
            if str(name).startswith(f"{config.schema_name}_"):
                client.run([f"DROP SCHEMA IF EXISTS {quoted(str(name))} CASCADE"])


def is_same(wanted: Any, actual: Any, kind: str) -> bool:
    """Whether a canonical value is what its column holds; a value that does not fit is NULL there, and has a reject."""
    with contextlib.suppress(UnfitError):
        return bool(_plain(fitted(wanted, kind), kind) == _plain(actual, kind))
    return actual is None


def _plain(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "super":
        return _json(value)
    if kind == "float":
        return str(np.float32(value))
    if kind == "double" or kind.startswith("decimal"):
        return str(Decimal(str(value)).normalize())
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
    if kind == "binary":
        return value.hex() if isinstance(value, bytes) else str(value).removeprefix("\\x")
    return value


def _json(value: Any) -> Any:
    """A SUPER as a client returns it: text, or parsed already."""
    return exact_json.loads(value) if isinstance(value, str | bytes) else value
