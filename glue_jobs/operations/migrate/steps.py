"""Moves vector stores to another embedding model without downtime: announce, fill, backfill, check, switch.

The state of a migration is in the stores' own meta, so a command that was killed anywhere resumes when it is run again. Live
jobs read it there and write both index versions from then on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from pyspark.sql import SparkSession

from embeddings import EmbeddingConfig, open_embedder, texts_at_once
from embeddings.registry import config_of, registry_entry
from evaluation.calibration import LEAST_ANSWERABLE, calibrate
from evaluation.golden import LEAST_PROBED, Golden, GoldenQuestion, compare, probe
from evaluation.runs import ask_all
from glue_jobs.config.pipeline import PipelineConfig
from glue_jobs.operations.migrate.stores import configured_model, index_versions_of, open_store
from glue_jobs.operations.rebuild import Rebuild, RebuildCounts
from glue_jobs.runtime.progress import OnProgress
from indexing.missing_vectors import MissingVectors
from indexing.optimistic_writer import OptimisticWriter
from indexing.versions.backfill import Backfilled, Tables, backfill
from lake.embedding_cache import EmbeddingCache
from retrieval.ranking.active_index import ActiveIndex
from retrieval.ranking.search import Searcher
from schemas.errors import ConfigurationError, StoppedError
from sinks import SinkConfig
from sinks.protocol import Sink, VersionedStore
from sinks.versions import UNDER_WAY, IndexVersion, IndexVersions

_SAMPLE_TEXTS = 20
"""Texts of its own that a new index version is searched for before the switch."""
type Step = Callable[[str, str], None]
"""Called with the store and the step it has reached; tests kill the process there."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The search quality of a new index version."""

    probes: int
    """Texts of the store that it was searched for."""
    recall: float
    """The share of them that it found, from 0 to 1."""
    golden: Golden | None
    """None without golden questions."""
    is_measured: bool = False
    """Whether it is known from which similarity on rows answer; else `ask` abstains after the switch."""

    @property
    def good(self) -> bool:
        """Whether readers may switch to it."""
        return self.recall >= LEAST_PROBED and (self.golden is None or self.golden.good)

    def __str__(self) -> str:
        """Render for messages."""
        shares = [f"{self.recall:.0%} of {self.probes} of its own texts"]
        if self.golden and self.golden.expected_new is not None and self.golden.expected_old is not None:
            shares.append(
                f"{self.golden.expected_new:.0%} of the expected rows, where the old one finds {self.golden.expected_old:.0%}"
            )
        return ", ".join(shares)


@dataclass
class Moved:
    """The outcome of a migration for one store; all None where it had been moved before."""

    index_version: int | None = None
    filled: RebuildCounts | None = None
    backfilled: Backfilled | None = None
    checked: Checked | None = None


@dataclass
class Migration:
    """Moves the stores of a pipeline to another model."""

    config: PipelineConfig
    to: EmbeddingConfig
    on_step: Step = lambda *_: None

    def __post_init__(self) -> None:
        """Open both models; nothing is connected yet."""
        self._own = configured_model(self.config)
        self._model = open_embedder(self.to)
        self._tables = Tables(self.config.document_specs, {table.table: table.keys for table in self.config.tables})

    def move(
        self, spark: Callable[[], SparkSession], golden: Sequence[GoldenQuestion], on_progress: OnProgress
    ) -> dict[str, Moved]:
        """Bring every store to the new model, from whatever step it has reached; each step for all stores."""
        moved = {sink.name: Moved() for sink in self.config.sinks}
        remaining = [sink for sink in self.config.sinks if not self.is_active(sink)]
        for sink in remaining:
            moved[sink.name].index_version = self.announce(sink).number
        for sink in remaining:
            moved[sink.name].filled = self.fill(spark, sink, on_progress)
        for sink in remaining:
            moved[sink.name].backfilled = self.backfill(sink)
            moved[sink.name].checked = self.check(sink, golden)
            self.ready(sink)
        self.switch_all(remaining)
        return moved

    def back(self) -> dict[str, Backfilled]:
        """Roll back to an inactive index version, after a backfill of what it lacks."""
        backfilled = {sink.name: self.backfill(sink) for sink in self.config.sinks}
        self.switch_all(self.config.sinks)
        return backfilled

    def switch_all(self, sinks: Sequence[SinkConfig]) -> None:
        """Switch the stores in close succession."""
        for sink in sinks:
            self.switch(sink)

    def announce(self, sink: SinkConfig) -> IndexVersion:
        """Create an index version and announce it to live writers; resumes one that was announced before."""
        with closing(self._own_sink(sink)) as store:
            before = index_versions_of(store)
            if before.of(self._model.fingerprint) is None:
                _refuse_another(sink, before)
            own = open_embedder(self._own).fingerprint
            if before.active.fingerprint != own:
                config_of(before.active, self._own)  # live jobs will need it
            announced = store.change_index_versions(
                lambda versions: versions.with_embedding(own, registry_entry(self._own)).announced(
                    self._model.fingerprint, self._model.dimensions, registry_entry(self.to)
                )
            )
            new_version = announced.of(self._model.fingerprint)
            assert new_version is not None  # noqa: S101 - it was announced
            self.on_step(sink.name, "announced")
            if new_version.state == "creating":
                self._create(store, new_version)
                self.on_step(sink.name, "filling")
            return new_version

    def fill(
        self, spark: Callable[[], SparkSession], sink: SinkConfig, on_progress: OnProgress
    ) -> RebuildCounts | None:
        """Fill the new index version from the lake; None if that was done before."""
        with closing(self._own_sink(sink)) as store:
            new_version = index_versions_of(store).of(self._model.fingerprint)
            if new_version is None or new_version.state != "filling":
                return None
            done = Rebuild(spark(), self.config, sink, self.to, on_progress).run()
            store.change_index_versions(lambda versions: versions.reached(self._model.fingerprint, "filled"))
        self.on_step(sink.name, "filled")
        return done

    def backfill(self, sink: SinkConfig) -> Backfilled:
        """Copy to the new index version what only the active one has.

        Raises:
            StoppedError: some documents cannot be copied; nothing was switched.
        """
        with self._both(sink) as (old, new):
            cache = EmbeddingCache(self.config.lake.path, self._model.fingerprint)
            writer = OptimisticWriter(MissingVectors(self._model, cache, texts_at_once(self.to, self._model)))
            backfilled = backfill(old, new, self._tables, writer)
            if backfilled.left_out:
                raise StoppedError(
                    f"sink {sink.name}: {len(backfilled.left_out)} documents are not in the new index version, "
                    f"such as {backfilled.left_out[0]}; readers stay where they are",
                    condition="NOT_BACKFILLED",
                    hint="see the rejects of stage `embed`, mend the rows or choose a model that takes them, and run the "
                    "command again; or cancel the migration by `ragstream migrate CONFIG --back`",
                )
            self.on_step(sink.name, "backfilled")
        return backfilled

    def check(self, sink: SinkConfig, golden: Sequence[GoldenQuestion]) -> Checked:
        """Search the new index version for texts of its own, and both versions for the golden questions.

        Raises:
            StoppedError: its recall is too low; nothing was switched.
        """
        texts = self._sample_texts(sink)
        with closing(ActiveIndex(sink, self._own)) as serving, closing(self._own_sink(sink)) as store:
            versions, old = index_versions_of(store), serving.searcher()
            new_version = versions.of(self._model.fingerprint)
            assert new_version is not None  # noqa: S101 - it was filled
            new = serving.searcher_of(new_version)
            try:
                recall = probe(new, texts)  # at once: rows change meanwhile
                compared = compare(old, new, golden) if golden else None
                measured = self._measure(store, new, golden)
                checked = Checked(len(texts), recall, compared, measured)
            finally:
                new.index.close()
        if not checked.good:
            raise StoppedError(
                f"sink {sink.name}: the new index version finds too little ({checked}); readers stay where they are",
                condition="GOLDEN_MISSED",
                hint="choose another model, correct the questions, or cancel the migration by `ragstream migrate CONFIG --back`",
            )
        self.on_step(sink.name, "checked")
        return checked

    def _measure(self, store: VersionedStore, new: Searcher, golden: Sequence[GoldenQuestion]) -> bool:
        """Calibrate the new model before readers use it, where the golden questions suffice; whether its answers are measured."""
        if sum(bool(question.expected) for question in golden) < LEAST_ANSWERABLE:
            return new.tuning.is_measured
        calibrated = calibrate(ask_all(new, golden, lambda: None)).as_json()
        store.change_index_versions(lambda versions: versions.calibrated(self._model.fingerprint, calibrated))
        return True

    def ready(self, sink: SinkConfig) -> None:
        """Mark it as ready for readers."""
        with closing(self._own_sink(sink)) as store:
            store.change_index_versions(lambda versions: versions.reached(self._model.fingerprint, "ready"))
        self.on_step(sink.name, "ready")

    def switch(self, sink: SinkConfig) -> IndexVersions:
        """Switch readers to it, by one change of the store's meta."""
        with closing(self._own_sink(sink)) as store:
            after = store.change_index_versions(lambda versions: versions.switched(self._model.fingerprint))
        self.on_step(sink.name, "switched")
        return after

    def is_begun(self) -> bool:
        """Whether a store has an index version of the model."""
        for sink in self.config.sinks:
            with closing(self._own_sink(sink)) as store:
                if index_versions_of(store).of(self._model.fingerprint) is not None:
                    return True
        return False

    def is_active(self, sink: SinkConfig) -> bool:
        """Whether readers use the model already."""
        with closing(self._own_sink(sink)) as store:
            return index_versions_of(store).active.fingerprint == self._model.fingerprint

    def _own_sink(self, sink: SinkConfig) -> Sink:
        return open_store(self.config, sink)

    def _create(self, store: VersionedStore, new_version: IndexVersion) -> None:
        try:
            store.sibling(new_version).prepare()
        except ConfigurationError:
            store.drop(new_version.number)
            store.change_index_versions(lambda versions: versions.without(new_version.number))
            raise
        store.change_index_versions(lambda versions: versions.reached(new_version.fingerprint, "filling"))

    @contextmanager
    def _both(self, sink: SinkConfig) -> Iterator[tuple[Sink, Sink]]:
        """The active index version and the new one, as sinks."""
        with closing(self._own_sink(sink)) as store:
            versions = index_versions_of(store)
            new_version = versions.of(self._model.fingerprint)
            assert new_version is not None  # noqa: S101 - it was announced
            yield store.sibling(versions.active), store.sibling(new_version)

    def _sample_texts(self, sink: SinkConfig) -> list[str]:
        """Texts of live documents of the active index version."""
        texts: list[str] = []
        with self._both(sink) as (old, _):
            for bucket in sorted(old.bucket_checksums(1, vectors=False)):
                documents = itertools.islice(old.documents_in(bucket, 1, vectors=False), _SAMPLE_TEXTS)
                live = [document for document in documents if document.live and document.chunks]
                texts += self._tables.texts_of(live, old)
                if len(texts) >= _SAMPLE_TEXTS:
                    break
        return texts[:_SAMPLE_TEXTS]


def _refuse_another(sink: SinkConfig, versions: IndexVersions) -> None:
    other = next((version for version in versions.every if version.state in UNDER_WAY), None)
    if other is not None:
        raise ConfigurationError(
            f"sink {sink.name}: it is being moved to another model already ({other.fingerprint})",
            condition="MIGRATION_UNDER_WAY",
            hint="finish that by `ragstream migrate CONFIG --to` that model, or cancel it by `--back`",
        )
