"""Histories into one vector store: the indexer, guarded writes, a second reader between plan and write, deaths at each step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from converge.compare import Failure, differences
from converge.histories import ROUNDS, End, History, Kill, Recorded, batches, delivered_alike
from converge.journal import Journal, survived
from converge.watched import STEPS, HashEmbedder, Watched, vector_of
from indexing.indexer import Indexer
from schemas.documents import ActualDocument
from sinks.digests import vector_hash
from transforms.documents.planning import DocumentSpec, chunks_of, document_id
from transforms.documents.template import render
from transforms.values import exact_json

if TYPE_CHECKING:
    from schemas.records import Record
    from sinks.protocol import Sink

type Batch = list[Record]


@dataclass
class VectorStore:
    """The lane of one store."""

    name: str
    open_sink: Callable[[], Sink]
    specs: Mapping[str, DocumentSpec]
    recordings: Mapping[str, Recorded]

    def deliver(self, histories: Sequence[History], journal: Journal, on_done: Callable[[int], None]) -> None:
        """Deliver the histories of tables with documents, many in one batch."""
        for block, together in enumerate(delivered_alike(self._ours(histories))):
            for number in range(ROUNDS):
                if not journal.is_done(unit := f"{block}-{number}"):
                    ours, others = (batches(self.recordings, together, number, reader) for reader in (0, 1))
                    kill = next((kill for kill in together[0].kills if kill.round == number), None)
                    self._deliver_round(unit, ours, others, (kill, journal))
            if not journal.is_done(unit := f"{block}-late"):
                self._deliver_round(unit, batches(self.recordings, together, None), {}, (None, journal))
            on_done(len(together))

    def failures(self, histories: Sequence[History]) -> list[Failure]:
        """Compare what the store shows of each history with the model."""
        documents = self._documents()
        return [Failure(h, self.name, w) for h in self._ours(histories) if (w := self._wrong(h, documents))]

    def _ours(self, histories: Sequence[History]) -> list[History]:
        return [h for h in histories if self.recordings[h.recording].table(h) in self.specs]

    def _deliver_round(
        self, unit: str, ours: Mapping[str, Batch], others: Mapping[str, Batch], kill: tuple[Kill | None, Journal]
    ) -> None:
        """Deliver a batch of each source; of one of them to a new process, from its beginning, after it died at a step."""
        wanted, journal = kill
        sources = sorted({*ours, *others})
        dying = sources[(wanted.round + wanted.step) % len(sources)] if wanted and sources else None
        for source in sources:
            step = STEPS[wanted.step % len(STEPS)] if wanted and source == dying else ""
            delivered = (source, ours.get(source, []), others.get(source, []))
            with survived() as outcome:
                self._index(*delivered, partial(_die_at, step, journal, unit))
            if outcome.died:
                self._index(*delivered, lambda _: None)
        journal.done(unit)

    def _index(self, source: str, ours: Batch, others: Batch, on_step: Callable[[str], None]) -> None:
        waiting = [others] if others else []

        def at(step: str) -> None:
            if step == "write" and waiting:
                self._indexed(source, waiting.pop(), lambda _: None)
            on_step(step)

        self._indexed(source, ours, at)
        while waiting:
            self._indexed(source, waiting.pop(), lambda _: None)
        on_step("indexed")

    def _indexed(self, source: str, records: Batch, on_step: Callable[[str], None]) -> None:
        context = self.recordings[source].recording.context
        with contextlib.closing(self.open_sink()) as sink, sink.bulk_load():
            watched: Any = Watched(sink, on_step)
            indexer = Indexer(
                context, self.specs, [watched], HashEmbedder(), texts_at_once=256,
                on_step=lambda step: on_step(step) if step == "read" else None,
            )  # fmt: skip
            indexer.index(records)

    # What the store shows.

    def _documents(self) -> dict[str, ActualDocument]:
        """Everything that the store shows to readers, by document id."""
        with contextlib.closing(self.open_sink()) as sink:
            documents = (d for digit in "0123456789abcdef" for d in sink.documents_in(digit, 1, vectors=True))
            return {d.document_id: d for d in documents if d.live}

    def _wrong(self, history: History, documents: Mapping[str, ActualDocument]) -> tuple[str, ...]:
        recorded = self.recordings[history.recording]
        spec, end = self.specs[recorded.table(history)], recorded.end(history)
        ids = {key: document_id(spec.table, key) for key in end.events}
        own = {key: documents[name] for key, name in ids.items() if name in documents}
        shown = {key: exact_json.loads(document.metadata) for key, document in own.items()}
        wrong = differences(end, shown, _as_stored, frozenset(spec.document.metadata))
        return (*wrong, *(f"{end.name(key)} has other texts or vectors" for key in _other_texts(end, own, spec)))


def _die_at(step: str, journal: Journal, unit: str, at: str) -> None:
    """Die at the planned step, or at the last one where the batch needed no write: a planned death always comes."""
    if step and at in (step, STEPS[-1]):
        journal.die(unit)


def _as_stored(_column: str, wanted: Any, actual: Any) -> bool:
    """Equality of a value with a store's JSON."""
    return bool(exact_json.loads(exact_json.storable(wanted)) == actual)


def _other_texts(end: End, own: Mapping[str, ActualDocument], spec: DocumentSpec) -> Iterator[str]:
    """Keys of documents with other chunks than their row makes; one whose columns are not all known keeps an older text."""
    for key in sorted(own.keys() & end.rows.keys()):
        row, document = end.rows[key], own[key]
        if any(map(row.is_pending, spec.texts)):
            continue
        chunks = chunks_of(document.document_id, render(spec.document.template, row.shown), spec.document)
        wanted = [(c.chunk_index, c.content_hash, vector_hash(vector_of(c.chunk_text))) for c in chunks]
        if wanted != sorted((c.chunk_index, c.text_hash, c.vector) for c in document.chunks):
            yield key
