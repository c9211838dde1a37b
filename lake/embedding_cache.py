"""Vectors that were paid for, by the hash of their text: no rebuild calls the model again (I9, I13).

Written without Spark: a commit takes tens of milliseconds on a local disk.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from embeddings.vectors import is_usable
from lake.layout import STATS_COLUMNS, LakeLayout
from lake.storage import append_rows, compact, create, scan
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

    Several processes may add at once; a vector added twice is read once.
    """

    lake: str
    fingerprint: str

    def get(self, content_hashes: Collection[str]) -> dict[str, np.ndarray]:
        """Read vectors by their hashes; the whole column of hashes is read for that, so ask for many at once, or join."""
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
    compact(_path(lake), _COMPACT_AT_FILES, _KEEP_HOURS)


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
    """The usable vectors of some hashes, or of all: float32, as the model gave them."""
    condition = ds.field("fingerprint") == fingerprint
    if hashes is not None:
        condition &= ds.field("content_hash").isin(sorted(set(hashes)))
    rows = (row for batch in scan(_path(lake), ["content_hash", "embedding"], condition) for row in batch.to_pylist())
    decoded = ((row["content_hash"], np.frombuffer(row["embedding"], "<f4")) for row in rows)
    return {name: vector for name, vector in decoded if is_usable(vector)}


def _path(lake: str) -> str:
    return LakeLayout(lake).path("embedding_cache")
