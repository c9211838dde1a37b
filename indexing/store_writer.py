"""The writer of one store: work units into every index version of it, and one report of each text and reject."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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

PARTS, IN_PARTS_FROM = 2, 1_024
"""Parts that units of so many records are written in."""


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

    def __init__(
        self,
        shared: Shared,
        sink: Sink,
        versions: EveryIndexVersion,
        peers: Sequence[Peer] = (),
        another: Callable[[], StoreWriter] | None = None,
    ) -> None:
        """Take what all writers share, the store, its index versions, its peers, and what opens a writer for a part."""
        self.sink = sink
        self._shared = shared
        self._versions = versions
        self._peers = peers
        self._another, self._others = another, list[StoreWriter]()
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
        if self._another is None or sum(unit.counts["records"] for unit in units) < IN_PARTS_FROM:
            waiting = self._write(units, use_peers=use_peers)
        else:
            waiting = self._write_in_parts(units, self._another, use_peers=use_peers)
        written, self.unreported = self.unreported, Written()
        written.waiting = waiting
        return written

    def _write_in_parts(
        self, units: Sequence[WorkUnit], another: Callable[[], StoreWriter], *, use_peers: bool
    ) -> set[RowName]:
        """Write parts of many units at once, by connections of their own: the store works while this process plans.

        The guard decides between the parts as between any writers.
        """
        self._others = self._others or [another() for _ in range(1, PARTS)]
        size = -(-len(units) // PARTS)
        own, *parts = (units[at : at + size] for at in range(0, len(units), size))
        waiting = set[RowName]()
        with ThreadPoolExecutor(PARTS, f"part-{self.sink.name}") as pool:
            futures = [
                pool.submit(other.write, part, use_peers=use_peers)
                for other, part in zip(self._others, parts, strict=False)
            ]
            try:
                waiting |= self._write(own, use_peers=use_peers)
            finally:
                for future in futures:
                    if future.exception() is None:
                        waiting |= future.result().waiting
                        self.unreported.add(future.result())
        for future in futures:
            future.result()
        return waiting

    def _write(self, units: Sequence[WorkUnit], *, use_peers: bool) -> set[RowName]:
        """Write units, and add to `unreported`; the rows that wait for the model's budget."""
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
        return waiting

    def close(self) -> None:
        """Close connections; the next call opens others."""
        for other in self._others:
            other.close()
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
