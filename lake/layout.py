"""Where the lake keeps what, and the columns it adds.

Every table is plain Delta: read by Spark and by the deltalake package. Statistics in the Delta log cover the columns
named here alone, so that no value of a row ever stands in it (I14).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

RAW_COLUMNS = ("stream", "partition", "position", "key", "value", "headers", "timestamp")
"""The record as it came."""

_TEXT: pa.DataType = pa.string()
_BYTES: pa.DataType = pa.binary()
_COUNT: pa.DataType = pa.int64()
_TIME: pa.DataType = pa.timestamp("us", tz="UTC")
_DATE: pa.DataType = pa.date32()
_HEADERS: pa.DataType = pa.list_(pa.struct([("key", _TEXT), ("value", _BYTES)]))

CHANGES = pa.schema(
    [
        ("stream", _TEXT), ("partition", _TEXT), ("position", _TEXT), ("timestamp", _TIME), ("_source", _TEXT),
        ("_table", _TEXT), ("_op", _TEXT), ("_sequence", _TEXT), ("_commit_time", _TIME), ("_ingest_time", _TIME),
        ("_schema_id", _TEXT), ("_key", _TEXT), ("_related_key", _TEXT), ("headers", _HEADERS), ("key", _BYTES),
        ("value", _BYTES), ("_ingest_date", _DATE),
    ]
)  # fmt: skip
"""`_key` and `_related_key` (the other row of a key change) are JSON objects; `_op` is one of c u d r t."""

REJECTS = pa.schema(
    [
        ("stage", _TEXT), ("condition", _TEXT), ("message", _TEXT), ("stream", _TEXT), ("partition", _TEXT),
        ("position", _TEXT), ("timestamp", _TIME), ("_source", _TEXT), ("_table", _TEXT), ("_ingest_time", _TIME),
        ("_key", _TEXT), ("_sequence", _TEXT), ("column", _TEXT), ("headers", _HEADERS), ("key", _BYTES),
        ("value", _BYTES), ("_ingest_date", _DATE),
    ]
)  # fmt: skip
"""What can never be processed. Stage `decode`: the raw record. Later stages: `_key`, `_sequence` and the column's name.

A row of stage `decode` that names a column is of a record that landed without it; of those that name none, each is one record.
"""

IGNORED = pa.schema(
    [
        ("stream", _TEXT), ("partition", _TEXT), ("_source", _TEXT), ("_table", _TEXT), ("reason", _TEXT),
        ("records", _COUNT), ("_ingest_time", _TIME),
    ]
)  # fmt: skip
"""Records that carry no row, counted per batch; with `changes` and `rejects` they add up to the records read (I6)."""

SCHEMAS = pa.schema(
    [
        ("_source", _TEXT), ("_table", _TEXT), ("schema_id", _TEXT), ("columns", _TEXT), ("keys", pa.list_(_TEXT)),
        ("_ingest_time", _TIME),
    ]
)  # fmt: skip
"""Column types the sources announced; `columns` is a JSON object from name to canonical type (`transforms.values.types`)."""

TOMBSTONES = pa.schema(
    [
        ("_table", _TEXT), ("_op", _TEXT), ("_sequence", _TEXT), ("_ingest_time", _TIME), ("_key", _TEXT),
        ("_state", _TEXT), ("_moves", pa.list_(_TEXT)),
    ]
)  # fmt: skip
"""Rows that are gone: op d with the state that outlives them (I4), op t (and an empty key) for a table's TRUNCATE.

`_moves` names the rows that took a row's values along. Rows are only added: several of one key are joined on reading.
"""

EMBEDDING_CACHE = pa.schema(
    [("fingerprint", _TEXT), ("content_hash", _TEXT), ("embedding", _BYTES), ("created_at", _TIME)]
)
"""`fingerprint` names model, dimensions and purpose; `embedding` is float32, little-endian."""

STATS_COLUMNS = {
    "changes": "stream,partition,timestamp,_source,_table,_op,_sequence,_commit_time,_ingest_time,_schema_id",
    "rejects": "stage,condition,stream,partition,timestamp,_source,_table,_ingest_time",
    "ignored": "stream,partition,_source,_table,reason,records,_ingest_time",
    "schemas": "_source,_table,schema_id,_ingest_time",
    "tombstones": "_op,_sequence,_ingest_time",
    "tables": "_op,_sequence,_commit_time,_ingest_time",
    "embedding_cache": "created_at",
}
"""`delta.dataSkippingStatsColumns` of each table: no column that holds a row's text or key."""

RESERVED = ("_key", "_op", "_sequence", "_commit_time", "_ingest_time", "_pending", "_state")
"""Columns that current tables have beside the business columns."""

_SAFE = re.compile(r"[A-Za-z0-9-]")


def escape(name: str) -> str:
    """Make a name one safe path segment, reversibly: what is no ASCII letter, digit, `-` or inner `_` or `.` becomes `~hh`."""
    kept = (
        c if _SAFE.match(c) or (i and c in "_.") else "".join(f"~{b:02x}" for b in _utf8(c)) for i, c in enumerate(name)
    )
    return "".join(kept)


def _utf8(char: str) -> bytes:
    return char.encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class LakeLayout:
    """The paths of one lake: a plain folder or `s3a://bucket/prefix`."""

    root: str

    def path(self, name: str) -> str:
        """The path of one of the lake's own tables: changes, rejects, ignored, schemas, tombstones, embedding_cache."""
        return f"{self.root.rstrip('/')}/{name}"

    def table(self, table: str) -> str:
        """The path of the current state of a source table, `schema.table`."""
        owner, _, name = table.partition(".")
        return f"{self.path('tables')}/{escape(owner)}/{escape(name)}"


def rust_uri(path: str) -> str:
    """The same path as the deltalake package spells it (s3:// rather than Hadoop's s3a://)."""
    return re.sub(r"^s3[an]://", "s3://", path)
