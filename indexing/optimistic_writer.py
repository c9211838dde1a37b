"""The round that every writer of a store makes: read, plan, get the vectors that are missing, write under the guard.

What the store refused is read and planned again. Who writes says what rows there are (`Work`) and where vectors lie that
were paid for (`VectorCache`); the round is the same for a live batch, a rebuild and a test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from embeddings.protocol import EmbeddingRejected
from embeddings.vectors import checked
from indexing.shared_vectors import Answers
from schemas.documents import Refusal
from schemas.errors import ConfigurationError, DocumentRefusedError, ModelUnavailableError, UnavailableError
from transforms.documents.planning import DocumentSpec, document_id, plan, refused
from transforms.fold import EMPTY, Rows, RowState, apply, join, keys_of, truncated_at

if TYPE_CHECKING:
    from embeddings.protocol import Embedder, Embedding
    from schemas.changes import Change
    from schemas.documents import DocumentWrite, StoredDocument
    from sinks.protocol import DocumentStore, StoredVectors, WritableStore

MAX_ROUNDS = 50
"""Rounds of read, plan and write before a refused document is taken for a store that does not answer truly; each round
is lost only to another writer's progress."""

type RowName = tuple[str, str]
"""Table and key."""


class VectorCache(Protocol):
    """Vectors by content hash that were paid for, wherever they are kept beside the stores."""

    def get(self, content_hashes: Collection[str]) -> Mapping[str, np.ndarray]:
        """Those of the vectors that are held."""

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep new vectors; the model is asked on only when they are kept."""


class Work(Protocol):
    """Rows that are to be brought into a store."""

    def plan(self, sink: DocumentStore) -> list[DocumentWrite]:
        """Read what the store holds, and decide each document's write."""

    def touching(self, rows: Collection[RowName]) -> Self | None:
        """The part of the work that concerns these rows; None when none does."""


@dataclass(frozen=True, slots=True)
class ChangedRows:
    """Changes by table, in the order of their sequences, to be folded into what the store holds."""

    changes: Mapping[str, Sequence[Change]]
    specs: Mapping[str, DocumentSpec]

    def plan(self, sink: DocumentStore) -> list[DocumentWrite]:
        """Fold the changes into the states that the store holds."""
        names = [document_id(table, key) for table, changes in self.changes.items() for key in keys_of(changes)]
        stored, truncated = sink.read_with_truncations(names)
        asked = set(names)
        writes = []
        for table, changes in self.changes.items():
            states = Rows(lambda key, table=table: _held(sink, stored, asked, document_id(table, key)))  # type: ignore[misc]
            for change in changes:
                apply(states, change)
            for key, state in list(states.items()):
                kept = truncated_at(state, truncated.get(table, ""))
                write = plan(stored.get(document_id(table, key)), kept, key, self.specs[table])
                if write:
                    writes.append(write)
        return writes

    def touching(self, rows: Collection[RowName]) -> ChangedRows | None:
        """Those changes that tell or read one of the rows."""
        again = {
            t: [c for c in changes if any((t, k) in rows for k in keys_of([c]))] for t, changes in self.changes.items()
        }
        left = {table: changes for table, changes in again.items() if changes}
        return ChangedRows(left, self.specs) if left else None


@dataclass(frozen=True, slots=True)
class FoldedRows:
    """States by key of one table, folded from all that the lake holds, to be joined with what the store holds."""

    spec: DocumentSpec
    states: Mapping[str, RowState]

    def plan(self, sink: DocumentStore) -> list[DocumentWrite]:
        """Join the states with the store's; a row that a TRUNCATE covers and that the store never held needs no write."""
        stored, marks = sink.read_with_truncations([document_id(self.spec.table, key) for key in self.states])
        truncated = marks.get(self.spec.table, "")
        writes = []
        for key, told in self.states.items():
            held = stored.get(document_id(self.spec.table, key))
            if held is None and told.newest <= truncated:
                continue
            state = join(held.state if held else EMPTY, told)
            write = plan(held, truncated_at(state, truncated), key, self.spec)
            writes += [write] if write else []
        return writes

    def touching(self, rows: Collection[RowName]) -> FoldedRows | None:
        """The states of these rows."""
        left = {key: state for key, state in self.states.items() if (self.spec.table, key) in rows}
        return FoldedRows(self.spec, left) if left else None


@dataclass(frozen=True, slots=True)
class Held:
    """A `VectorCache` in this process's memory."""

    vectors: dict[str, np.ndarray] = field(default_factory=dict)

    def get(self, content_hashes: Collection[str]) -> dict[str, np.ndarray]:
        """Look them up."""
        return {name: self.vectors[name] for name in content_hashes if name in self.vectors}

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Remember them."""
        self.vectors.update(vectors)


@dataclass(slots=True)
class OptimisticWriter:
    """Brings work into stores, as often as it takes.

    Doing the same work again, at the same time or after a kill anywhere, leaves what doing it once leaves. A text is sent
    to the model only when neither the store nor the cache holds its vector, `texts_at_once` at a time, and each answer is
    kept before the next is asked for (I9). `on_step` is told the name of each step as it begins.
    """

    embedder: Embedder
    cache: VectorCache
    texts_at_once: int
    on_step: Callable[[str], None] = lambda _: None
    answers: Answers = field(default_factory=Answers)
    """What the model answered these writers; shared by the stores of a process."""
    counts: Counter[str] = field(default_factory=Counter)
    """writes, refused (and planned again), texts (of added chunks), texts cached, texts embedded, documents
    refused (by the model or the store)."""

    def write(self, sink: WritableStore, work: Work | None) -> list[DocumentWrite]:
        """Write each document as a whole; those refused, by the model or by the store, come back: nothing of them is found."""
        left_out: list[DocumentWrite] = []
        for _ in range(MAX_ROUNDS):
            if work is None:
                return left_out
            writes = self._with_vectors(work.plan(sink), sink)
            self.on_step("write")
            written, again = _write(sink, writes)
            left_out += [write for write in written if write.refused]
            self.counts["writes"] += sum(1 for write in written if not write.refused)
            self.counts["documents refused"] += sum(1 for write in written if write.refused)
            self.counts["refused"] += len(again)
            work = work.touching({(w.table, w.key) for w in writes if w.document_id in again}) if again else None
        raise UnavailableError(f"sink {sink.name} refused the same documents {MAX_ROUNDS} times")

    def _with_vectors(self, writes: Sequence[DocumentWrite], sink: WritableStore) -> list[DocumentWrite]:
        """Get the vectors that are missing; a document with a text the model refuses is written as refused."""
        texts = {chunk.content_hash: chunk.chunk_text for write in writes for chunk in write.added}
        reasons = self._embed(texts, sink) if texts else {}
        ready = []
        for write in writes:
            reason = next((reasons[c.content_hash] for c in write.added if c.content_hash in reasons), None)
            why = Refusal("embed", reason.condition, reason.message) if reason else None
            ready.append(refused(write, why) if why else write)
        return ready

    def _embed(self, texts: Mapping[str, str], sink: StoredVectors) -> dict[str, EmbeddingRejected]:
        """Keep what is remembered or cached and the store lacks, then ask the model for the rest."""
        missing = sink.missing_vectors(sorted(texts))
        remembered = self.answers.known(self.embedder.fingerprint, missing)
        lacking = missing - remembered.keys()
        cached = self.cache.get(lacking) if lacking else {}
        # What was kept before vectors were judged may be one that no store finds.
        found = remembered | {
            h: v for h, v in cached.items() if isinstance(checked(v, self.embedder.dimensions), np.ndarray)
        }
        refused = _kept(sink, found)
        before = self.counts["texts embedded"]
        wanted = (h for h in texts if h in missing and h not in found)
        for group in batched(wanted, self.texts_at_once):
            self.on_step("embed")  # also where another store's question is waited for
            answers = self.answers.once(self.embedder.fingerprint, group, lambda names: self._ask(names, texts))
            self.on_step("keep")
            refused |= _kept(sink, answers)
        self.counts["texts"] += len(texts)
        self.counts["texts cached"] += len(missing) - (self.counts["texts embedded"] - before)
        return refused

    def _ask(self, wanted: Sequence[str], texts: Mapping[str, str]) -> dict[str, Embedding]:
        """Ask the model, and keep its answers."""
        try:
            answers = dict(zip(wanted, self.embedder.embed_documents([texts[h] for h in wanted]), strict=True))
        except UnavailableError as error:
            raise ModelUnavailableError(error.message, condition=error.condition, hint=error.hint) from error
        self.cache.add({h: a for h, a in answers.items() if isinstance(a, np.ndarray)})
        self.counts["texts embedded"] += len(wanted)
        return answers


def _kept(sink: StoredVectors, answers: Mapping[str, Embedding]) -> dict[str, EmbeddingRejected]:
    """Let the store keep the vectors among a model's answers; the rest of them."""
    if vectors := {h: a for h, a in answers.items() if isinstance(a, np.ndarray)}:
        sink.keep_vectors(vectors)
    return {h: a for h, a in answers.items() if isinstance(a, EmbeddingRejected)}


def _held(sink: DocumentStore, stored: dict[str, StoredDocument], asked: set[str], name: str) -> RowState | None:
    """The state of a document, reading one that only a key change led to."""
    if name not in asked:
        asked.add(name)
        stored |= sink.read([name])
    return stored[name].state if name in stored else None


type _Written = tuple[list[DocumentWrite], set[str]]
"""What was written, as it was written, and the ids of what is to be planned again."""


def _write(sink: DocumentStore, writes: Sequence[DocumentWrite]) -> _Written:
    """Write documents; the rows that key changes emptied go last, and wait while one of their table was refused.

    What a key change carries must stand with the new key before the old one lets go of it: else a refused write, or a
    kill, between the two would lose it.
    """
    emptied = [write for write in writes if write.state.key_moves and not write.state.exists]
    if not emptied:
        return _taken(sink, writes)
    names = {write.document_id for write in emptied}
    written, again = _taken(sink, [write for write in writes if write.document_id not in names])
    tables = {write.table for write in writes if write.document_id in again}
    waiting = {write.document_id for write in emptied if write.table in tables}
    last, more = _taken(sink, [write for write in emptied if write.document_id not in waiting])
    return [*written, *last], again | waiting | more


def _taken(sink: DocumentStore, writes: Sequence[DocumentWrite]) -> _Written:
    """Write what the store takes; one document that it does not take is found by halving, and written as refused.

    Raises:
        ConfigurationError: the store refuses a head without values too, so no document is to blame.
    """
    stands = [write for write in writes if write.refused and write.spec_digest == write.refused_as]
    writes = [write for write in writes if not (write.refused and write.spec_digest == write.refused_as)]
    try:
        again = sink.write(writes) if writes else set()
    except DocumentRefusedError as error:
        return _apart(sink, writes, error, stands)
    return [*stands, *(write for write in writes if write.document_id not in again)], again


def _apart(
    sink: DocumentStore, writes: Sequence[DocumentWrite], error: DocumentRefusedError, stands: Sequence[DocumentWrite]
) -> _Written:
    if len(writes) > 1:
        middle = len(writes) // 2
        (written, again), (others, more) = _taken(sink, writes[:middle]), _taken(sink, writes[middle:])
        return [*stands, *written, *others], again | more
    (write,) = writes
    if write.refused is not None and write.refused.stage == "store":
        raise ConfigurationError(error.message, condition=error.condition, hint=error.hint) from error
    return _taken(sink, [refused(write, Refusal("store", error.condition, error.message))])
