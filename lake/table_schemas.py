"""The Arrow schemas of the lake's own tables."""

from __future__ import annotations

import pyarrow as pa

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

SETTLED = pa.schema(
    [
        ("stage", _TEXT), ("stream", _TEXT), ("partition", _TEXT), ("position", _TEXT), ("column", _TEXT),
        ("_source", _TEXT), ("_table", _TEXT), ("_ingest_time", _TIME),
    ]
)  # fmt: skip
"""Rejects that a replay has brought where they belong: `status` counts them no more, unless they are rejected again later."""

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
        ("_ingest_time", _TIME), ("_sequence", _TEXT), ("defaulted", pa.list_(_TEXT)),
    ]
)  # fmt: skip
"""Column types the sources announced; `columns` is a JSON object from name to canonical type (`transforms.values.types`).

`_sequence` is that of the first change with these types; a row more says that an earlier one came later.
`defaulted` names columns that are NOT NULL or have a default.
"""

REGISTERED_SCHEMAS = pa.schema(
    [
        ("_source", _TEXT), ("schema", _TEXT), ("format", _TEXT), ("definition", _TEXT), ("references", pa.list_(_TEXT)),
        ("_ingest_time", _TIME),
    ]
)  # fmt: skip
"""Schemas of a registry that landed records name, by id: whoever decodes these needs the registry no more."""

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
