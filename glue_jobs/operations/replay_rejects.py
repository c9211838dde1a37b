"""Rejects → lake and stores: `ragstream replay` processes rejects again after their cause was mended.

Run again, it lands nothing and writes nothing; records that still fail stay in `rejects`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial

from embeddings import open_embedder
from embeddings.registry import embedder_of
from glue_jobs.config.pipeline import PipelineConfig, decode_context
from glue_jobs.operations.ownership import owner_of
from indexing.indexer import Indexer
from lake.embedding_cache import EmbeddingCache
from lake.history.current import record_of
from lake.landing.replay import Relanded, Row, by_source, land_again, raw_rejects, records_of_rows
from lake.layout import LakeLayout
from schemas.changes import Changes
from schemas.records import Record
from sinks import open_sink
from transforms.context import DecodeContext
from transforms.documents.planning import DocumentSpec
from transforms.envelopes.decode import decode

type Counts = dict[str, Counter[str]]
"""By table (empty where it is unknown): landed, landed before, still rejected, columns still rejected, documents written,
documents refused."""


def replay(config: PipelineConfig) -> Counts:
    """Land the rejects that decode now, then write the rows of all rejects to the stores under the guard. Idempotent."""
    layout = LakeLayout(config.lake.path)
    contexts = {source.name: decode_context(config, source.name) for source in config.sources}
    owners = {table.table: config.owner(table) for table in config.tables}
    counts: Counts = defaultdict(Counter)
    rows: dict[str, set[str]] = defaultdict(set)
    for source, rejects in by_source(raw_rejects(layout, "decode"), owners).items():
        if source in contexts:
            relanded = land_again(layout, source, contexts[source], rejects)
            for row in _count(relanded, counts):
                rows[row["_table"]].add(row["_key"])
    refused = [*raw_rejects(layout, "embed"), *raw_rejects(layout, "store")]
    for source, rejects in by_source(refused, owners).items():
        if source in contexts:
            for table, key in _touched(rejects, contexts[source]):
                rows[table].add(key)
    if config.sinks and config.embedding is not None:
        _index(config, contexts, rows, counts)
    return counts


def _count(relanded: Relanded, counts: Counts) -> Iterator[Row]:
    """Count the outcomes of rejects, and yield the landed changes, whose rows the stores may lack."""
    outcomes = {"landed": relanded.landed, "landed before": relanded.standing, "still rejected": relanded.rejected}
    for outcome, rows in outcomes.items():
        for row in rows:
            counts[row["_table"] or ""][outcome] += 1
    for table, number in relanded.unfit.items():
        counts[table]["columns still rejected"] += number
    yield from relanded.landed
    yield from relanded.standing


def _touched(rejects: list[dict[str, object]], context: DecodeContext) -> list[tuple[str, str]]:
    decoded = (decode(record_of(row), context) for row in rejects)
    return [(c.table, c.key) for result in decoded if isinstance(result, Changes) for c in result.changes]


def _index(
    config: PipelineConfig, contexts: dict[str, DecodeContext], rows: dict[str, set[str]], counts: Counts
) -> None:
    assert config.embedding is not None  # noqa: S101 - the caller looked
    embedder = open_embedder(config.embedding)
    specs = {table.table: spec for table in config.tables if (spec := DocumentSpec.of(table))}
    with ExitStack() as stack:
        sinks = [
            stack.enter_context(closing(open_sink(sink, embedder.fingerprint, embedder.dimensions)))
            for sink in config.sinks
        ]
        for sink in sinks:
            sink.prepare(owner_of(config))
        embedders = partial(embedder_of, own=config.embedding)
        for table in sorted(rows.keys() & specs.keys()):
            records: dict[str, list[Record]] = defaultdict(list)
            for source, record in records_of_rows(LakeLayout(config.lake.path), table, rows[table]):
                records[source].append(record)
            for source in records.keys() & contexts.keys():
                indexer = Indexer(
                    contexts[source], specs, sinks, embedder, texts_at_once=embedder.max_items, embedders=embedders
                )
                result = indexer.index(records[source])
                counts[table]["documents written"] += result.counts["writes"]
                counts[table]["documents refused"] += result.counts["documents refused"]
                for fingerprint, vectors in result.embedded.items():
                    if vectors:
                        EmbeddingCache(config.lake.path, fingerprint).add(vectors)
