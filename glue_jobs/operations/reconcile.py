"""Vector store against lake: checksums of buckets first, then only the keys of buckets that differ.

What should be there is folded from `changes` and, for the values of vectors, `embedding_cache` (I13). Safe while live jobs
run: what differs is looked at again, as long as some of it gets right by itself, and only what does not move is drift.
A row that the lake knows nothing of is removed only once landing has passed whatever its writer may have read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from glue_jobs.operations.lake_job import FromLake, sums, then
from glue_jobs.operations.ownership import owner_of
from glue_jobs.operations.rebuild import Rebuild
from glue_jobs.runtime.progress import Watch
from glue_jobs.status import landed
from indexing.audit.comparison import (
    DIGESTS,
    FOUND,
    HELD,
    REMOVED,
    REPAIRED,
    WANTED,
    Comparison,
    digest_stage,
    held_stage,
    judge_stage,
    remove_stage,
    repair_stage,
    want_stage,
)
from indexing.bulk import StoreSettings
from lake.history.states import STATES, StateSettings, by_group, state_stage
from schemas.documents import HAS_VECTOR, BucketChecksum
from schemas.errors import PipelineError
from sinks.digests import DIGITS, KINDS, most_removed

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from embeddings import EmbeddingConfig
    from glue_jobs.config.pipeline import PipelineConfig
    from glue_jobs.runtime.progress import Tell
    from lake.history.states import History
    from sinks import SinkConfig
    from sinks.protocol import Sink
    from transforms.documents.planning import DocumentSpec

SETTLE_SECONDS = 3.0
"""Between two looks: longer than a record is on its way to a store, as a rule."""
MOST_LOOKS = 12
LANDING_SECONDS = 5.0
"""How long landing is waited for, beside two times `lake.land_every`."""
_SAME = ("kind", "document_id", "name", "revision")
"""What says that a finding is the one of the look before."""
REBUILD_FROM = 5_000
"""Findings from which the bulk path writes first what it can, and the repair the rest."""
EXAMPLES = 20
_A_BUCKET = 64
"""Rows of a bucket, about: what is read again for one difference."""
_MOST_DIGITS = 4
"""Of a bucket's name: the driver holds 65,536 checksums at most."""


@dataclass
class Reconciled:
    """What a reconciliation of one store found and did; rows are heads and chunks."""

    rows: int = 0
    """That the store should have."""
    rows_read: int = 0
    """That were read in the store, looks at differing buckets included."""
    looks: int = 0
    drift: dict[str, int] = field(default_factory=dict)
    """By kind: missing, orphan, stale, duplicate; and, though it is no drift, refused."""
    left: dict[str, int] = field(default_factory=dict)
    """The same after the repair; what was found, without one."""
    examples: list[dict[str, str]] = field(default_factory=list)
    repaired: int = 0
    removed: int = 0
    unproven: int = 0
    """Orphans that may yet be landed: they are never removed."""
    notes: list[str] = field(default_factory=list)
    """Why orphans were left, and which command goes on."""
    texts_sent: int = 0
    """Texts whose vector neither cache nor any store held."""
    seconds: float = 0.0


@dataclass
class Reconcile:
    """Compares one store with the lake; on the driver are a bounded number of checksums, and counts."""

    spark: SparkSession
    config: PipelineConfig
    sink: SinkConfig
    embedding: EmbeddingConfig
    tell: Tell
    vectors: bool = True
    """Whether the values of vectors are compared, or only that each chunk has one."""
    settle_seconds: float = SETTLE_SECONDS
    pause: Callable[[float], None] = time.sleep
    """Waits between two looks, in seconds."""
    found: Reconciled = field(default_factory=Reconciled)

    def __post_init__(self) -> None:
        """Open the lake's side."""
        self._lake = FromLake(self.spark, self.config, self.embedding)
        self._width = 1

    def run(self, *, repair: bool, force: bool = False) -> Reconciled:
        """Compare and, where it is asked for, repair what was found and look again; `force` removes however many orphans."""
        began = time.monotonic()
        store = self._lake.open(self.sink)
        try:
            if repair:
                store.prepare(owner_of(self.config))
            drift = self._proven(store, self._settled(store))
            self.found.drift = self.found.left = _by_kind(drift)
            first = drift.select("kind", F.col("table_name").alias("table"), "document_id").limit(EXAMPLES)
            self.found.examples = [row.asDict() for row in first.collect()]
            if repair and differences(self.found.drift):
                self._repair(store, drift, force=force)
                self.found.left = _by_kind(self._look_again(store, drift))
        finally:
            store.close()
        self.found.seconds = round(time.monotonic() - began, 3)
        return self.found

    def _settled(self, store: Sink) -> DataFrame:
        """FOUND that stays as it is however long one waits."""
        found = self._first_look(store).localCheckpoint()
        number = found.count()
        for _ in range(MOST_LOOKS):
            if not number:
                break
            self.pause(self.settle_seconds)
            before = number
            found = self._still(store, found)
            number = found.count()
            if number == before:
                break
        return found

    def _still(self, store: Sink, found: DataFrame) -> DataFrame:
        """Look again, and keep what was found before on the same revision."""
        again = self._look_again(store, found)
        return again.join(found.select(*_SAME), list(_SAME), "left_semi").localCheckpoint()

    def _proven(self, store: Sink, found: DataFrame) -> DataFrame:
        """Wait until landing has passed all that index may have read by now, and look again at what may yet be landed.

        FOUND with a column `proven`: false of orphans that landing could not be waited for.
        """
        open_ones = F.col("kind").eqNullSafe("orphan") & F.col("table_name").isin([t.table for t in self.config.tables])
        number = found.filter(open_ones).count()
        reason = self._await_landing() if number else ""
        if not number or reason:
            self.found.unproven = number
            if reason:
                self.found.notes.append(f"{number} of the orphans may yet be landed, and are not removed: {reason}")
            return found.withColumn("proven", ~open_ones)
        return self._still(store, found).withColumn("proven", F.lit(True))  # noqa: FBT003 - Spark's own

    def _await_landing(self) -> str:
        """Why it is not known that the lake holds all that index may have read by now; empty when it does."""
        try:
            read = landed.readings(self.config)
        except PipelineError as error:
            return f"{error.message} Run it again when the source answers."
        for _ in range(math.ceil(2 * self.config.lake.land_every + LANDING_SECONDS)):
            if not (late := landed.unlanded(read)):
                return ""
            self.pause(1.0)
        return f"landing of {', '.join(late)} is behind. Run `ragstream run CONFIG --jobs land`, then this again."

    def _first_look(self, store: Sink) -> DataFrame:
        """Compare checksums, then what differs; the lake first, as it is behind the store rather than ahead of it."""
        histories = list(self._lake.histories())
        changes = sum(history.changes for _, history in histories)
        self._width = max(1, min(_MOST_DIGITS, math.ceil(math.log(max(1, changes / _A_BUCKET), 16))))
        with Watch(self._lake.spark, self.sink.name, self.tell) as watch:
            wanted = self._wanted(histories, watch.step("fold", changes)).localCheckpoint()
            sums_wanted = self._checksums(wanted)
        self.found.rows = sum(each.rows for each in sums_wanted.values())
        held = store.bucket_checksums(self._width, vectors=self.vectors)
        self.found.rows_read = sum(each.rows for each in held.values())
        buckets = {name for name in held.keys() | sums_wanted.keys() if held.get(name) != sums_wanted.get(name)}
        return self._differences(store, wanted, buckets, histories)

    def _look_again(self, store: Sink, found: DataFrame) -> DataFrame:
        """Fold only those rows anew that were found to differ, and read their buckets again."""
        histories = list(self._lake.histories())
        ids = found.select("document_id").distinct()
        buckets = {row[0] for row in ids.select(self._bucket()).distinct().collect()}
        wanted = self._wanted(histories, lambda _: None, ids)
        told = self._differences(store, wanted, buckets, histories)
        return told.join(ids, "document_id", "left_semi")

    def _wanted(
        self,
        histories: Collection[tuple[DocumentSpec, History]],
        done: Callable[[int], None],
        ids: DataFrame | None = None,
    ) -> DataFrame:
        frames = [self._lake.spark.createDataFrame([], from_arrow_schema(WANTED))]
        for spec, history in histories:
            stage = then(state_stage(self._folding(spec, done)), want_stage(spec, history.truncated))
            frames.append(self._grouped(spec, history, ids).mapInArrow(stage, from_arrow_schema(WANTED)))
        return reduce(lambda one, other: one.union(other), frames)

    def _grouped(self, spec: DocumentSpec, history: History, ids: DataFrame | None) -> DataFrame:
        keys = None
        if ids is not None:
            keys = history.rows.select("_key").distinct()
            keys = keys.withColumn("document_id", _document_id(spec.table)).join(ids, "document_id", "left_semi")
            keys = keys.select("_key")
        return by_group(history, self._lake.tasks(history.changes), keys)

    def _folding(self, spec: DocumentSpec, done: Callable[[int], None]) -> StateSettings:
        return StateSettings(spec, self._lake.contexts, done)

    def _checksums(self, wanted: DataFrame) -> dict[str, BucketChecksum]:
        """What the store's own checksums should be."""
        lines = wanted.select(self._bucket(), F.explode("chunks").alias("c")).select(
            "bucket", "c.content_hash", "c.line"
        )
        if self.vectors:
            digests = self._digests(lines).groupBy("content_hash").agg(F.min("vector").alias("vector"))
            lines = lines.join(digests, "content_hash", "left").withColumn("vector", F.coalesce("vector", F.lit("")))
        else:
            lines = lines.withColumn("vector", F.lit(HAS_VECTOR))
        digest = F.substring(F.sha2(F.concat("line", F.lit("|"), "vector"), 256), 1, DIGITS)
        weighed = lines.select("bucket", F.conv(digest, 16, 10).cast("decimal(20,0)").alias("weight"))
        heads = wanted.select(self._bucket(), F.col("head").cast("decimal(20,0)").alias("weight"))
        told = heads.union(weighed).groupBy("bucket").agg(F.count("*").alias("rows"), F.sum("weight").alias("sum"))
        return {row["bucket"]: BucketChecksum(row["rows"], int(row["sum"])) for row in told.collect()}

    def _differences(
        self,
        store: Sink,
        wanted: DataFrame,
        buckets: Collection[str],
        histories: Collection[tuple[DocumentSpec, History]],
    ) -> DataFrame:
        """Compare documents of some buckets one by one: FOUND."""
        self.found.looks += 1
        if not buckets:
            return self._lake.spark.createDataFrame([], from_arrow_schema(FOUND))
        landed = {table.table: "" for table in self.config.tables if table.document}
        landed |= {spec.table: history.landed for spec, history in histories}
        comparison = Comparison(self._width, self.vectors, landed, store.truncations())
        spark, tasks = self._lake.spark, self._lake.tasks(len(buckets) * _A_BUCKET)
        named = spark.createDataFrame([(name,) for name in sorted(buckets)], "bucket string")
        read = spark.sparkContext.accumulator(0)
        stage = held_stage(self._settings(read.add), comparison)
        held = named.repartition(tasks).mapInArrow(stage, from_arrow_schema(HELD))
        held = held.groupBy("document_id").agg(F.collect_list("held").alias("held"))
        wanted = wanted.withColumn("bucket", self._bucket()).join(named, "bucket", "left_semi").drop("bucket")
        both = self._with_vectors(wanted).join(held, "document_id", "full_outer").select(*WANTED.names, "held")
        found = both.mapInArrow(judge_stage(comparison), from_arrow_schema(FOUND)).localCheckpoint()
        self.found.rows_read += read.value
        return found

    def _with_vectors(self, wanted: DataFrame) -> DataFrame:
        """Give each chunk the digests of the vectors that would do."""
        chunks = wanted.select("document_id", F.explode("chunks").alias("c")).select("document_id", "c.*")
        if self.vectors:
            digests = self._digests(chunks).groupBy("content_hash").agg(F.collect_set("vector").alias("vectors"))
            chunks = chunks.join(digests, "content_hash", "left")
        else:
            chunks = chunks.withColumn("vectors", F.array().cast("array<string>"))
        told = F.collect_list(F.struct("chunk_id", "content_hash", "line", "vectors")).alias("chunks")
        return wanted.drop("chunks").join(chunks.groupBy("document_id").agg(told), "document_id", "left")

    def _digests(self, chunks: DataFrame) -> DataFrame:
        """Digests of the cached vectors of some chunks; a text that was embedded twice has two."""
        digests = self._lake.cache.frame(self._lake.spark).mapInArrow(digest_stage, from_arrow_schema(DIGESTS))
        return digests.join(chunks.select("content_hash").distinct(), "content_hash", "left_semi")

    def _repair(self, store: Sink, drift: DataFrame, *, force: bool) -> None:
        """Bring what was found right: rows no writer reaches are removed, all else is written anew under the guard."""
        foreign = (F.col("kind") == "orphan") | (F.col("name") != F.col("document_id"))
        removed = self._removable(store, drift, force=force).filter(foreign)
        removed = removed.mapInArrow(remove_stage(self._settings()), from_arrow_schema(REMOVED))
        self.found.removed += sums(removed, "removed")["removed"]
        if differences(self.found.drift) >= REBUILD_FROM:
            rebuilt = Rebuild(self._lake.spark, self.config, self.sink, self.embedding, self.tell).run()
            self.found.repaired += rebuilt.written
            self.found.texts_sent += rebuilt.texts_sent
            drift = self._look_again(store, drift)
        drift = drift.filter("kind <> 'refused'")
        mine = drift.filter(~foreign).groupBy("document_id").agg(F.max("vector").alias("vector"))
        for spec, history in self._lake.histories():
            if history.truncated:
                store.truncate(spec.table, history.truncated)
            ids = mine.select("document_id")
            states = self._grouped(spec, history, ids).mapInArrow(
                state_stage(self._folding(spec, lambda _: None)), STATES
            )
            todo = states.withColumn("document_id", _document_id(spec.table)).join(mine, "document_id")
            stage = repair_stage(self._settings(), spec)
            done = sums(
                todo.select("_key", "_state", "vector").mapInArrow(stage, from_arrow_schema(REPAIRED)), *REPAIRED.names
            )
            self.found.repaired += done["repaired"]
            self.found.texts_sent += done["embedded"]

    def _removable(self, store: Sink, drift: DataFrame, *, force: bool) -> DataFrame:
        """What may be removed of FOUND: no orphan that may yet be landed, and not so many that it is the lake that lacks."""
        drift = drift.filter("proven").drop("proven")
        orphans, documents = drift.filter("kind = 'orphan'").count(), store.summary().documents
        if force or orphans <= most_removed(documents):
            return drift
        self.found.notes.append(
            f"{orphans} orphans beside {documents} documents are too many to be removed unasked, and stay. See first that"
            f" {self.config.lake.path} is the lake that filled {self.sink.name}; if it is, and they may go:"
            f" `ragstream reconcile CONFIG --repair --force --store {self.sink.name}`."
        )
        return drift.filter("kind <> 'orphan'")

    def _settings(self, done: Callable[[int], None] = lambda _: None) -> StoreSettings:
        return StoreSettings(self.sink, self.embedding, self._lake.lent_to(self.sink), done)

    def _bucket(self) -> Column:
        return F.substring("document_id", 1, self._width).alias("bucket")


def differences(found: Mapping[str, int]) -> int:
    """Findings that a repair has to do with."""
    return sum(number for kind, number in found.items() if kind != "refused")


def _document_id(table: str) -> Column:
    """`transforms.documents.planning.document_id` of a column `_key`."""
    return F.substring(F.sha2(F.concat(F.lit(f"{table}\0"), F.col("_key")), 256), 1, 32)


def _by_kind(found: DataFrame) -> dict[str, int]:
    counted = {row["kind"]: row["count"] for row in found.groupBy("kind").count().collect()}
    return {kind: counted.get(kind, 0) for kind in KINDS}
