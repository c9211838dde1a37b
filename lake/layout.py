"""Where the lake keeps what, and the columns it adds.

Every table is plain Delta: read by Spark and by the deltalake package (current tables by its QueryBuilder alone where they have
deletion vectors or odd column names). Statistics in the Delta log cover the columns
named here alone, so that no value of a row ever stands in it (I14).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

RAW_COLUMNS = ("stream", "partition", "position", "key", "value", "headers", "timestamp")
"""The record as it came."""

STATS_COLUMNS = {
    "changes": "stream,partition,timestamp,_source,_table,_op,_sequence,_commit_time,_ingest_time,_schema_id",
    "rejects": "stage,condition,stream,partition,timestamp,_source,_table,_ingest_time",
    "settled": "stage,stream,partition,_source,_table,_ingest_time",
    "ignored": "stream,partition,_source,_table,reason,records,_ingest_time",
    "schemas": "_source,_table,schema_id,_ingest_time",
    "registered_schemas": "_source,schema,format,_ingest_time",
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
    parts = (
        c if _SAFE.match(c) or (i and c in "_.") else "".join(f"~{b:02x}" for b in _utf8(c)) for i, c in enumerate(name)
    )
    return "".join(parts)


def _utf8(char: str) -> bytes:
    return char.encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class LakeLayout:
    """The paths of one lake: a plain folder or `s3a://bucket/prefix`."""

    root: str

    def path(self, name: str) -> str:
        """The path of one of the lake's own tables: changes, rejects, ignored, schemas and the like."""
        return f"{self.root.rstrip('/')}/{name}"

    def table(self, table: str) -> str:
        """The path of the current state of a source table, `schema.table`."""
        owner, _, name = table.partition(".")
        return f"{self.path('tables')}/{escape(owner)}/{escape(name)}"


def rust_uri(path: str) -> str:
    """The same path as the deltalake package spells it (s3:// rather than Hadoop's s3a://)."""
    return re.sub(r"^s3[an]://", "s3://", path)
