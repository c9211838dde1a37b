"""The optimistic writer: read, plan, get the missing vectors, write under the guard; what the guard refused once more.

A live batch, a rebuild and a repair differ in their rows (`Work`) and in where vectors are kept beside the stores
(`missing_vectors.VectorCache`), and in nothing else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from indexing.missing_vectors import MissingVectors
from schemas.changes import Change
from schemas.documents import DocumentWrite, Refusal, StoredDocument
from schemas.errors import ConfigurationError, DocumentRefusedError, UnavailableError
from sinks.protocol import DocumentStore, WritableStore
from transforms.documents.planning import DocumentSpec, document_id, plan, refused
from transforms.fold import EMPTY, Rows, RowState, apply, join, keys_of, truncated_at

MAX_ROUNDS = 50
"""Rounds of read, plan and write until the store counts as broken: a sound one refuses a document only where another
writer has written it."""

type RowName = tuple[str, str]
"""Table and key."""


class Work(Protocol):
    """Rows that are to be brought into a store."""

    def plan(self, sink: DocumentStore) -> list[DocumentWrite]:
        """Read the stored documents, and decide each one's write."""

    def touching(self, rows: Collection[RowName]) -> Self | None:
        """The part of the work that concerns these rows; None when none does."""


@dataclass(frozen=True, slots=True)
class ChangedRows:
    """Changes by table, in the order of their sequences, to be folded into the stored states."""

    changes: Mapping[str, Sequence[Change]]
    specs: Mapping[str, DocumentSpec]

    def plan(self, sink: DocumentStore) -> list[DocumentWrite]:
        """Fold the changes into the stored states."""
        names = [document_id(table, key) for table, changes in self.changes.items() for key in keys_of(changes)]
        stored, truncated = sink.read_with_truncations(names)
        read = set(names)
        writes = []
        for table, changes in self.changes.items():
            states = Rows(lambda key, table=table: _stored_state(sink, stored, read, document_id(table, key)))  # type: ignore[misc]
            for change in changes:
                apply(states, change)
            earlier = _earlier_keys(states)
            for key, state in list(states.items()):
                kept = truncated_at(state, truncated.get(table, ""))
                write = plan(stored.get(document_id(table, key)), kept, key, self.specs[table])
                if write:
                    writes.append(replace(write, earlier_keys=earlier[key]) if key in earlier else write)
        return writes

    def touching(self, rows: Collection[RowName]) -> ChangedRows | None:
        """The changes that write or read one of these rows."""
        again = {
            t: [c for c in changes if any((t, k) in rows for k in keys_of([c]))] for t, changes in self.changes.items()
        }
        left = {table: changes for table, changes in again.items() if changes}
        return ChangedRows(left, self.specs) if left else None


@dataclass(frozen=True, slots=True)
class FoldedRows:
    """States by key of one table, folded from the lake, to be joined with the stored states."""

    spec: DocumentSpec
    states: Mapping[str, RowState]

    def plan(self, sink: DocumentStore) -> list[DocumentWrite]:
        """Join the states with the store's; a row that a TRUNCATE covers and that the store never had needs no write."""
        stored, marks = sink.read_with_truncations([document_id(self.spec.table, key) for key in self.states])
        truncated = marks.get(self.spec.table, "")
        writes = []
        for key, state in self.states.items():
            document = stored.get(document_id(self.spec.table, key))
            if document is None and state.newest <= truncated:
                continue
            joined = join(document.state if document else EMPTY, state)
            write = plan(document, truncated_at(joined, truncated), key, self.spec)
            writes += [write] if write else []
        return writes

    def touching(self, rows: Collection[RowName]) -> FoldedRows | None:
        """The states of these rows."""
        left = {key: state for key, state in self.states.items() if (self.spec.table, key) in rows}
        return FoldedRows(self.spec, left) if left else None


@dataclass(slots=True)
class OptimisticWriter:
    """Brings work into stores, in as many rounds as it takes.

    Doing the same work again, at the same time or after a kill anywhere, leaves what doing it once leaves.
    """

    vectors: MissingVectors
    waiting: set[RowName] = field(default_factory=set)
    """Rows that the last call of `write` left unwritten, and earlier keys of theirs: texts wait for the model's budget."""

    @property
    def counts(self) -> Counter[str]:
        """Those of `vectors`, and writes, refused (and planned again) and documents refused (by the model or the store)."""
        return self.vectors.counts

    def write(self, sink: WritableStore, work: Work | None) -> list[DocumentWrite]:
        """Write each document as a whole; return those that the model or the store refuses, which have no chunks then."""
        refusals: list[DocumentWrite] = []
        self.waiting = set()
        for _ in range(MAX_ROUNDS):
            if work is None:
                return refusals
            writes = self._with_vectors(work.plan(sink), sink)
            self.vectors.on_step("write")
            written, again = _write(sink, writes)
            refusals += [write for write in written if write.refused]
            self.counts["writes"] += sum(1 for write in written if not write.refused)
            self.counts["documents refused"] += sum(1 for write in written if write.refused)
            self.counts["refused"] += len(again)
            rows = {row for write in writes if write.document_id in again for row in write.rows}
            work = work.touching(rows) if rows else None
        raise UnavailableError(f"sink {sink.name} refused the same documents {MAX_ROUNDS} times")

    def _with_vectors(self, writes: Sequence[DocumentWrite], sink: WritableStore) -> list[DocumentWrite]:
        """Get the missing vectors; a document with a text that the model refuses is written as refused."""
        texts = {chunk.content_hash: chunk.chunk_text for write in writes for chunk in write.added}
        reasons = self.vectors.embed(texts, sink) if texts else {}
        ready = []
        for write in self._not_waiting(writes) if texts and self.vectors.left else writes:
            reason = next((reasons[c.content_hash] for c in write.added if c.content_hash in reasons), None)
            why = Refusal("embed", reason.condition, reason.message) if reason else None
            ready.append(refused(write, why) if why else write)
        return ready

    def _not_waiting(self, writes: Sequence[DocumentWrite]) -> list[DocumentWrite]:
        """Writes whose texts have vectors. Beside one that has not, a row that a key change emptied waits too: see `_write`."""
        late = {
            write.document_id
            for write in writes
            if any(chunk.content_hash in self.vectors.left for chunk in write.added)
        }
        tables = {write.table for write in writes if write.document_id in late}
        late |= {w.document_id for w in writes if w.table in tables and w.state.key_moves and not w.state.exists}
        self.waiting |= {row for write in writes if write.document_id in late for row in write.rows}
        return [write for write in writes if write.document_id not in late]


def _earlier_keys(states: Mapping[str, RowState]) -> dict[str, tuple[str, ...]]:
    """The keys from which key changes lead to a key, directly or by others, by that key.

    A change that comes late concerns a row by its old key alone: only the stored state says which row it is now.
    """
    before: dict[str, set[str]] = defaultdict(set)
    for key, state in states.items():
        for new_key in state.key_moves.values():
            before[new_key].add(key)
    earlier = {}
    for key in before:
        reached, ahead = set[str](), {key}
        while ahead:
            ahead = set().union(*(before.get(one, ()) for one in ahead)) - reached
            reached |= ahead
        earlier[key] = tuple(sorted(reached - {key}))
    return earlier


def _stored_state(sink: DocumentStore, stored: dict[str, StoredDocument], read: set[str], name: str) -> RowState | None:
    """The state of a document; one that only a key change names is read now."""
    if name not in read:
        read.add(name)
        stored |= sink.read([name])
    return stored[name].state if name in stored else None


type _Written = tuple[list[DocumentWrite], set[str]]
"""The writes that the store accepted, and the ids of those to be planned again."""


def _write(sink: DocumentStore, writes: Sequence[DocumentWrite]) -> _Written:
    """Write documents; the rows that key changes emptied go last, and wait while another of their table is refused.

    The values that a key change carries must be stored under the new key before they are deleted under the old one: else a
    refused write, or a kill, between the two would lose them.
    """
    emptied = [write for write in writes if write.state.key_moves and not write.state.exists]
    if not emptied:
        return _write_or_refuse(sink, writes)
    names = {write.document_id for write in emptied}
    written, again = _write_or_refuse(sink, [write for write in writes if write.document_id not in names])
    tables = {write.table for write in writes if write.document_id in again}
    waiting = {write.document_id for write in emptied if write.table in tables}
    last, more = _write_or_refuse(sink, [write for write in emptied if write.document_id not in waiting])
    return [*written, *last], again | waiting | more


def _write_or_refuse(sink: DocumentStore, writes: Sequence[DocumentWrite]) -> _Written:
    """Write documents; one that the store refuses for good is isolated by bisection, and written as refused.

    Raises:
        ConfigurationError: the store refuses a document row without values too, so no document is to blame.
    """
    unchanged = [write for write in writes if write.refused and write.spec_digest == write.refused_as]
    writes = [write for write in writes if not (write.refused and write.spec_digest == write.refused_as)]
    try:
        again = sink.write(writes) if writes else set()
    except DocumentRefusedError as error:
        return _bisect(sink, writes, error, unchanged)
    return [*unchanged, *(write for write in writes if write.document_id not in again)], again


def _bisect(
    sink: DocumentStore,
    writes: Sequence[DocumentWrite],
    error: DocumentRefusedError,
    unchanged: Sequence[DocumentWrite],
) -> _Written:
    if len(writes) > 1:
        middle = len(writes) // 2
        (written, again), (others, more) = (_write_or_refuse(sink, half) for half in (writes[:middle], writes[middle:]))
        return [*unchanged, *written, *others], again | more
    (write,) = writes
    if write.refused is not None and write.refused.stage == "store":
        raise ConfigurationError(error.message, condition=error.condition, hint=error.hint) from error
    return _write_or_refuse(sink, [refused(write, Refusal("store", error.condition, error.message))])
