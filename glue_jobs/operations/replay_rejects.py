"""Rejects → lake and stores: `ragstream replay` processes rejects again after their cause was mended.

Run again, it lands nothing and writes nothing; records that still fail stay open in `rejects`, the others are settled.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from embeddings import EmbeddingConfig
from glue_jobs.config.pipeline import PipelineConfig, decode_contexts
from glue_jobs.operations.indexers import indexers
from indexing.result import IndexResult
from lake.embedding_cache import EmbeddingCache
from lake.history.current import record_of
from lake.landing.replay import Choice, Relanded, by_source, land_again, open_rejects, records_of_rows
from lake.landing.settled import Row, settle
from lake.layout import LakeLayout
from schemas.changes import Changes
from schemas.records import Record
from transforms.context import DecodeContext
from transforms.envelopes.decode import decode

type Counts = dict[str, Counter[str]]
"""By table (empty where it is unknown): landed, landed before, still rejected, without bytes, landed since (without bytes
too: the stream was read again), columns still rejected, documents written, documents refused."""


def replay(config: PipelineConfig, choice: Choice = Choice()) -> Counts:  # noqa: B008 - it is frozen
    """Land the rejects that decode now, then write the rows of all rejects to the stores under the guard. Idempotent.

    Rejects that are none any more are settled at the end, so a replay that is killed is done again whole.
    """
    return _Replay(config).run(choice)


@dataclass
class _Replay:
    """One replay."""

    config: PipelineConfig
    counts: Counts = field(default_factory=lambda: defaultdict(Counter))
    rows: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Keys of the rows that the stores may lack, by table."""
    refused: set[tuple[str, str]] = field(default_factory=set)
    """Rows whose documents the model or a store refuses still."""

    def __post_init__(self) -> None:
        self.layout = LakeLayout(self.config.lake.path)
        self.contexts = decode_contexts(self.config)

    def run(self, choice: Choice) -> Counts:
        owners = {table.table: self.config.owner(table) for table in self.config.tables}
        settled: list[Row] = []
        refused: list[tuple[Row, list[tuple[str, str]]]] = []
        for source, rejects in by_source(open_rejects(self.layout, choice), owners).items():
            if source not in self.contexts:
                continue
            relanded = land_again(
                self.layout, source, self.contexts[source], [row for row in rejects if row["stage"] == "decode"]
            )
            settled += relanded.settled
            for row in _count(relanded, self.counts):
                self.rows[row["_table"]].add(row["_key"])
            refused += [(row, _rows_of(row, self.contexts[source])) for row in rejects if row["stage"] != "decode"]
        for _, names in refused:
            for table, key in names:
                self.rows[table].add(key)
        if self.config.sinks and self.config.embedding is not None:
            self._index(self.config.embedding)
            settled += [row for row, names in refused if names and self.refused.isdisjoint(names)]
        settle(self.layout, settled)
        return self.counts

    def _index(self, embedding: EmbeddingConfig) -> None:
        with indexers(self.config, embedding) as indexer_of:
            for table in sorted(self.rows.keys() & self.config.document_specs.keys()):
                records: dict[str, list[Record]] = defaultdict(list)
                for source, record in records_of_rows(self.layout, table, self.rows[table]):
                    records[source].append(record)
                for source in records.keys() & self.contexts.keys():
                    self._keep(table, indexer_of(self.contexts[source]).index(records[source]))

    def _keep(self, table: str, result: IndexResult) -> None:
        """Count what was written, and keep the new vectors."""
        self.counts[table]["documents written"] += result.counts["writes"]
        self.counts[table]["documents refused"] += result.counts["documents refused"]
        self.refused |= {(reject.table or "", reject.key or "") for _, reject in result.rejected}
        for fingerprint, vectors in result.embedded.items():
            if vectors:
                EmbeddingCache(self.config.lake.path, fingerprint).add(vectors)


def _count(relanded: Relanded, counts: Counts) -> Iterator[Row]:
    """Count the outcomes of rejects, and yield the landed changes, whose rows the stores may lack."""
    outcomes = {
        "landed": relanded.landed, "landed before": relanded.standing, "still rejected": relanded.rejected,
        "without bytes": relanded.without_bytes, "landed since": [row for row in relanded.settled if row["value"] is None],
    }  # fmt: skip
    for outcome, rows in outcomes.items():
        for row in rows:
            counts[row["_table"] or ""][outcome] += 1
    for table, number in relanded.unfit.items():
        counts[table]["columns still rejected"] += number
    yield from relanded.landed
    yield from relanded.standing


def _rows_of(reject: Row, context: DecodeContext) -> list[tuple[str, str]]:
    """The rows of a refused document's record: the reject names it, or, before that was kept, its bytes do."""
    if reject["_key"] and reject["_table"]:
        return [(reject["_table"], reject["_key"])]
    result = decode(record_of(reject), context) if reject["value"] is not None else None
    return [(change.table, change.key) for change in result.changes] if isinstance(result, Changes) else []
