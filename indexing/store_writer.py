"""The writer of one store: work units into every index version of it, and one report of each text and reject."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from embeddings.protocol import Embedder
from indexing.missing_vectors import MemoryCache, MissingVectors
from indexing.optimistic_writer import ChangedRows, OptimisticWriter, RowName
from indexing.peer_vectors import Peer, PeerVectors
from indexing.result import Written
from indexing.shared_vectors import SharedEmbeddings
from indexing.versions.every_version import EveryIndexVersion
from indexing.work_unit import WorkUnit, changes_of, truncations_of
from schemas.changes import Reject
from schemas.documents import DocumentWrite
from sinks.protocol import Sink
from transforms.documents.planning import DocumentSpec
from transforms.fold import in_order


@dataclass(frozen=True)
class Shared:
    """What the writers of one process have in common."""

    specs: Mapping[str, DocumentSpec]
    texts_at_once: int
    on_step: Callable[[str], None]
    embeddings: SharedEmbeddings = field(default_factory=SharedEmbeddings)
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Guards `WorkUnit.reported`."""
    patience: float | None = None
    """As `MissingVectors.patience`."""


class StoreWriter:
    """Writes work units into one store. One thread uses it.

    Writing the same units again, or the same records in other units, leaves the same documents. A connection that broke is
    opened again by the next call.
    """

    def __init__(self, shared: Shared, sink: Sink, versions: EveryIndexVersion, peers: Sequence[Peer] = ()) -> None:
        """Take what all writers share, the store, its index versions, and the other stores of the pipeline."""
        self.sink = sink
        self._shared = shared
        self._versions = versions
        self._peers = peers
        self.unreported = Written()
        """Results of failed calls: the next call that succeeds returns them too."""

    def write(self, units: Sequence[WorkUnit], *, use_peers: bool = False) -> Written:
        """Bring units into every index version of the store; the result includes that of failed calls before.

        Where the process has patience, rows whose texts wait for the model's budget are left out, and named in the result: the
        same units, and others with them, are to be written again.

        With `use_peers`, missing vectors that this process does not know are asked of the peers before the model is asked.

        Raises:
            UnavailableError: the store does not answer; the same call later succeeds, and no text is paid for twice.
            ModelUnavailableError: the model does not.
            ConfigurationError: waiting does not help.
        """
        if not use_peers:
            self._close_peers()
        changes = {table: in_order(several) for table, several in changes_of(units).items()}
        truncations, waiting = truncations_of(units), set[RowName]()

        def bring(sink: Sink, embedder: Embedder) -> None:
            for table, sequence in truncations.items():
                sink.truncate(table, sequence)
            specs = {table: self._shared.specs[table].within(embedder.max_tokens) for table in changes}
            writer = self._writer(embedder, self._peers if use_peers else ())
            for write in writer.write(sink, ChangedRows(changes, specs) if changes else None):
                self._reject(write, units)
            waiting.update(writer.waiting)

        self._versions.write(self.sink, bring)
        written, self.unreported = self.unreported, Written()
        written.waiting = waiting
        return written

    def close(self) -> None:
        """Close connections; the next call opens others."""
        self._close_peers()
        self.sink.close()

    def _close_peers(self) -> None:
        for peer in self._peers:
            peer.close()

    def _writer(self, embedder: Embedder, peers: Sequence[Peer]) -> OptimisticWriter:
        """A writer that adds its counts and new vectors to `unreported`."""
        shared, cache = self._shared, MemoryCache(self.unreported.embedded[embedder.fingerprint])
        same_model = [peer for peer in peers if peer.fingerprint == embedder.fingerprint]
        vectors = MissingVectors(
            embedder,
            PeerVectors(cache, same_model) if same_model else cache,
            max(shared.texts_at_once, embedder.max_items),
            shared.on_step,
            shared.embeddings,
            shared.patience,
            counts=self.unreported.counts,
        )
        return OptimisticWriter(vectors)

    def _reject(self, write: DocumentWrite, units: Sequence[WorkUnit]) -> None:
        """Reject the newest record of a refused document, once for all stores."""
        row, why = (write.table, write.key), write.refused
        with_row = [unit for unit in units if row in unit.newest_records]
        if why is None or not with_row:
            return
        unit = max(with_row, key=lambda unit: unit.newest_records[row][0])
        with self._shared.lock:
            is_new = (row, why) not in unit.reported
            unit.reported.add((row, why))
        if is_new:
            sequence, record = unit.newest_records[row]
            reject = Reject(why.condition, why.message, row[0], why.stage, key=row[1], sequence=sequence)
            self.unreported.rejected.append((record, reject))
