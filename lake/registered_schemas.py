"""A registry's schemas kept beside the records that they describe: the lake can be read without the registry (I13)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lake.layout import LakeLayout
from lake.storage import append_rows, rows_of
from transforms.envelopes.registry import RegisteredSchema, SchemaRegistry

TABLE = "registered_schemas"


@dataclass(frozen=True)
class LandedSchemas:
    """The schemas that a source's landed records name; plain data, so it pickles."""

    root: str
    source: str

    def get(self, name: str) -> RegisteredSchema | None:
        """The schema of an id; None where no landed record names it."""
        import pyarrow.dataset as ds

        condition = (ds.field("_source") == self.source) & (ds.field("schema") == name)
        columns = ["format", "definition", "references"]
        rows = rows_of(LakeLayout(self.root).path(TABLE), columns, condition)
        return RegisteredSchema(**rows[0] | {"references": tuple(rows[0]["references"])}) if rows else None


def kept_names(layout: LakeLayout, source: str) -> set[str]:
    """The ids of the schemas that are kept for a source."""
    return {row["schema"] for row in rows_of(layout.path(TABLE), ["_source", "schema"]) if row["_source"] == source}


def keep(
    layout: LakeLayout,
    source: str,
    registry: SchemaRegistry,
    names: Iterable[str],
    transaction: Mapping[str, str] | None = None,
) -> None:
    """Keep the schemas of ids; kept twice they say the same. Raises UnavailableError while the registry does not answer."""
    import pyarrow as pa

    from lake.table_schemas import REGISTERED_SCHEMAS

    now = dt.datetime.now(dt.UTC)
    known = {name: registered for name in sorted(names) if (registered := registry.schema(name))}
    rows = [
        {
            "_source": source, "schema": name, "format": registered.format, "definition": registered.definition,
            "references": list(registered.references), "_ingest_time": now,
        }
        for name, registered in known.items()
    ]  # fmt: skip
    if rows:
        append_rows(layout.path(TABLE), pa.Table.from_pylist(rows, REGISTERED_SCHEMAS), transaction)
