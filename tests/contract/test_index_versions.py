"""What every vector store must do to be moved to another model; the stores are those of the sink's contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import numpy as np
import pytest

from embeddings.protocol import Embedding, Vector
from indexing.indexer import Indexer
from indexing.missing_vectors import MemoryCache, MissingVectors
from indexing.optimistic_writer import OptimisticWriter
from indexing.versions.backfill import Tables, backfill
from schemas.documents import ActualDocument
from schemas.errors import ConfigurationError
from sinks import open_index
from sinks.protocol import Sink
from sinks.versions import IndexVersions
from tests.feeding import CONTEXT, SPECS, CountingEmbedder, Fed, vector_of
from tests.history import TABLE, ModelTable, as_record, random_history
from tests.stores import Store

OTHER = 4


class OtherEmbedder(CountingEmbedder):
    """Another model: shorter vectors of the same texts."""

    fingerprint, dimensions = "model=other", OTHER

    def embed_documents(self, texts: Sequence[str]) -> list[Embedding]:
        return [
            vector[:OTHER] if isinstance(vector, np.ndarray) else vector for vector in super().embed_documents(texts)
        ]

    def embed_query(self, text: str) -> Vector:
        return vector_of(text)[:OTHER]


class Both:
    """A writer of every index version."""

    def __init__(self, sink: Sink, on_step: Callable[[str], None] | None = None) -> None:
        self.other = OtherEmbedder()
        self.indexer = Indexer(
            CONTEXT,
            SPECS,
            [sink],
            CountingEmbedder(),
            texts_at_once=8,
            embedders=lambda _: self.other,
            on_step=on_step,
        )

    def __call__(self, table: ModelTable, since: int = 0) -> None:
        self.indexer.index(map(as_record, table.changes[since:]))


def known(sink: Sink) -> IndexVersions:
    versions = sink.index_versions()
    assert versions is not None
    return versions


def announce(sink: Sink) -> Sink:
    """An index version of the other model, which live writers write to."""
    sink.change_index_versions(lambda versions: versions.announced("model=other", OTHER, {}))
    mine = known(sink).of("model=other")
    assert mine is not None
    other = sink.sibling(mine)
    other.prepare()
    other.prepare()
    sink.change_index_versions(lambda versions: versions.reached("model=other", "filling"))
    return other


def same_documents(one: Sink, other: Sink) -> bool:
    return one.bucket_checksums(1, vectors=False) == other.bucket_checksums(1, vectors=False) != {}


def test_a_store_that_was_never_moved_has_one_index_version(store: Store) -> None:
    sink = store.open()
    assert sink.index_versions() is None
    sink.prepare()
    versions = sink.index_versions()
    assert versions is not None
    assert (versions.active_number, [version.fingerprint for version in versions.written]) == (1, ["model=test"])


def test_a_writer_learns_of_an_index_version_and_misses_nothing(store: Store) -> None:
    sink, table = store.open(), random_history(5, 60)
    sink.prepare()
    half = len(table.changes) // 2
    indexer = Both(store.open()).indexer
    indexer.index(map(as_record, table.changes[:half]))
    other = announce(sink)
    indexer.index(map(as_record, table.changes[half:]))
    rounds = OptimisticWriter(MissingVectors(OtherEmbedder(), MemoryCache(), 8))
    tables = Tables(SPECS, {TABLE: ("id",)})
    covered = backfill(sink, other, tables, rounds)
    assert (covered.left_out, covered.documents >= covered.brought) == ([], True)
    assert same_documents(sink, other)
    assert backfill(sink, other, tables, rounds).brought == 0
    hashes = {c.content_hash for d in _all(other) for c in d.chunks}
    assert {vector.shape for vector in other.vectors(sorted(hashes)).values()} == {(OTHER,)}
    assert {vector.shape for vector in sink.vectors(sorted(hashes)).values()} != {(OTHER,)}


def test_an_announcement_during_a_write_is_seen_before_the_write_counts(
    store: Store,
) -> None:
    sink, table = store.open(), ModelTable()
    sink.prepare()
    table.insert(1, "x")
    made: list[Sink] = []

    def step(name: str) -> None:
        if name == "write" and not made:
            made.append(announce(sink))

    writer = Both(store.open(), step)
    writer(table)
    assert same_documents(sink, made[0])
    assert writer.other.texts == ["body x"]


def test_an_index_version_dropped_under_a_writer_is_forgotten_by_it(store: Store) -> None:
    sink, table = store.open(), ModelTable()
    sink.prepare()
    other, writer = announce(sink), Both(store.open())
    table.insert(1, "x")
    writer(table)
    sink.change_index_versions(lambda versions: versions.reached("model=other", "ready").switched("model=other"))
    sink.change_index_versions(lambda versions: versions.reached("model=test", "dropping"))
    sink.drop(1)
    sink.drop(1)
    assert other.summary().documents == 1
    sink.change_index_versions(partial(IndexVersions.without, number=1))
    table.update_body(1, "newer")
    writer(table, 1)
    assert other.summary().documents == 1
    assert [c.content_hash for d in _all(other) for c in d.chunks] != []
    with pytest.raises(ConfigurationError):
        store.open().check()
    left = other.index_versions()
    assert left is not None
    assert (left.active_number, [version.number for version in left.every], left.last) == (2, [2], 2)


def test_concurrent_changes_of_index_versions_are_all_made(store: Store) -> None:
    store.open().prepare()

    def add(number: int) -> None:
        with closing(store.open()) as sink:
            sink.change_index_versions(lambda versions: versions.announced(f"model={number}", OTHER, {}))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(8)))
    versions = store.open().index_versions()
    assert versions is not None
    assert sorted(version.number for version in versions.every) == list(range(1, 10))
    assert {version.fingerprint for version in versions.every} == {"model=test", *(f"model={n}" for n in range(8))}


def test_a_model_that_fills_no_index_version_is_refused(store: Store) -> None:
    sink = store.open()
    sink.prepare()
    Fed(sink)([])
    stranger = store.open("model=stranger")
    for act in (stranger.check, stranger.prepare, lambda: stranger.missing_vectors(["h"])):
        with pytest.raises(ConfigurationError, match="another model"):
            act()


def _all(sink: Sink) -> list[ActualDocument]:
    return [
        document
        for bucket in sink.bucket_checksums(1, vectors=False)
        for document in sink.documents_in(bucket, 1, vectors=True)
    ]


def test_a_calibration_is_kept_beside_its_model_for_every_reader(store: Store) -> None:
    sink = store.open()
    sink.prepare()
    measured = {"relevance": {"alone": 0.4}, "fusion": {"weight": 0.5}}
    sink.change_index_versions(lambda versions: versions.calibrated("model=test", measured))
    sink.change_index_versions(lambda versions: versions.calibrated("model=stranger", measured))
    announce(sink)
    with closing(open_index(store.config, "model=test")) as index:
        calibrations = {version.fingerprint: version.calibration for version in index.index_versions().every}
    assert calibrations == {"model=test": measured, "model=other": None}
    sink.change_index_versions(lambda versions: versions.calibrated("model=test", None))
    assert known(store.open()).active.calibration is None
