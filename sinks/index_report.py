"""What a worker tells the driver of what it indexed, as rows."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sinks.indexing import IndexResult, wider

if TYPE_CHECKING:
    from embeddings.protocol import EmbeddingCounts

REPORT_COLUMNS = (
    "summary string, fingerprint string, content_hash string, embedding binary, condition string, message string, table string, "
    "stream string, partition string, position string, key binary, value binary, timestamp_ms bigint"
)
"""One row with the counts, one a new vector, one a rejected record; all else is NULL."""

_ARROW: dict[str, pa.DataType] = {"string": pa.string(), "binary": pa.binary(), "bigint": pa.int64()}
REPORT_SCHEMA = pa.schema([pa.field(name, _ARROW[kind]) for name, kind in map(str.split, REPORT_COLUMNS.split(", "))])
_FRESHNESS_SAMPLE = 500
"""Changes of a table in one report whose freshness is told one by one; more are counted, not timed."""


class IndexReport:
    """Adds up index results: one report is read by the driver in the time of one, however many groups it is of."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._whole = IndexResult()
        self._changes: Counter[str] = Counter()
        self._fresh: dict[str, list[float]] = defaultdict(list)

    def __bool__(self) -> bool:
        """Whether anything was added."""
        return bool(self._whole.counts)

    def add(self, result: IndexResult) -> None:
        """Add what became of some records, just now."""
        whole, now_us = self._whole, time.time_ns() // 1000
        whole.counts.update(result.counts)
        whole.rejected += result.rejected
        for fingerprint, vectors in result.embedded.items():
            whole.embedded[fingerprint].update(vectors)
        for table, commits in result.commits_us.items():
            room = _FRESHNESS_SAMPLE - len(self._fresh[table])
            self._fresh[table] += [round((now_us - commit) / 1000, 1) for commit in commits[: max(0, room)]]
            self._changes[table] += len(commits)
        for table, newest in result.newest_commit_us.items():
            whole.newest_commit_us[table] = max(newest, whole.newest_commit_us.get(table, 0))
        for store, missed in result.missed.items():
            whole.missed[store] = max(
                whole.missed.get(store, missed), missed, key=lambda each: (each.tried, -each.since)
            )
        for place, span in result.positions.items() if result.missed else ():
            whole.positions[place] = wider(whole.positions.get(place, span), span)

    def rows(self, asked: EmbeddingCounts) -> pa.RecordBatch:
        """REPORT_COLUMNS, with what the models were asked for all of it."""
        whole = self._whole
        summary = {
            "counts": whole.counts, "model": asdict(asked), "newest_commit_us": whole.newest_commit_us,
            "freshness_ms": self._fresh, "changes": self._changes,
            "missed": {store: [missed.since, missed.tried] for store, missed in whole.missed.items()},
            "positions": [[*place, *span] for place, span in whole.positions.items()],
        }  # fmt: skip
        rows: list[dict[str, Any]] = [{"summary": json.dumps(summary)}]
        for fingerprint, vectors in whole.embedded.items():
            told = {name: vector.astype("<f4").tobytes() for name, vector in vectors.items()}
            rows += [{"fingerprint": fingerprint, "content_hash": h, "embedding": raw} for h, raw in told.items()]
        for record, reject in whole.rejected:
            rows.append({
                "condition": reject.condition, "message": reject.message, "table": reject.table, "stream": record.stream,
                "partition": record.partition, "position": record.position, "key": record.key, "value": record.value,
                "timestamp_ms": record.timestamp_ms,
            })  # fmt: skip
        return pa.RecordBatch.from_pylist(rows, REPORT_SCHEMA)
