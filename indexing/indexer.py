"""From records to vector stores: the whole live path of `index_documents`, without Spark.

A reader, a Spark worker, a Lambda and a Flink function call the same object. Pure functions make every decision; this reads,
asks the model for missing vectors, and writes.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

from embeddings.protocol import Embedder, EmbeddingCounts
from indexing.fan_out import write_all
from indexing.peer_vectors import Peer
from indexing.result import IndexResult, Written
from indexing.store_writer import Shared, StoreWriter
from indexing.versions.every_version import Embedders, EveryIndexVersion, Models, own_model_alone
from indexing.work_unit import WorkUnit, decoded
from schemas.records import Record
from sinks.protocol import Sink
from transforms.context import DecodeContext
from transforms.documents.planning import DocumentSpec
from transforms.drift import ColumnWatch


class Indexer:
    """Applies records to vector stores; one for each process and source.

    Safe to call with any records, again and in any order, by any number of processes at once: the same set of records
    leaves the same documents. What it keeps is bounded, however long it lives.
    """

    def __init__(  # noqa: PLR0913 - all that indexing needs, put together in one place
        self,
        context: DecodeContext,
        specs: Mapping[str, DocumentSpec],
        sinks: Sequence[Sink],
        embedder: Embedder,
        *,
        texts_at_once: int,
        embedders: Embedders = own_model_alone,
        on_step: Callable[[str], None] | None = None,
        deadlines: Mapping[str, float] | None = None,
        patience: float | None = None,
    ) -> None:
        """Take the parts; `texts_at_once` texts at most are unsaved between the model and a store.

        `embedders` opens the models of the stores' other index versions. `on_step` is called with the name of each step as it
        begins; tests stop the process there. A store with a deadline, in seconds, may be missed by `index`: then the caller
        must remember it; without one it is waited for. With `patience`, for callers that write by `writer` alone, texts that the
        model's budget does not let through are left after so many seconds (`Written.waiting`).
        """
        self._context, self._embedder, self._watch = context, embedder, ColumnWatch(context)
        self._sinks = {sink.name: sink for sink in sinks}
        self._deadlines = deadlines or {}
        self._models = Models(embedder, embedders)
        self._shared = Shared(specs, texts_at_once, on_step or (lambda _: None), patience=patience)
        self._writers = {name: self._writer(sink) for name, sink in self._sinks.items()}

    def decode(self, records: Iterable[Record]) -> WorkUnit:
        """Decode records once for all stores; any thread may. Raises StoppedError where a column is gone that a text needs."""
        unit = decoded(records, self._context, self._shared.specs, self._watch)
        self._shared.on_step("read")
        return unit

    def writer(self, store: str) -> StoreWriter:
        """A writer of one store, with connections of its own that open when they are needed; one thread uses it."""
        sink = self._sinks[store]
        return self._writer(copy.deepcopy(sink), lambda: self._writer(copy.deepcopy(sink)))

    def model_counts(self) -> EmbeddingCounts:
        """The requests of this process to all its models."""
        return self._models.counts()

    def index(
        self, records: Iterable[Record], *, without: Collection[str] = (), use_peers: Collection[str] = ()
    ) -> IndexResult:
        """Apply records to the stores, each document as a whole and each store by its own thread; return when all are done.

        Stores in `without` are left out, unless it is all; `missed` of the result names those that stayed away past their
        deadline. Stores in `use_peers` take vectors from the others before the model is asked.

        Raises:
            UnavailableError: all stores, or one without a deadline, or the model do not answer; the same call later succeeds.
        """
        result, unit = IndexResult(), self.decode(records)
        result.add_unit(unit)
        chosen = {name: writer for name, writer in self._writers.items() if name not in without} or self._writers
        written: dict[str, Written] = {}

        def write(store: str) -> None:
            written[store] = chosen[store].write([unit], use_peers=store in use_peers)

        if not unit.is_empty:
            result.missed |= write_all({name: partial(write, name) for name in chosen}, self._deadlines)
        for store in result.missed:
            written[store] = chosen[store].unreported
            chosen[store].unreported = Written()
        for of_store in written.values():
            result.add_written(of_store)
        result.add_searchable([unit], time.time_ns() // 1000)
        return result

    def close(self) -> None:
        """Close connections; the next call opens others."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, sink: Sink, another: Callable[[], StoreWriter] | None = None) -> StoreWriter:
        peers = [Peer(other) for name, other in self._sinks.items() if name != sink.name]
        versions = EveryIndexVersion(self._embedder, self._models.of)
        return StoreWriter(self._shared, sink, versions, peers, another)
