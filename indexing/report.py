"""What a worker tells the driver of what it indexed, as rows."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from embeddings.protocol import EmbeddingCounts
    from indexing.result import IndexResult

REPORT_COLUMNS = (
    "summary string, fingerprint string, content_hash string, embedding binary, stage string, condition string, "
    "message string, table string, stream string, partition string, position string, key binary, value binary, "
    "timestamp_ms bigint"
)
"""One row with the counts, one a new vector, one a rejected record; all else is NULL."""

_ARROW: dict[str, pa.DataType] = {"string": pa.string(), "binary": pa.binary(), "bigint": pa.int64()}
REPORT_SCHEMA = pa.schema([pa.field(name, _ARROW[kind]) for name, kind in map(str.split, REPORT_COLUMNS.split(", "))])


def report_rows(result: IndexResult, asked: EmbeddingCounts) -> pa.RecordBatch:
    """REPORT_COLUMNS, with what the models were asked for all of it."""
    summary = {
        "counts": result.counts, "model": asdict(asked), "reached_us": result.reached_us,
        "freshness_ms": result.freshness_ms, "changes": result.changes,
        "missed": sorted(result.missed), "whole_rows": result.whole_rows,
    }  # fmt: skip
    rows: list[dict[str, Any]] = [{"summary": json.dumps(summary)}]
    for fingerprint, vectors in result.embedded.items():
        told = {name: vector.astype("<f4").tobytes() for name, vector in vectors.items()}
        rows += [{"fingerprint": fingerprint, "content_hash": h, "embedding": raw} for h, raw in told.items()]
    for record, reject in result.rejected:
        why = {"stage": reject.stage, "condition": reject.condition, "message": reject.message, "table": reject.table}
        rows.append(why | {
            "stream": record.stream, "partition": record.partition, "position": record.position, "key": record.key,
            "value": record.value, "timestamp_ms": record.timestamp_ms,
        })  # fmt: skip
    return pa.RecordBatch.from_pylist(rows, REPORT_SCHEMA)


def missed_in(rows: pa.Table) -> frozenset[str]:
    """The stores that some of these workers have missed."""
    summaries = filter(None, rows["summary"].to_pylist())
    return frozenset(store for summary in summaries for store in json.loads(summary)["missed"])
