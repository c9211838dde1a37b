"""The report of a worker to the driver, as Arrow rows: counts, new vectors, rejects."""

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
    "message string, table string, _key string, _sequence string, stream string, partition string, position string, "
    "key binary, value binary, timestamp_ms bigint"
)
"""One row with the counts, one for each new vector, one for each reject; other columns are NULL."""

_ARROW: dict[str, pa.DataType] = {"string": pa.string(), "binary": pa.binary(), "bigint": pa.int64()}
REPORT_SCHEMA = pa.schema([pa.field(name, _ARROW[kind]) for name, kind in map(str.split, REPORT_COLUMNS.split(", "))])


def report_rows(result: IndexResult, model_counts: EmbeddingCounts) -> pa.RecordBatch:
    """REPORT_COLUMNS of a result, with the requests to the models for it."""
    summary = {
        "counts": result.counts, "model": asdict(model_counts), "reached_us": result.reached_us,
        "freshness_ms": result.freshness_ms, "changes": result.changes,
        "missed": sorted(result.missed), "whole_rows": result.whole_rows,
    }  # fmt: skip
    rows: list[dict[str, Any]] = [{"summary": json.dumps(summary)}]
    for fingerprint, vectors in result.embedded.items():
        raw = {name: vector.astype("<f4").tobytes() for name, vector in vectors.items()}
        rows += [{"fingerprint": fingerprint, "content_hash": h, "embedding": data} for h, data in raw.items()]
    for record, reject in result.rejected:
        why = {"stage": reject.stage, "condition": reject.condition, "message": reject.message, "table": reject.table}
        why |= {"_key": reject.key, "_sequence": reject.sequence}
        rows.append(why | {
            "stream": record.stream, "partition": record.partition, "position": record.position, "key": record.key,
            "value": record.value, "timestamp_ms": record.timestamp_ms,
        })  # fmt: skip
    return pa.RecordBatch.from_pylist(rows, REPORT_SCHEMA)


def missed_in(rows: pa.Table) -> frozenset[str]:
    """The stores that any of these workers has missed."""
    summaries = filter(None, rows["summary"].to_pylist())
    return frozenset(store for summary in summaries for store in json.loads(summary)["missed"])
