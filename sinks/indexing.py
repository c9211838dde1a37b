"""From records to vector stores: the whole live path of `index_documents`, without Spark.

A reader, a Spark worker, a Lambda and a Flink function call the same object. It decides nothing that the pure functions do not
decide; it reads, asks the model for what nobody holds, and writes.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sinks.borrowed import Lender
from sinks.every_generation import EveryGeneration, Models, own_model_alone
from sinks.index_result import IndexResult, Written
from sinks.several import Missed, Several
from sinks.store_writer import Shared, StoreWriter
from sinks.work_unit import WorkUnit, decoded

if TYPE_CHECKING:
    from embeddings.protocol import Embedder, EmbeddingCounts
    from schemas.records import Record
    from sinks.every_generation import Embedders
    from sinks.protocol import Sink
    from transforms.context import DecodeContext
    from transforms.documents import Recipe


class Indexer:
    """Applies records to vector stores; one for each process and source.

    Safe to call with any records, again and in any order, by any number of processes at once: the same set of records
    leaves the same documents. What it keeps is bounded, however long it lives.
    """

    def __init__(  # noqa: PLR0913 - all that indexing needs, put together in one place
        self,
        context: DecodeContext,
        recipes: Mapping[str, Recipe],
        sinks: Sequence[Sink] | Several,
        embedder: Embedder,
        *,
        texts_at_once: int,
        embedders: Embedders = own_model_alone,
        on_step: Callable[[str], None] | None = None,
    ) -> None:
        """Take the parts; `texts_at_once` texts at most are unsaved between the model and a store.

        `embedders` opens the models of the stores' other generations. `on_step` is told the name of each step as it begins;
        tests stop the process there. Stores given as `Several` may be set aside by `index`: then `IndexResult.missed` must be
        remembered; others are all waited for.
        """
        self.context = context
        self.recipes = recipes
        self.stores = sinks if isinstance(sinks, Several) else Several(sinks)
        self.embedder = embedder
        self._models = Models(embedder, embedders)
        self._shared = Shared(recipes, texts_at_once, on_step or (lambda _: None))
        self.every = {sink.name: self._every_generation() for sink in self.stores.sinks}

    def decode(self, records: Iterable[Record]) -> WorkUnit:
        """Decode records once for all stores; any thread may."""
        unit = decoded(records, self.context, self.recipes)
        self._shared.on_step("read")
        return unit

    def writer(self, store: str) -> StoreWriter:
        """Open one store's side, by connections of its own that are opened when they are needed; one thread uses it."""
        sinks = {sink.name: sink for sink in self.stores.sinks}
        lenders = [Lender(sink) for name, sink in sinks.items() if name != store]
        return StoreWriter(self._shared, copy.deepcopy(sinks[store]), self._every_generation(), lenders)

    def asked(self) -> EmbeddingCounts:
        """What this process asked of all models that it embeds with."""
        return self._models.asked()

    def index(self, records: Iterable[Record]) -> IndexResult:
        """Apply records to every store, each document as a whole.

        Raises:
            UnavailableError: a store, or the model, does not answer; the same call later succeeds.
        """
        return self.index_groups([records])

    def index_groups(self, groups: Iterable[Iterable[Record]]) -> IndexResult:
        """Apply groups of records as they come: a store takes what has come while it was written, and waits for no other."""
        work = Indexing(self, self._shared)
        self.stores.write(work.units(groups), work.write, work.done)
        return work.result

    def _every_generation(self) -> EveryGeneration:
        return EveryGeneration(self.embedder, self._models.of)


class Indexing:
    """One call of `Indexer.index_groups`: its groups on their way into `Several`, and what became of them."""

    def __init__(self, indexer: Indexer, shared: Shared) -> None:
        """Begin with nothing."""
        self.result = IndexResult()
        self._indexer, self._shared = indexer, shared
        self._waiting: dict[int, int] = {}
        """By unit: the stores that have neither got nor missed it."""
        self._lock = threading.Lock()
        """Of the stores' threads, for what they add to."""

    def units(self, groups: Iterable[Iterable[Record]]) -> Iterator[tuple[WorkUnit, int]]:
        """Decode groups; what means nothing to the stores is done."""
        for records in groups:
            unit = self._indexer.decode(records)
            with self._lock:
                self.result.add_unit(unit)
                if unit.is_empty:
                    self.result.add_searchable([unit], _now_us())
                    continue
                self._waiting[id(unit)] = len(self._indexer.stores.sinks)
            yield unit, unit.size

    def write(self, store: Sink, lenders: Sequence[Sink], units: Sequence[WorkUnit]) -> None:
        """Bring units into every generation of a store, in one go; what a failed attempt paid for counts too."""
        writer = StoreWriter(self._shared, store, self._indexer.every[store.name], lenders)
        try:
            written = writer.write(units, borrow=bool(lenders))
        except BaseException:
            self._add(writer.unreported)
            raise
        self._add(written)

    def done(self, store: str, units: Sequence[WorkUnit], missed: Missed | None) -> None:
        """Take it that a store has units, or has missed them."""
        with self._lock:
            if missed is not None:
                self.result.add_missed(store, missed, units)
            for unit in units:
                self._waiting[id(unit)] -= 1
            everywhere = [unit for unit in units if not self._waiting[id(unit)]]
            self.result.add_searchable(everywhere, _now_us())

    def _add(self, written: Written) -> None:
        with self._lock:
            self.result.add_written(written)


def _now_us() -> int:
    return time.time_ns() // 1000
