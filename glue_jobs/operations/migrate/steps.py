"""Vector stores → another embedding model, without a gap: announce, fill, cover, check, switch.

All that a migration knows stands in the stores' own meta, so a command that was killed anywhere and is run again goes on
where it stopped. Live jobs learn of an index version there, and write to both from then on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embeddings import open_embedder, texts_at_once
from embeddings.registry import config_of, remembered
from glue_jobs.operations.migrate.stores import known_of, opened, own_model
from glue_jobs.operations.rebuild import Rebuild
from indexing.optimistic_writer import OptimisticWriter
from indexing.versions.backfill import Backfilled, Tables, backfill
from lake.embedding_cache import EmbeddingCache
from retrieval.golden import LEAST_PROBED, Golden, GoldenQuestion, compare, probe
from retrieval.serving import Serving
from schemas.errors import ConfigurationError, StoppedError
from sinks.versions import UNDER_WAY, IndexVersion, IndexVersions
from transforms.documents.planning import DocumentSpec

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from embeddings import EmbeddingConfig
    from glue_jobs.config.pipeline import PipelineConfig
    from glue_jobs.operations.rebuild import RebuildCounts
    from glue_jobs.runtime.progress import Tell
    from sinks import SinkConfig
    from sinks.protocol import Sink, VersionedStore

_PROBED = 20
"""Texts that a new index version is asked for before readers are."""
type Step = Callable[[str, str], None]
"""Told the store and the step that it has reached; tests end the process there."""


@dataclass(frozen=True, slots=True)
class Checked:
    """How a new index version answers."""

    probes: int
    """Texts of the store that it was asked for."""
    found: float
    """The share of them that it found."""
    golden: Golden | None
    """None where no golden questions were given."""

    @property
    def good(self) -> bool:
        """Whether readers may be given it."""
        return self.found >= LEAST_PROBED and (self.golden is None or self.golden.good)

    def __str__(self) -> str:
        """In words."""
        told = [f"{self.found:.0%} of {self.probes} of its own texts"]
        if self.golden and self.golden.expected_new is not None and self.golden.expected_old is not None:
            told.append(
                f"{self.golden.expected_new:.0%} of the expected rows, where the old one finds {self.golden.expected_old:.0%}"
            )
        return ", ".join(told)


@dataclass
class Moved:
    """What a migration did to one store; nothing where it had been moved."""

    index_version: int | None = None
    filled: RebuildCounts | None = None
    covered: Backfilled | None = None
    checked: Checked | None = None


@dataclass
class Migration:
    """Moves the stores of a pipeline to another model."""

    config: PipelineConfig
    to: EmbeddingConfig
    on_step: Step = lambda *_: None

    def __post_init__(self) -> None:
        """Open both models; nothing is connected yet."""
        self._own = own_model(self.config)
        self._model = open_embedder(self.to)
        specs = {table.table: spec for table in self.config.tables if (spec := DocumentSpec.of(table))}
        self._tables = Tables(specs, {table.table: table.keys for table in self.config.tables})

    def move(self, spark: Callable[[], SparkSession], golden: Sequence[GoldenQuestion], tell: Tell) -> dict[str, Moved]:
        """Take every store from where it is to where readers use the new model; each step for all of them."""
        moved = {sink.name: Moved() for sink in self.config.sinks}
        left = [sink for sink in self.config.sinks if not self.served(sink)]
        for sink in left:
            moved[sink.name].index_version = self.announce(sink).number
        for sink in left:
            moved[sink.name].filled = self.fill(spark, sink, tell)
        for sink in left:
            moved[sink.name].covered = self.backfill(sink)
            moved[sink.name].checked = self.check(sink, golden)
            self.ready(sink)
        self.switch_all(left)
        return moved

    def back(self) -> dict[str, Backfilled]:
        """Let readers use an index version again that was kept, which lacks nothing."""
        covered = {sink.name: self.backfill(sink) for sink in self.config.sinks}
        self.switch_all(self.config.sinks)
        return covered

    def switch_all(self, sinks: Sequence[SinkConfig]) -> None:
        """Switch one store right after the other."""
        for sink in sinks:
            self.switch(sink)

    def announce(self, sink: SinkConfig) -> IndexVersion:
        """Make an index version and let live writers know of it; one that was announced before is gone on with."""
        with closing(self._own_sink(sink)) as store:
            known = known_of(store)
            if known.of(self._model.fingerprint) is None:
                _refuse_another(sink, known)
            own = open_embedder(self._own).fingerprint
            if known.active.fingerprint != own:
                config_of(known.active, self._own)  # live jobs will need it
            announced = store.change_index_versions(
                lambda held: held.told(own, remembered(self._own)).announced(
                    self._model.fingerprint, self._model.dimensions, remembered(self.to)
                )
            )
            mine = announced.of(self._model.fingerprint)
            assert mine is not None  # noqa: S101 - it was announced
            self.on_step(sink.name, "announced")
            if mine.state == "creating":
                self._create(store, mine)
                self.on_step(sink.name, "filling")
            return mine

    def fill(self, spark: Callable[[], SparkSession], sink: SinkConfig, tell: Tell) -> RebuildCounts | None:
        """Bring in from the lake what was before; nothing to do for an index version that had it."""
        with closing(self._own_sink(sink)) as store:
            mine = known_of(store).of(self._model.fingerprint)
            if mine is None or mine.state != "filling":
                return None
            done = Rebuild(spark(), self.config, sink, self.to, tell).run()
            store.change_index_versions(lambda held: held.reached(self._model.fingerprint, "filled"))
        self.on_step(sink.name, "filled")
        return done

    def backfill(self, sink: SinkConfig) -> Backfilled:
        """Bring in what the store's serving index version holds beside.

        Raises:
            StoppedError: some documents cannot be brought in; nothing was switched.
        """
        with self._both(sink) as (old, new):
            found = self._covered(old, new, self.to)
            if found.left_out:
                raise StoppedError(
                    f"sink {sink.name}: {len(found.left_out)} documents are not in the new index version, "
                    f"such as {found.left_out[0]}; readers stay where they are",
                    condition="NOT_COVERED",
                    hint="see the rejects of stage `embed`, mend the rows or choose a model that takes them, and run the "
                    "command again; or give the new index version up by `ragstream migrate CONFIG --back`",
                )
            self.on_step(sink.name, "covered")
        return found

    def check(self, sink: SinkConfig, golden: Sequence[GoldenQuestion]) -> Checked:
        """Ask the new index version for texts of its own, and both the golden questions.

        Raises:
            StoppedError: it finds less than it should; nothing was switched.
        """
        texts = self._some_texts(sink)
        with closing(Serving(sink, self._own)) as serving, closing(self._own_sink(sink)) as store:
            known, old = known_of(store), serving.searcher()
            mine = known.of(self._model.fingerprint)
            assert mine is not None  # noqa: S101 - it was filled
            new = serving.searcher_of(mine)
            try:
                checked = Checked(len(texts), probe(new, texts), compare(old, new, golden) if golden else None)
            finally:
                new.index.close()
        if not checked.good:
            raise StoppedError(
                f"sink {sink.name}: the new index version finds too little ({checked}); readers stay where they are",
                condition="GOLDEN_MISSED",
                hint="choose another model or correct the questions, or give it up by `ragstream migrate CONFIG --back`",
            )
        self.on_step(sink.name, "checked")
        return checked

    def ready(self, sink: SinkConfig) -> None:
        """Say that readers may use it."""
        with closing(self._own_sink(sink)) as store:
            store.change_index_versions(lambda held: held.reached(self._model.fingerprint, "ready"))
        self.on_step(sink.name, "ready")

    def switch(self, sink: SinkConfig) -> IndexVersions:
        """Let readers use it, by one change of the store's meta."""
        with closing(self._own_sink(sink)) as store:
            after = store.change_index_versions(lambda held: held.switched(self._model.fingerprint))
        self.on_step(sink.name, "switched")
        return after

    def begun(self) -> bool:
        """Whether some store knows of the model already."""
        for sink in self.config.sinks:
            with closing(self._own_sink(sink)) as store:
                if known_of(store).of(self._model.fingerprint) is not None:
                    return True
        return False

    def served(self, sink: SinkConfig) -> bool:
        """Whether readers use it already."""
        with closing(self._own_sink(sink)) as store:
            return known_of(store).active.fingerprint == self._model.fingerprint

    def _own_sink(self, sink: SinkConfig) -> Sink:
        return opened(self.config, sink)

    def _create(self, store: VersionedStore, mine: IndexVersion) -> None:
        try:
            store.sibling(mine).prepare()
        except ConfigurationError:
            store.drop(mine.number)
            store.change_index_versions(lambda held: held.without(mine.number))
            raise
        store.change_index_versions(lambda held: held.reached(mine.fingerprint, "filling"))

    @contextmanager
    def _both(self, sink: SinkConfig) -> Iterator[tuple[Sink, Sink]]:
        """The index version that readers use, and the one that they are to use."""
        with closing(self._own_sink(sink)) as store:
            known = known_of(store)
            mine = known.of(self._model.fingerprint)
            assert mine is not None  # noqa: S101 - it was announced
            yield store.sibling(known.active), store.sibling(mine)

    def _some_texts(self, sink: SinkConfig) -> list[str]:
        """Texts of chunks that readers find now."""
        texts: list[str] = []
        with self._both(sink) as (old, _):
            for bucket in sorted(old.bucket_checksums(1, vectors=False)):
                held = itertools.islice(old.documents_in(bucket, 1, vectors=False), _PROBED)
                live = [each for each in held if each.live and each.chunks]
                texts += self._tables.texts_of(live, old)
                if len(texts) >= _PROBED:
                    break
        return texts[:_PROBED]

    def _covered(self, old: Sink, new: Sink, to: EmbeddingConfig) -> Backfilled:
        embedder = open_embedder(to)
        cache = EmbeddingCache(self.config.lake.path, embedder.fingerprint)
        return backfill(old, new, self._tables, OptimisticWriter(embedder, cache, texts_at_once(to, embedder)))


def _refuse_another(sink: SinkConfig, known: IndexVersions) -> None:
    other = next((each for each in known.every if each.state in UNDER_WAY), None)
    if other is not None:
        raise ConfigurationError(
            f"sink {sink.name}: it is being moved to another model already ({other.fingerprint})",
            condition="MIGRATION_UNDER_WAY",
            hint="finish that by `ragstream migrate CONFIG --to` that model, or give it up by `--back`",
        )
