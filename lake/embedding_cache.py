"""Vectors that were paid for, by the hash of the text they stand for: no rebuild calls the model again (I9, I13).

Written without Spark: a commit takes tens of milliseconds on a local disk.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from embeddings.vectors import is_usable
from lake.layout import STATS_COLUMNS, LakeLayout
from lake.storage import append_rows, create, open_table, scan
from lake.table_schemas import EMBEDDING_CACHE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_COMPACT_AT_FILES = 64
"""Small files above which an append compacts: a commit every five seconds reaches it in five minutes."""
_KEEP_HOURS = 24
"""How long files that a compaction replaced stay for readers that began before it."""


@dataclass(frozen=True)
class EmbeddingCache:
    """The cache of one model in a lake, as any process uses it; plain data, so it pickles.

    Several may add at once; a vector added twice is read once.
    """

    lake: str
    fingerprint: str

    def get(self, content_hashes: Collection[str]) -> dict[str, np.ndarray]:
        """Read some vectors; it reads all hashes for that, so ask for many at once, or join the table."""
        return vectors(self.lake, self.fingerprint, sorted(content_hashes))

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Append vectors in one commit."""
        _append(self.lake, self.fingerprint, {name: np.asarray(v, "<f4").tobytes() for name, v in vectors.items()})

    def frame(self, spark: SparkSession) -> DataFrame:
        """What the cache holds now: `content_hash, embedding`."""
        create_cache(self.lake)
        cached = spark.read.format("delta").load(_path(self.lake))
        return cached.filter(cached["fingerprint"] == self.fingerprint).select("content_hash", "embedding")


def create_cache(lake: str) -> None:
    """Create the table where it is missing."""
    retention = f"interval {_KEEP_HOURS} hours"  # nobody follows it
    properties = {"delta.logRetentionDuration": retention, "delta.deletedFileRetentionDuration": retention}
    create(_path(lake), EMBEDDING_CACHE, stats=STATS_COLUMNS["embedding_cache"], properties=properties)


def append(lake: str, fingerprint: str, vectors: Mapping[str, bytes]) -> None:
    """Add vectors (hash → float32 bytes, little-endian) in one commit, and compact; for the one job that keeps order.

    A hash added twice is read once.
    """
    _append(lake, fingerprint, vectors)
    table = open_table(_path(lake))
    if table is not None and len(table.file_uris()) >= _COMPACT_AT_FILES:
        compact(lake)


def _append(lake: str, fingerprint: str, vectors: Mapping[str, bytes]) -> None:
    create_cache(lake)
    now = dt.datetime.now(dt.UTC)
    rows = [
        {"fingerprint": fingerprint, "content_hash": name, "embedding": raw, "created_at": now}
        for name, raw in vectors.items()
    ]
    append_rows(_path(lake), pa.Table.from_pylist(rows, EMBEDDING_CACHE))


def newest_us(lake: str, fingerprint: str) -> int:
    """When the newest vector was added, in microseconds since the epoch; 0 when there is none."""
    newest = 0
    for batch in scan(_path(lake), ["created_at"], ds.field("fingerprint") == fingerprint):
        moment = pc.max(batch.column(0)).cast(pa.timestamp("us", "UTC")).cast(pa.int64()).as_py()
        newest = max(newest, moment or 0)
    return newest


def hashes(lake: str, fingerprint: str, since_us: int = 0) -> frozenset[str]:
    """The hashes that the cache got a vector for since a moment, in microseconds since the epoch."""
    moment = dt.datetime.fromtimestamp(since_us / 1_000_000, dt.UTC)
    condition = (ds.field("fingerprint") == fingerprint) & (ds.field("created_at") >= moment)
    return frozenset(
        str(name) for batch in scan(_path(lake), ["content_hash"], condition) for name in batch.column(0).to_pylist()
    )


def vectors(lake: str, fingerprint: str, hashes: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The vectors of some hashes, or of all: float32, as they were paid for, but for those that no store would be given."""
    names = None if hashes is None else set(hashes)
    scanned = _scan(lake, fingerprint, ["content_hash", "embedding"], names)
    read = ((name, np.frombuffer(raw, "<f4")) for name, raw in scanned)
    return {name: vector for name, vector in read if is_usable(vector)}


def compact(lake: str) -> None:
    """Rewrite small files as large ones, and drop replaced ones that no reader can still need."""
    table = open_table(_path(lake))
    if table is not None:
        table.optimize.compact()
        table.vacuum(retention_hours=_KEEP_HOURS, dry_run=False, enforce_retention_duration=False)
        table.create_checkpoint()
        table.cleanup_metadata()


def _path(lake: str) -> str:
    return LakeLayout(lake).path("embedding_cache")


def _scan(
    lake: str, fingerprint: str, columns: list[str], hashes: Collection[str] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yield hash and vector (empty unless it was asked for)."""
    condition = ds.field("fingerprint") == fingerprint
    if hashes is not None:
        condition &= ds.field("content_hash").isin(sorted(hashes))
    for batch in scan(_path(lake), columns, condition):
        for row in batch.to_pylist():
            yield row["content_hash"], row.get("embedding", b"")
