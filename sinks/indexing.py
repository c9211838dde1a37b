"""From records to vector stores: the whole live path of `index_documents`, without Spark.

A Spark worker, a Lambda and a Flink function call the same object. It decides nothing that the pure functions do not
decide; it reads, asks the model for what nobody holds, and writes.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from schemas.changes import Change, Changes, Ignored, Reject
from sinks.borrowed import Borrowing
from sinks.every_generation import EveryGeneration
from sinks.rounds import Asking, ChangedRows, Held, Rounds
from sinks.several import Missed, Several
from transforms.decode import decode
from transforms.fold import in_order

if TYPE_CHECKING:
    import numpy as np

    from embeddings.protocol import Embedder, EmbeddingCounts, EmbeddingRejected
    from schemas.records import Record
    from sinks.protocol import Sink
    from transforms.context import DecodeContext
    from transforms.documents import Recipe


type Span = tuple[str, str]


@dataclass
class IndexResult:
    """What became of a batch of records, in counts, and the vectors that were paid for."""

    counts: Counter[str] = field(default_factory=Counter)
    embedded: dict[str, dict[str, np.ndarray]] = field(default_factory=lambda: defaultdict(dict))
    """By the model's fingerprint, by content hash."""
    rejected: list[tuple[Record, Reject]] = field(default_factory=list)
    """The newest record of each document with a text the model will never take, and the reason."""
    newest_commit_us: dict[str, int] = field(default_factory=dict)
    """By table."""
    commits_us: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """By table: the source's commit time of each change, for its freshness."""
    missed: dict[str, Missed] = field(default_factory=dict)
    """Stores that got nothing of this."""
    positions: dict[tuple[str, str], Span] = field(default_factory=dict)
    """By stream and partition: the first and the last record that a store should get something of."""


class Indexer:
    """Applies records to vector stores.

    Safe to call with any records, again and in any order, by any number of processes at once: the same set of records
    leaves the same documents. A store that does not answer raises UnavailableError, and the same call later succeeds.
    """

    def __init__(
        self,
        context: DecodeContext,
        recipes: Mapping[str, Recipe],
        sinks: Sequence[Sink] | Several,
        embedder: Embedder,
        *,
        texts_at_once: int,
        on_step: Callable[[str], None] | None = None,
    ) -> None:
        """Take the parts; `texts_at_once` texts at most are unsaved between the model and the stores.

        `on_step` is told the name of each step as it begins; tests stop the process there. Stores given as
        `Several` may be set aside: then `IndexResult.missed` must be remembered; others are all waited for.
        """
        self._context = context
        self._recipes = recipes
        self._stores = sinks if isinstance(sinks, Several) else Several(sinks)
        self._embedder = embedder
        self._texts_at_once = texts_at_once
        self._on_step = on_step or (lambda _: None)
        self._told_by: dict[tuple[str, str], tuple[str, Record]] = {}
        self._every = {sink.name: EveryGeneration(embedder, self._stores.embedders) for sink in self._stores.sinks}

    def asked(self) -> EmbeddingCounts:
        """What this process asked of all models that it embeds with."""
        others = {e.fingerprint: e for every in self._every.values() for e in every.embedders_used()}
        return reduce(add, (embedder.counts() for embedder in others.values()), self._embedder.counts())

    def index(self, records: Iterable[Record]) -> IndexResult:
        """Apply records to every store, each document as a whole."""
        result = IndexResult()
        rows: dict[str, list[Change]] = defaultdict(list)
        truncations: dict[str, str] = {}
        self._told_by = {}
        for record in records:
            self._sort_out(record, result, rows, truncations)
        self._on_step("read")
        work = ChangedRows({table: in_order(changes) for table, changes in rows.items()}, self._recipes)
        asking: dict[str, Asking] = defaultdict(Asking)
        left_out: dict[tuple[str, str], EmbeddingRejected] = {}
        together = threading.Lock()

        def write(sink: Sink, embedder: Embedder, lenders: Sequence[Sink]) -> None:
            for table, sequence in truncations.items():
                sink.truncate(table, sequence)
            with together:
                asked, held = asking[embedder.fingerprint], Held(result.embedded[embedder.fingerprint])
            cache = Borrowing(held, lenders) if lenders else held
            at_once = max(self._texts_at_once, embedder.max_items)
            rounds = Rounds(embedder, cache, at_once, self._on_step, asked)
            refused = rounds.write(sink, work if rows else None)
            with together:
                left_out.update({(each.table, each.key): reason for each, reason in refused})
                result.counts.update(rounds.counts)

        def write_every(sink: Sink, lenders: Sequence[Sink]) -> None:
            self._every[sink.name].write(sink, lambda one, embedder: write(one, embedder, _of(one, lenders)))

        missed = self._stores.write(write_every)
        result.missed = missed if result.positions else {}
        self._reject(left_out, result)
        return result

    def _sort_out(
        self, record: Record, result: IndexResult, rows: dict[str, list[Change]], truncations: dict[str, str]
    ) -> None:
        result.counts["records"] += 1
        decoded = decode(record, self._context)
        if isinstance(decoded, Reject):
            result.counts["rejects"] += 1
        elif isinstance(decoded, Ignored):
            result.counts["ignored"] += 1
        elif isinstance(decoded, Changes):
            for change in decoded.changes:
                table, commit_us = change.table, change.commit_time_us
                if commit_us is not None:
                    result.newest_commit_us[table] = max(result.newest_commit_us.get(table, 0), commit_us)
                    result.commits_us[table].append(commit_us)
                if table not in self._recipes:
                    result.counts["without document"] += 1
                    continue
                place, here = (record.stream, record.partition), (record.position, record.position)
                result.positions[place] = wider(result.positions.get(place, here), here)
                if change.op == "t":
                    truncations[table] = max(truncations.get(table, ""), change.sequence)
                else:
                    rows[table].append(change)
                    told = self._told_by.get((table, change.key))
                    if told is None or told[0] < change.sequence:
                        self._told_by[table, change.key] = (change.sequence, record)

    def _reject(self, left_out: Mapping[tuple[str, str], EmbeddingRejected], result: IndexResult) -> None:
        for (table, key), reason in left_out.items():
            told = self._told_by.get((table, key))
            reject = Reject(reason.condition, reason.message, table, "embed")
            result.rejected += [(told[1], reject)] if told else []


def _of(sink: Sink, lenders: Sequence[Sink]) -> list[Sink]:
    """Those of the lenders that hold vectors of a sink's model."""
    return [lender for lender in lenders if lender.fingerprint == sink.fingerprint]


def in_position(position: str) -> tuple[int, str]:
    """Make positions comparable: they are numbers of any length."""
    return len(position), position


def wider(one: Span, other: Span) -> Span:
    """The span that covers both."""
    return min(one[0], other[0], key=in_position), max(one[1], other[1], key=in_position)
