"""The columns of a current table: which there are, how they are named and typed, and how they change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from lake.layout import RESERVED, STATS_COLUMNS
from lake.storage import COLUMN_MAPPING, exists
from lake.tables.drift import DriftRules, joined
from lake.tables.typed import arrow_type
from transforms.values.types import spark_type

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.types import StructType

    from lake.tables.observed_types import ObservedTypes
    from schemas.tables import TableConfig

_DELETION_VECTORS = {"delta.enableDeletionVectors": "true"}
_NEEDS_MAPPING = re.compile(r"[ ,;{}()\n\t=]")

RESERVED_TYPES: Mapping[str, pa.DataType] = {
    "_key": pa.string(),
    "_op": pa.string(),
    "_sequence": pa.string(),
    "_commit_time": pa.timestamp("us", tz="UTC"),
    "_ingest_time": pa.timestamp("us", tz="UTC"),
    "_pending": pa.list_(pa.string()),
    "_state": pa.string(),
}


@dataclass(frozen=True, slots=True)
class ColumnShape:
    """A business column: its name at the source, its name here, and its Spark type."""

    source: str
    name: str
    kind: str
    hidden: bool = False
    """Whether readers do not see it: the warehouse keeps the values of a column that it was not to take in."""
    waiting: bool = False
    """Whether rows of the warehouse may lack values that the column refused while its type was narrower."""

    @property
    def metadata(self) -> dict[str, str]:
        """A column named otherwise than at the source says so in its comment."""
        return {"comment": self.source} if self.source != self.name else {}


@dataclass(frozen=True, slots=True)
class TableShape:
    """The business columns of a table, in order."""

    columns: tuple[ColumnShape, ...] = ()

    def outgrown(self, other: TableShape) -> bool:
        """Whether rows of this shape have to be written anew in another: a column has another type there, or is left out."""
        kinds = other.kinds
        return any(kinds.get(c.source) != c.kind for c in self.columns)

    @property
    def kinds(self) -> dict[str, str]:
        """Spark type by source column."""
        return {c.source: c.kind for c in self.columns}

    @property
    def needs_mapping(self) -> bool:
        """Whether a name asks for Delta's column mapping."""
        return any(_NEEDS_MAPPING.search(c.name) for c in self.columns)

    def arrow(self) -> pa.DataType:
        """The business columns as one Arrow struct."""
        return pa.struct([(c.name, arrow_type(c.kind)) for c in self.columns])


def evolved(current: TableShape, table: TableConfig, observed: ObservedTypes, seen: Iterable[str] = ()) -> TableShape:
    """The shape that declared and announced types ask for; columns keep their place and name.

    A declared type counts as it is. Announced types are joined: the narrowest type that holds them all, which is text
    where they have nothing in common. A column that was only `seen`, or that nobody typed, is text. Where the table's `drift`
    is not `evolve`, columns that were not announced first are left out, and types stay as they were announced first.
    """
    rules = DriftRules.of(table, observed)
    kept = TableShape(tuple(column for column in current.columns if rules.takes(column.source)))
    names = column_names(kept, filter(rules.takes, (*table.types, *observed.kinds, *seen)), RESERVED)
    return TableShape(
        tuple(ColumnShape(source, name, _kind(source, table, observed)) for source, name in names.items())
    )


def column_names(
    current: TableShape, sources: Iterable[str], reserved: Iterable[str], fold: Callable[[str], str] = str
) -> dict[str, str]:
    """Names of columns by their name at the source: present ones as they are, new ones behind them.

    `fold` is what the store makes of a name. One that another column has, in whatever case, gets a number.
    """
    names = {c.source: c.name for c in current.columns}
    used = {name.lower() for name in names.values()} | set(reserved)
    for source in sources:
        if source not in names:
            name, number = fold(source), 2
            while name.lower() in used or not name:
                name, number = f"{fold(source)}_{number}", number + 1
            names[source] = name
            used.add(name.lower())
    return names


def _kind(source: str, table: TableConfig, observed: ObservedTypes) -> str:
    if source in table.types:
        return spark_type(table.types[source])
    return joined(accepted_kinds(source, table, observed) or ("text",))


def accepted_kinds(source: str, table: TableConfig, observed: ObservedTypes) -> tuple[str, ...]:
    """The announced types that a column's type follows, oldest first: all of them, or the first alone."""
    kinds, rules = tuple(observed.kinds.get(source, ())), DriftRules.of(table, observed)
    return kinds[:1] if rules.takes(source) and rules.of_column(source) != "evolve" else kinds


def stored_shape(spark: SparkSession, path: str) -> TableShape | None:
    """The shape of the table at a path; None where there is none."""
    if not exists(spark, path):
        return None
    fields = spark.read.format("delta").load(path).schema.fields
    return TableShape(
        tuple(
            ColumnShape(f.metadata.get("comment") or f.name, f.name, f.dataType.simpleString())
            for f in fields
            if f.name not in RESERVED
        )
    )


def spark_schema(shape: TableShape) -> StructType:
    """The whole table's schema."""
    from pyspark.sql.pandas.types import from_arrow_schema

    fields = [(c.name, arrow_type(c.kind)) for c in shape.columns] + list(RESERVED_TYPES.items())
    schema = from_arrow_schema(pa.schema(fields), prefer_timestamp_ntz=True)
    for column, field in zip(shape.columns, schema.fields, strict=False):
        field.metadata = column.metadata
    return schema


def create_or_extend(
    spark: SparkSession, path: str, current: TableShape | None, shape: TableShape, *, deletion_vectors: bool = False
) -> None:
    """Create the table or add its new columns; columns whose type changed are the rewriter's business."""
    from delta import DeltaTable

    if current is None:
        builder = DeltaTable.createIfNotExists(spark).location(path).addColumns(spark_schema(shape))
        properties = {"delta.dataSkippingStatsColumns": STATS_COLUMNS["tables"]}
        # A column without a time zone may come later; the feature is only turned on by itself at creation.
        properties |= {"delta.feature.timestampNtz": "supported"}
        properties |= (COLUMN_MAPPING if shape.needs_mapping else {}) | (_DELETION_VECTORS if deletion_vectors else {})
        for name, value in properties.items():
            builder = builder.property(name, value)
        builder.execute()
        return
    allow_names(spark, path, current, shape)
    new = {c.source for c in shape.columns} - {c.source for c in current.columns}
    if new:
        added = TableShape(tuple(c for c in shape.columns if c.source in new))
        empty = spark.createDataFrame([], spark_schema(added))
        empty.write.format("delta").mode("append").option("mergeSchema", "true").save(path)


def allow_names(spark: SparkSession, path: str, current: TableShape, shape: TableShape) -> None:
    """Turn column mapping on where a new name is the first to need it."""
    if shape.needs_mapping and not current.needs_mapping:
        _set(spark, path, COLUMN_MAPPING)


def set_deletion_vectors(spark: SparkSession, path: str, *, wanted: bool) -> None:
    """Have merges of a table that is there write deletion vectors, or no more of them; those that it has stay until a purge."""
    stored = {row["key"]: row["value"] for row in spark.sql(f"SHOW TBLPROPERTIES {_quoted(path)}").collect()}
    if wanted != (stored.items() >= _DELETION_VECTORS.items()):
        _set(spark, path, {name: str(wanted).lower() for name in _DELETION_VECTORS})


def _set(spark: SparkSession, path: str, properties: Mapping[str, str]) -> None:
    listed = ", ".join(f"'{name}' = '{value}'" for name, value in properties.items())
    spark.sql(f"ALTER TABLE {_quoted(path)} SET TBLPROPERTIES ({listed})")


def _quoted(path: str) -> str:
    escaped = path.replace("`", "``")
    return f"delta.`{escaped}`"
