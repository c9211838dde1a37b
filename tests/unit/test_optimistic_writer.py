"""What a round tells of where it is; what it writes is proved on real stores."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from embeddings.protocol import Embedder
from indexing.missing_vectors import MemoryCache, MissingVectors
from indexing.optimistic_writer import ChangedRows, OptimisticWriter, Work
from indexing.shared_vectors import SharedEmbeddings
from schemas.documents import StoredDocument
from sinks.protocol import Sink
from tests.feeding import SPECS
from tests.history import TABLE, ModelTable, folded, key_of
from tests.waiting import eventually
from transforms.documents.planning import document_id


class Model:
    """Answers when it is let."""

    fingerprint, dimensions = "m", 2

    def __init__(self) -> None:
        self.answering = threading.Event()
        self.asked = 0

    def embed_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        self.asked += 1
        assert self.answering.wait(10)
        return [np.ones(2, np.float32) for _ in texts]


class Store:
    """Lacks every vector, and takes every write."""

    name = "s"

    def missing_vectors(self, names: Sequence[str]) -> set[str]:
        return set(names)

    def keep_vectors(self, _: Any) -> None: ...

    def write(self, _: Any) -> set[str]:
        return set()


class OneDocument:
    """A document with one chunk."""

    def plan(self, _: Sink) -> list[Any]:
        chunk, state = SimpleNamespace(content_hash="h", chunk_text="x"), SimpleNamespace(key_moves=False, exists=True)
        return [SimpleNamespace(document_id="d", added=[chunk], refused=None, state=state)]


def test_a_store_that_shares_anothers_request_waits_for_the_model_too() -> None:
    model, shared, steps = Model(), SharedEmbeddings(), dict[int, list[str]]()

    def write(number: int) -> None:
        on_step = steps.setdefault(number, []).append
        writer = OptimisticWriter(MissingVectors(cast("Embedder", model), MemoryCache(), 8, on_step, shared))
        writer.write(cast("Sink", Store()), cast("Work", OneDocument()))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    eventually(lambda: all(steps.get(number) == ["embed"] for number in range(2)))
    before = {number: list(names) for number, names in steps.items()}
    model.answering.set()
    for thread in threads:
        thread.join(10)
    assert before == {0: ["embed"], 1: ["embed"]}
    assert steps == {number: ["embed", "keep", "write"] for number in range(2)}, (
        "a store that keeps nothing is named itself"
    )
    assert model.asked == 1


class Moved:
    """A store that knows where the values of row 1 went: to row 2, and with it to row 3."""

    def __init__(self) -> None:
        table = ModelTable()
        table.insert(1, "x")
        table.move(1, 2)
        table.move(2, 3)
        self.late, self.states = table.changes[0], folded(table.changes[1:])

    def read(self, names: Collection[str]) -> dict[str, StoredDocument]:
        stored = {document_id(TABLE, key): state for key, state in self.states.items()}
        return {name: StoredDocument(name, 1, stored[name], SPECS[TABLE].digest) for name in names if name in stored}

    def read_with_truncations(self, names: Collection[str]) -> tuple[dict[str, StoredDocument], dict[str, str]]:
        return self.read(names), {}


def test_a_write_names_the_rows_whose_changes_it_is_made_of() -> None:
    store = Moved()
    work = ChangedRows({TABLE: [store.late]}, SPECS)
    (write,) = work.plan(cast("Sink", store))
    assert write.rows == {(TABLE, key_of(number)) for number in (1, 2, 3)}
    assert work.touching(write.rows) == work
