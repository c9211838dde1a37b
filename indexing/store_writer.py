"""One store's side of the indexer: work units into every index version of it, with what they cost told once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from indexing.optimistic_writer import ChangedRows, Held, OptimisticWriter
from indexing.peer_vectors import Borrowing, Lending
from indexing.result import Written
from indexing.shared_vectors import Answers
from indexing.versions.every_version import EveryIndexVersion
from indexing.work_unit import WorkUnit, changes_of, truncations_of
from schemas.changes import Reject
from transforms.fold import in_order

if TYPE_CHECKING:
    from embeddings.protocol import Embedder
    from schemas.documents import DocumentWrite
    from sinks.protocol import Sink
    from transforms.documents.planning import DocumentSpec


@dataclass(frozen=True)
class Shared:
    """What the writers of one process have in common."""

    specs: Mapping[str, DocumentSpec]
    texts_at_once: int
    on_step: Callable[[str], None]
    answers: Answers = field(default_factory=Answers)
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Of what the stores' threads note in a work unit."""


class StoreWriter:
    """Writes work units into one store; one thread uses it, for as long as it likes.

    Writing the same units again, or those of any other cut, leaves the same documents. A connection that broke is opened
    again by the next call.
    """

    def __init__(self, shared: Shared, sink: Sink, every: EveryIndexVersion, lenders: Sequence[Lending] = ()) -> None:
        """Take what all writers share, the store, its index versions, and other stores that may lend vectors."""
        self.sink = sink
        self._shared = shared
        self._every = every
        self._lenders = lenders
        self.unreported = Written()
        """What calls that failed led to: the next call that does not fail reports it."""

    def write(self, units: Sequence[WorkUnit], *, borrow: bool = False) -> Written:
        """Bring units into every index version of the store, in one go; what comes back counts failed calls before it, too.

        With `borrow`, vectors that the store lacks and this process no longer remembers are asked of the other stores, by
        connections of their own, before the model is.

        Raises:
            UnavailableError: the store does not answer; the same call later succeeds, and no text is paid for twice.
            ModelUnavailableError: the model does not.
            ConfigurationError: waiting does not help.
        """
        if not borrow:
            self._stop_borrowing()
        changes = {table: in_order(several) for table, several in changes_of(units).items()}
        truncations = truncations_of(units)

        def bring(sink: Sink, embedder: Embedder) -> None:
            for table, sequence in truncations.items():
                sink.truncate(table, sequence)
            specs = {table: self._shared.specs[table].within(embedder.max_tokens) for table in changes}
            writer = self._rounds(embedder, self._lenders if borrow else ())
            for write in writer.write(sink, ChangedRows(changes, specs) if changes else None):
                self._reject(write, units)

        self._every.write(self.sink, bring)
        written, self.unreported = self.unreported, Written()
        return written

    def close(self) -> None:
        """Close connections; the next call opens others."""
        self._stop_borrowing()
        self.sink.close()

    def _stop_borrowing(self) -> None:
        for lender in self._lenders:
            lender.close()

    def _rounds(self, embedder: Embedder, lenders: Sequence[Lending]) -> OptimisticWriter:
        """A round that counts what it does, and keeps what it pays for, for the next report."""
        shared, kept = self._shared, Held(self.unreported.embedded[embedder.fingerprint])
        others = [lender for lender in lenders if lender.fingerprint == embedder.fingerprint]
        return OptimisticWriter(
            embedder,
            Borrowing(kept, others) if others else kept,
            max(shared.texts_at_once, embedder.max_items),
            shared.on_step,
            shared.answers,
            self.unreported.counts,
        )

    def _reject(self, write: DocumentWrite, units: Sequence[WorkUnit]) -> None:
        """Report the newest record of a document that is refused: once for all stores, where the model refuses it."""
        row, why = (write.table, write.key), write.refused
        telling = [unit for unit in units if row in unit.newest_records]
        if why is None or not telling:
            return
        unit = max(telling, key=lambda each: each.newest_records[row][0])
        with self._shared.lock:
            is_new = (row, why) not in unit.reported
            unit.reported.add((row, why))
        if is_new:
            record = unit.newest_records[row][1]
            self.unreported.rejected.append((record, Reject(why.condition, why.message, row[0], why.stage)))
