"""The indexer as a Spark stage: Arrow batches of records in, counts and new vectors out.

A Python worker keeps its connections between micro-batches. Nothing is shuffled, and nothing on the driver grows with
the batch but new vectors and rejects.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from embeddings import EmbeddingConfig, open_embedder, texts_at_once
from embeddings.registry import embedder_of
from indexing.garbage import freeze
from indexing.indexer import Indexer
from indexing.report import REPORT_COLUMNS, REPORT_SCHEMA, report_rows
from schemas.records import Record
from sinks import SinkConfig, open_sink
from transforms.context import DecodeContext
from transforms.documents.planning import DocumentSpec

FEW_RECORDS = 256
"""Records that are indexed by the driver itself."""

freeze()  # PySpark's worker collects after each task: it need not walk the imported modules


@dataclass(frozen=True)
class IndexSettings:
    """All a worker needs; plain configuration, so it pickles."""

    identity: str
    """A worker makes one indexer for each identity and keeps it."""
    context: DecodeContext
    specs: Mapping[str, DocumentSpec]
    sinks: tuple[SinkConfig, ...]
    embedding: EmbeddingConfig
    batch: str = ""
    """Names the micro-batch: a store that one of its tasks has missed is left out by the others of the same process."""
    without: frozenset[str] = frozenset()
    """Stores that are not written."""
    use_peers: frozenset[str] = frozenset()
    """Stores that take vectors from the others before the model is asked."""


_indexers: dict[str, Indexer] = {}
_missed: dict[str, tuple[str, set[str]]] = {}
"""By identity: the last micro-batch, and the stores that its tasks have missed in this process."""


def _indexer(settings: IndexSettings) -> Indexer:
    if settings.identity not in _indexers:
        embedder = open_embedder(settings.embedding)
        sinks = [open_sink(config, embedder.fingerprint, embedder.dimensions) for config in settings.sinks]
        _indexers[settings.identity] = Indexer(
            settings.context,
            settings.specs,
            sinks,
            embedder,
            texts_at_once=texts_at_once(settings.embedding, embedder),
            embedders=partial(embedder_of, own=settings.embedding),
            deadlines={config.name: config.deadline for config in settings.sinks},
        )
    return _indexers[settings.identity]


def index_records(settings: IndexSettings, records: Sequence[Record]) -> Iterator[pa.RecordBatch]:
    """Index records in this process, and yield REPORT_COLUMNS if there was a record.

    Run again, it leaves the same documents and asks the model for no text that a store has the vector of.
    """
    if not records:
        return
    indexer = _indexer(settings)
    before = indexer.model_counts()
    batch, missed = _missed.get(settings.identity, ("", set()))
    missed = missed if batch == settings.batch else set()
    result = indexer.index(records, without=settings.without | missed, use_peers=settings.use_peers)
    result.missed |= missed
    _missed[settings.identity] = (settings.batch, result.missed)
    yield report_rows(result, indexer.model_counts() - before)


def index_partition(settings: IndexSettings) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The same for `DataFrame.mapInArrow`, of a partition's Arrow batches (RECORD_COLUMNS)."""
    return lambda batches: index_records(settings, [record for batch in batches for record in records_of(batch)])


@dataclass
class IndexStage:
    """Indexes micro-batches: a few records where the driver is, many on the executors; the same function, the same writes.

    A stage of Python workers takes longer than all the work of a small batch. The driver gets at most `FEW_RECORDS`, and none
    while batches are larger than that.
    """

    settings: IndexSettings
    _few: bool = False

    def __call__(
        self, frame: DataFrame, *, without: frozenset[str] = frozenset(), use_peers: frozenset[str] = frozenset()
    ) -> pa.Table:
        """Index one micro-batch of RECORD_COLUMNS; REPORT_COLUMNS. Run again, it leaves the same documents."""
        settings = replace(self.settings, batch=uuid.uuid4().hex, without=without, use_peers=use_peers)
        records = self._collected(frame) if self._few else None
        if records is None:
            report = frame.mapInArrow(index_partition(settings), REPORT_COLUMNS).toArrow()
            summaries = filter(None, report["summary"].to_pylist())
            number = sum(json.loads(summary)["counts"]["records"] for summary in summaries)
        else:
            report = pa.Table.from_batches(list(index_records(settings, records)), REPORT_SCHEMA)
            number = len(records)
        self._few = number <= FEW_RECORDS // 2
        return report

    def _collected(self, frame: DataFrame) -> list[Record] | None:
        """The batch's records, None if they are more than `FEW_RECORDS`; partitions are read no further than that."""
        rows = frame.withColumn("timestamp", F.unix_millis("timestamp")).limit(FEW_RECORDS + 1).collect()
        return [_record(row) for row in rows] if len(rows) <= FEW_RECORDS else None


def _record(row: Row) -> Record:
    stream, partition, position, key, value, headers, time_ms = row
    pairs = tuple((name, _bytes(data)) for name, data in headers or ())
    return Record(stream, partition, position, _bytes(key), _bytes(value), pairs, time_ms)


def _bytes(value: bytearray | None) -> bytes | None:
    return None if value is None else bytes(value)


def records_of(batch: pa.RecordBatch) -> Iterator[Record]:
    """The records of an Arrow batch with RECORD_COLUMNS."""
    columns = {name: batch.column(name) for name in batch.schema.names}
    times = columns["timestamp"].cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).to_pylist()
    headers = columns["headers"].to_pylist()
    plain = [columns[n].to_pylist() for n in ("stream", "partition", "position", "key", "value")]
    for stream, partition, position, key, value, pairs, time_ms in zip(*plain, headers, times, strict=True):
        named = tuple((h["key"], h["value"]) for h in pairs or ())
        yield Record(stream, partition, position, key, value, named, time_ms)
