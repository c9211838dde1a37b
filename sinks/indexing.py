"""From records to vector stores: the whole live path of `index_documents`, without Spark.

A Spark worker, a Lambda and a Flink function call the same object. It decides nothing that the pure functions do not
decide; it reads, asks the model for what nobody holds, and writes.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add, itemgetter
from typing import TYPE_CHECKING

from schemas.changes import Change, Changes, Ignored, Reject
from sinks.borrowed import Borrowing
from sinks.every_generation import EveryGeneration
from sinks.rounds import Asking, ChangedRows, Held, Rounds, RowName
from sinks.several import Missed, Several
from transforms.decode import decode
from transforms.fold import in_order

if TYPE_CHECKING:
    import numpy as np

    from embeddings.protocol import Embedder, EmbeddingCounts
    from schemas.documents import DocumentWrite, Refusal
    from schemas.records import Record
    from sinks.protocol import Sink
    from transforms.context import DecodeContext
    from transforms.documents import Recipe, WholeRow


type Span = tuple[str, str]


_FRESHNESS_SAMPLE = 500
"""Changes of a table in one result whose freshness is told one by one; more are counted, not timed."""


@dataclass
class IndexResult:
    """What became of records, in counts, and the vectors that were paid for."""

    counts: Counter[str] = field(default_factory=Counter)
    embedded: dict[str, dict[str, np.ndarray]] = field(default_factory=lambda: defaultdict(dict))
    """By the model's fingerprint, by content hash."""
    rejected: list[tuple[Record, Reject]] = field(default_factory=list)
    """The newest record of each document that the model or a store will never take, and the reason."""
    changes: Counter[str] = field(default_factory=Counter)
    """By table."""
    reached_us: dict[str, int] = field(default_factory=dict)
    """By partition: the newest commit that every store has or has missed."""
    freshness_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By table: from the source's commit to when every store had the change, of not more than a sample."""
    missed: dict[str, Missed] = field(default_factory=dict)
    """Stores that lack something of this."""
    positions: dict[tuple[str, str], Span] = field(default_factory=dict)
    """By stream and partition: the first and the last record that a store missed."""
    whole_rows: dict[str, WholeRow] = field(default_factory=dict)
    """By table: the newest whole row, for the columns it lacks."""


@dataclass
class Piece:
    """What a group of records tells the stores, none of which has it yet."""

    rows: dict[str, list[Change]] = field(default_factory=lambda: defaultdict(list))
    truncations: dict[str, str] = field(default_factory=dict)
    told_by: dict[RowName, tuple[str, Record]] = field(default_factory=dict)
    """The newest record of each row, behind its sequence."""
    commits_us: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """By table: the source's commit time of each change."""
    reached_us: dict[str, int] = field(default_factory=dict)
    """By partition: its newest commit."""
    positions: dict[tuple[str, str], Span] = field(default_factory=dict)
    """By stream and partition: the first and the last record that a store should get something of."""
    size: int = 0
    """Bytes of values."""
    waiting: int = 0
    """Stores that have neither got nor missed it."""


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
        self.context = context
        self.recipes = recipes
        self.stores = sinks if isinstance(sinks, Several) else Several(sinks)
        self.embedder = embedder
        self.texts_at_once = texts_at_once
        self.on_step = on_step or (lambda _: None)
        self.every = {sink.name: EveryGeneration(embedder, self.stores.embedders) for sink in self.stores.sinks}

    def asked(self) -> EmbeddingCounts:
        """What this process asked of all models that it embeds with."""
        others = {e.fingerprint: e for every in self.every.values() for e in every.embedders_used()}
        return reduce(add, (embedder.counts() for embedder in others.values()), self.embedder.counts())

    def index(self, records: Iterable[Record]) -> IndexResult:
        """Apply records to every store, each document as a whole."""
        return self.index_groups([records])

    def index_groups(self, groups: Iterable[Iterable[Record]]) -> IndexResult:
        """Apply groups of records as they come: a store takes what has come while it was written, and waits for no other."""
        work = Indexing(self)
        self.stores.write(work.pieces(groups), work.write, work.done)
        return work.result


class Indexing:
    """One call of an indexer: its groups, the model's answers for all stores, and what became of it."""

    def __init__(self, indexer: Indexer) -> None:
        """Begin with nothing."""
        self.result = IndexResult()
        self._indexer = indexer
        self._asking: dict[str, Asking] = defaultdict(Asking)
        self._left_out: set[tuple[RowName, str, Refusal]] = set()
        self._together = threading.Lock()
        """Of the stores' threads, for what they add to."""

    def pieces(self, groups: Iterable[Iterable[Record]]) -> Iterator[tuple[Piece, int]]:
        """Decode groups; what tells the stores nothing is done."""
        for records in groups:
            piece = self.sorted_out(records)
            if piece.positions:
                yield piece, piece.size
            else:
                self._searchable(piece)

    def sorted_out(self, records: Iterable[Record]) -> Piece:
        """Decode a group, and find what it tells of which row."""
        piece, counts = Piece(waiting=len(self._indexer.stores.sinks)), Counter[str]()
        whole_rows: dict[str, WholeRow] = {}
        for record in records:
            counts["records"] += 1
            decoded = decode(record, self._indexer.context)
            _keep_reached(piece, record, decoded)
            if isinstance(decoded, Reject):
                counts["rejects"] += 1
            elif isinstance(decoded, Ignored):
                counts["ignored"] += 1
            elif isinstance(decoded, Changes):
                for change in decoded.changes:
                    if change.commit_time_us is not None:
                        piece.commits_us[change.table].append(change.commit_time_us)
                    if recipe := self._indexer.recipes.get(change.table):
                        _add(piece, change, record)
                        _keep_newest(whole_rows, change.table, recipe.whole_row(change))
                    else:
                        counts["without document"] += 1
        with self._together:
            self.result.counts.update(counts)
            for table, row in whole_rows.items():
                _keep_newest(self.result.whole_rows, table, row)
        self._indexer.on_step("read")
        return piece

    def write(self, store: Sink, lenders: Sequence[Sink], pieces: Sequence[Piece]) -> None:
        """Bring what pieces tell into every generation of a store, in one go."""
        rows: dict[str, list[Change]] = defaultdict(list)
        truncations: dict[str, str] = {}
        for piece in pieces:
            for table, changes in piece.rows.items():
                rows[table] += changes
            for table, sequence in piece.truncations.items():
                truncations[table] = max(truncations.get(table, ""), sequence)
        ordered = {table: in_order(told) for table, told in rows.items()}

        def bring(sink: Sink, embedder: Embedder) -> None:
            for table, sequence in truncations.items():
                sink.truncate(table, sequence)
            rounds = self._rounds(embedder, [each for each in lenders if each.fingerprint == sink.fingerprint])
            recipes = {table: self._indexer.recipes[table].within(embedder.max_tokens) for table in ordered}
            left_out = rounds.write(sink, ChangedRows(ordered, recipes) if ordered else None)
            with self._together:
                self.result.counts.update(rounds.counts)
                for write in left_out:
                    self._reject(write, pieces)

        self._indexer.every[store.name].write(store, bring)

    def done(self, store: str, pieces: Sequence[Piece], missed: Missed | None) -> None:
        """Take it that a store has pieces, or has missed them."""
        with self._together:
            if missed is not None:
                self.result.missed[store] = max(self.result.missed.get(store, missed), missed, key=_weight)
            for piece in pieces:
                for place, span in piece.positions.items() if missed else ():
                    self.result.positions[place] = wider(self.result.positions.get(place, span), span)
                piece.waiting -= 1
                if not piece.waiting:
                    self._searchable(piece)

    def _searchable(self, piece: Piece) -> None:
        now_us, told = time.time_ns() // 1000, self.result
        for table, commits in piece.commits_us.items():
            room = max(0, _FRESHNESS_SAMPLE - len(told.freshness_ms[table]))
            told.freshness_ms[table] += [round((now_us - commit) / 1000, 1) for commit in commits[:room]]
            told.changes[table] += len(commits)
        for place, reached in piece.reached_us.items():
            told.reached_us[place] = max(told.reached_us.get(place, 0), reached)

    def _rounds(self, embedder: Embedder, lenders: Sequence[Sink]) -> Rounds:
        with self._together:
            asked, held = self._asking[embedder.fingerprint], Held(self.result.embedded[embedder.fingerprint])
        at_once = max(self._indexer.texts_at_once, embedder.max_items)
        return Rounds(embedder, Borrowing(held, lenders) if lenders else held, at_once, self._indexer.on_step, asked)

    def _reject(self, write: DocumentWrite, pieces: Sequence[Piece]) -> None:
        """Once for all stores, where the model refuses it."""
        row, why = (write.table, write.key), write.refused
        told = max((piece.told_by[row] for piece in pieces if row in piece.told_by), default=None, key=itemgetter(0))
        if why is not None and told is not None and (row, told[0], why) not in self._left_out:
            self._left_out.add((row, told[0], why))
            self.result.rejected.append((told[1], Reject(why.condition, why.message, row[0], why.stage)))


def _add(piece: Piece, change: Change, record: Record) -> None:
    """Add a change of a table with documents."""
    table, place, here = change.table, (record.stream, record.partition), (record.position, record.position)
    piece.positions[place] = wider(piece.positions.get(place, here), here)
    if change.op == "t":
        piece.truncations[table] = max(piece.truncations.get(table, ""), change.sequence)
        return
    piece.rows[table].append(change)
    piece.size += len(record.value or b"")
    told = piece.told_by.get((table, change.key))
    if told is None or told[0] < change.sequence:
        piece.told_by[table, change.key] = (change.sequence, record)


def _keep_newest(rows: dict[str, WholeRow], table: str, row: WholeRow | None) -> None:
    if row is not None:
        rows[table] = max(row, rows.get(table, row))


def _keep_reached(piece: Piece, record: Record, decoded: Changes | Reject | Ignored) -> None:
    """A partition has come to a record's commit, or to its arrival if that was earlier or no commit is told."""
    told = [c.commit_time_us for c in decoded.changes if c.commit_time_us] if isinstance(decoded, Changes) else []
    if record.timestamp_ms is not None:
        told = [min([record.timestamp_ms * 1000, *told])]
    if told:
        place = f"{record.stream}/{record.partition}"
        piece.reached_us[place] = max(piece.reached_us.get(place, 0), *told)


def _weight(missed: Missed) -> tuple[bool, float]:
    """Of two times that a store missed something, the one that it was tried, and longer ago, is told."""
    return missed.tried, -missed.since


def in_position(position: str) -> tuple[int, str]:
    """Make positions comparable: they are numbers of any length."""
    return len(position), position


def wider(one: Span, other: Span) -> Span:
    """The span that covers both."""
    return min(one[0], other[0], key=in_position), max(one[1], other[1], key=in_position)
