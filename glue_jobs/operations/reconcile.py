"""Compares a vector store with the lake: by checksums of buckets, then document by document in buckets that differ.

The expected documents are folded from `changes` and, for the values of vectors, `embedding_cache` (I13). Safe while live jobs
run: differences are compared again until their number no longer falls, and only those that persist are drift. An orphan (a
document that the lake lacks) is removed only once landing has passed everything that index may have read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from embeddings import EmbeddingConfig
from glue_jobs.config.pipeline import PipelineConfig
from glue_jobs.operations.findings import Findings, Group, broadcast_if_few, bucket, is_foreign
from glue_jobs.operations.lake_job import LakeJob, sums, then
from glue_jobs.operations.ownership import owner_of
from glue_jobs.operations.rebuild import Rebuild
from glue_jobs.runtime.progress import OnProgress, Progress
from glue_jobs.status import landed
from indexing.audit.comparison import (
    DIGESTS,
    DRIFT,
    REMOVED,
    REPAIRED,
    STORED,
    WANTED,
    Comparison,
    digest_stage,
    drift_stage,
    remove_stage,
    repair_stage,
    stored_stage,
    wanted_stage,
)
from indexing.bulk import StoreSettings
from lake.history.states import STATES, History, StateSettings, by_group, state_stage
from schemas.documents import HAS_VECTOR, BucketChecksum
from schemas.errors import PipelineError
from sinks import SinkConfig
from sinks.digests import DIGITS, most_removed
from sinks.protocol import Sink
from transforms.documents.planning import DocumentSpec

SETTLE_SECONDS = 3.0
"""Pause between two comparisons: usually longer than a record takes to a store."""
MOST_LOOKS = 12
LANDING_SECONDS = 5.0
"""How long to wait for landing, in addition to twice `lake.land_every`."""
_IDENTITY = ("kind", "document_id", "name", "revision")
"""Columns that identify a finding over several comparisons."""
REBUILD_FROM = 5_000
"""From this number of findings on, a rebuild writes what it can before the repair."""
EXAMPLES = 20
_ROWS_A_BUCKET = 64
"""About the rows of a bucket, which are read again for one difference."""
_MOST_DIGITS = 4
"""Of a bucket's name, so that the driver holds at most 65,536 checksums."""


@dataclass
class Reconciled:
    """The result of reconciling one store; rows are document rows and chunks."""

    rows: int = 0
    """Rows that the store should have."""
    rows_read: int = 0
    """Rows read in the store, including comparisons of differing buckets."""
    looks: int = 0
    """Comparisons made."""
    drift: dict[str, int] = field(default_factory=dict)
    """Findings by kind: missing, orphan, stale, duplicate; also refused, which is no drift."""
    left: dict[str, int] = field(default_factory=dict)
    """The same after the repair, or `drift` without one."""
    examples: list[dict[str, str]] = field(default_factory=list)
    repaired: int = 0
    removed: int = 0
    unproven: int = 0
    """Orphans whose records may still be landed; they are never removed."""
    notes: list[str] = field(default_factory=list)
    """Why orphans were kept, and the command to run next."""
    texts_sent: int = 0
    """Texts sent to the model, whose vectors neither cache nor any store had."""
    seconds: float = 0.0


@dataclass(frozen=True)
class _Fold:
    """What the store should hold, as of one version of the lake."""

    version: int | None
    histories: Sequence[tuple[DocumentSpec, History]]
    wanted: DataFrame
    """WANTED, evaluated once: all documents, or those that are compared again."""


@dataclass
class Reconcile:
    """Compares one store with the lake; the driver keeps counts and a bounded number of checksums."""

    spark: SparkSession
    config: PipelineConfig
    sink: SinkConfig
    embedding: EmbeddingConfig
    on_progress: OnProgress
    vectors: bool = True
    """Whether to compare the values of vectors, or only that each chunk has one."""
    settle_seconds: float = SETTLE_SECONDS
    pause: Callable[[float], None] = time.sleep
    """Waits a number of seconds between two comparisons."""
    result: Reconciled = field(default_factory=Reconciled)

    def __post_init__(self) -> None:
        """Open the model and the cache."""
        self._lake = LakeJob(self.spark, self.config, self.embedding)
        self._width = 1
        self._read = self._lake.spark.sparkContext.accumulator(0)

    def run(self, *, repair: bool, force: bool = False) -> Reconciled:
        """Compare and, with `repair`, repair and compare again; `force` removes orphans, however many there are.

        A repair is guarded and may be stopped anywhere; run again, it repairs the rest.
        """
        began = time.monotonic()
        store = self._lake.open(self.sink)
        try:
            if repair:
                store.prepare(owner_of(self.config))
            drift = self._proven(store, self._stable_findings(store))
            self.result.drift = self.result.left = drift.by_kind()
            if drift.number:
                first = drift.frame.select("kind", F.col("table_name").alias("table"), "document_id").limit(EXAMPLES)
                self.result.examples = [row.asDict() for row in first.collect()]
            if repair and differences(self.result.drift):
                self._repair(store, drift, force=force)
                self.result.left = Findings.of(self._look_again(store, drift), self._width).by_kind()
        finally:
            store.close()
        self.result.rows_read += self._read.value
        self.result.seconds = round(time.monotonic() - began, 3)
        return self.result

    def _stable_findings(self, store: Sink) -> Findings:
        """The findings that persist."""
        differing = self._first_look(store)  # it sets the width of buckets
        findings = Findings.of(differing, self._width)
        for _ in range(MOST_LOOKS):
            if not findings.number:
                break
            self.pause(self.settle_seconds)
            before = findings.number
            findings = self._unchanged(store, findings)
            if findings.number == before:
                break
        return findings

    def _unchanged(self, store: Sink, findings: Findings) -> Findings:
        """Compare again, and keep the findings that persist on the same revision."""
        known = broadcast_if_few(findings, findings.frame.select(*_IDENTITY))
        again = self._look_again(store, findings)
        return Findings.of(again.join(known, list(_IDENTITY), "left_semi"), self._width)

    def _proven(self, store: Sink, findings: Findings) -> Findings:
        """Wait until landing has passed all that index may have read by now, then compare again if the lake has changed.

        If landing does not get there, `result.unproven` says how many orphans may still be landed.
        """
        number = findings.count(self._may_be_landed)
        if not number:
            return findings
        if reason := self._await_landing():
            self.result.unproven = number
            self.result.notes.append(f"{number} of the orphans may still be landed, and are not removed: {reason}")
            return findings
        if self._lake.version() == self._folded.version:
            return findings
        return self._unchanged(store, findings)

    def _may_be_landed(self, group: Group) -> bool:
        return group.kind == "orphan" and group.table in {table.table for table in self.config.tables}

    def _await_landing(self) -> str:
        """Wait for landing to pass all that index may have read by now; returns why it did not, empty if it did."""
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
        """Compare checksums, then differing buckets; the lake is read first, since it may lag behind the store."""
        version = self._lake.version()
        histories = list(self._lake.histories())
        changes = sum(history.changes for _, history in histories)
        self._width = max(1, min(_MOST_DIGITS, math.ceil(math.log(max(1, changes / _ROWS_A_BUCKET), 16))))
        with Progress(self._lake.spark, self.sink.name, self.on_progress) as progress:
            wanted = self._wanted(histories, progress.step("fold", changes)).localCheckpoint(eager=False)
            sums_wanted = self._checksums(wanted)
        self._folded = _Fold(version, histories, wanted)
        self.result.rows = sum(checksum.rows for checksum in sums_wanted.values())
        stored = store.bucket_checksums(self._width, vectors=self.vectors)
        self.result.rows_read = sum(checksum.rows for checksum in stored.values())
        buckets = {name for name in stored.keys() | sums_wanted.keys() if stored.get(name) != sums_wanted.get(name)}
        return self._differences(store, buckets)

    def _look_again(self, store: Sink, findings: Findings) -> DataFrame:
        """Compare again only the documents of these findings; their rows are folded anew if the lake has changed."""
        ids = broadcast_if_few(findings, findings.frame.select("document_id"))
        if (version := self._lake.version()) != self._folded.version:
            histories = list(self._lake.histories())
            wanted = self._wanted(histories, lambda _: None, ids).localCheckpoint(eager=False)
            self._folded = _Fold(version, histories, wanted)
        return self._differences(store, {group.bucket for group in findings.counts}, ids, few=findings.are_few)

    def _wanted(
        self,
        histories: Collection[tuple[DocumentSpec, History]],
        done: Callable[[int], None],
        ids: DataFrame | None = None,
    ) -> DataFrame:
        frames = list[DataFrame]()
        for spec, history in histories:
            fold = StateSettings(spec, self._lake.contexts, done)
            stage = then(state_stage(fold), wanted_stage(spec, history.truncated))
            frames.append(self._grouped(spec, history, ids).mapInArrow(stage, from_arrow_schema(WANTED)))
        return reduce(DataFrame.union, frames or [self._lake.spark.createDataFrame(WANTED.empty_table())])

    def _grouped(self, spec: DocumentSpec, history: History, ids: DataFrame | None) -> DataFrame:
        keys = None
        if ids is not None:
            keys = history.rows.select("_key").distinct()
            keys = keys.withColumn("document_id", _document_id(spec.table)).join(ids, "document_id", "left_semi")
            keys = keys.select("_key")
        return by_group(history, self._lake.tasks(history.changes), keys)

    def _checksums(self, wanted: DataFrame) -> dict[str, BucketChecksum]:
        """The expected checksums of the store's buckets."""
        lines = wanted.select(self._bucket(), F.explode("chunks").alias("c")).select(
            "bucket", "c.content_hash", "c.line"
        )
        if self.vectors:
            digests = self._digests().groupBy("content_hash").agg(F.min("vector").alias("vector"))
            lines = lines.join(digests, "content_hash", "left").withColumn("vector", F.coalesce("vector", F.lit("")))
        else:
            lines = lines.withColumn("vector", F.lit(HAS_VECTOR))
        digest = F.substring(F.sha2(F.concat("line", F.lit("|"), "vector"), 256), 1, DIGITS)
        weighed = lines.select("bucket", F.conv(digest, 16, 10).cast("decimal(20,0)").alias("weight"))
        heads = wanted.select(self._bucket(), F.col("head").cast("decimal(20,0)").alias("weight"))
        totals = heads.union(weighed).groupBy("bucket").agg(F.count("*").alias("rows"), F.sum("weight").alias("sum"))
        return {row["bucket"]: BucketChecksum(row["rows"], int(row["sum"])) for row in totals.collect()}

    def _differences(
        self, store: Sink, buckets: Collection[str], ids: DataFrame | None = None, *, few: bool = False
    ) -> DataFrame:
        """Compare the documents of some buckets one by one, or of these only those with an id in `ids`; returns DRIFT."""
        self.result.looks += 1
        if not buckets:
            return self._lake.spark.createDataFrame(DRIFT.empty_table())
        landed = {table.table: "" for table in self.config.tables if table.document}
        landed |= {spec.table: history.landed for spec, history in self._folded.histories}
        comparison = Comparison(self._width, self.vectors, landed, store.truncations())
        tasks = self._lake.tasks(len(buckets) * _ROWS_A_BUCKET)
        named = self._lake.spark.createDataFrame(pa.table({"bucket": sorted(buckets)}))
        stage = stored_stage(self._settings(self._read.add), comparison)
        stored = named.repartition(tasks).mapInArrow(stage, from_arrow_schema(STORED))
        if ids is None:
            wanted = self._folded.wanted.withColumn("bucket", self._bucket())
            wanted = wanted.join(named, "bucket", "left_semi").drop("bucket")
        else:
            wanted = self._folded.wanted.join(ids, "document_id", "left_semi")
            stored = stored.join(ids, "document_id", "left_semi")
        stored = stored.groupBy("document_id").agg(F.collect_list("stored").alias("stored"))
        both = self._with_vectors(wanted, few=few).join(stored, "document_id", "full_outer")
        return both.select(*WANTED.names, "stored").mapInArrow(drift_stage(comparison), from_arrow_schema(DRIFT))

    def _with_vectors(self, wanted: DataFrame, *, few: bool) -> DataFrame:
        """Add to each chunk the digests of the vectors that are valid for it."""
        chunks = wanted.select("document_id", F.explode("chunks").alias("c")).select("document_id", "c.*")
        if self.vectors:
            digests = self._digests(chunks.select("content_hash") if few else None)
            digests = digests.groupBy("content_hash").agg(F.collect_set("vector").alias("vectors"))
            chunks = chunks.join(digests, "content_hash", "left")
        else:
            chunks = chunks.withColumn("vectors", F.array().cast("array<string>"))
        with_digests = F.collect_list(F.struct("chunk_id", "content_hash", "line", "vectors")).alias("chunks")
        return wanted.drop("chunks").join(chunks.groupBy("document_id").agg(with_digests), "document_id", "left")

    def _digests(self, few: DataFrame | None = None) -> DataFrame:
        """Digests of the cached vectors, or of those of a few texts; a text that was embedded twice has two."""
        cached = self._lake.cache.frame(self._lake.spark)
        if few is not None:
            cached = cached.join(F.broadcast(few), "content_hash", "left_semi")
        return cached.mapInArrow(digest_stage, from_arrow_schema(DIGESTS))

    def _repair(self, store: Sink, drift: Findings, *, force: bool) -> None:
        """Repair findings: remove rows that no writer can overwrite, write the others again under the guard."""
        self._remove(store, drift, force=force)
        if differences(self.result.drift) >= REBUILD_FROM:
            rebuilt = Rebuild(self._lake.spark, self.config, self.sink, self.embedding, self.on_progress).run()
            self.result.repaired += rebuilt.written
            self.result.texts_sent += rebuilt.texts_sent
            drift = Findings.of(self._look_again(store, drift), self._width)
        if not drift.count(lambda group: group.kind != "refused" and not group.foreign):
            return
        writable = drift.frame.filter("kind <> 'refused'").filter(~is_foreign())
        writable = broadcast_if_few(drift, writable.groupBy("document_id").agg(F.max("vector").alias("vector")))
        for spec, history in self._folded.histories:
            if history.truncated:
                store.truncate(spec.table, history.truncated)
            fold = StateSettings(spec, self._lake.contexts, lambda _: None)
            states = self._grouped(spec, history, writable).mapInArrow(state_stage(fold), STATES)
            todo = states.withColumn("document_id", _document_id(spec.table)).join(writable, "document_id")
            todo = todo.select("_key", "_state", "vector")
            repaired = todo.mapInArrow(repair_stage(self._settings(), spec), from_arrow_schema(REPAIRED))
            done = sums(repaired, *REPAIRED.names)
            self.result.repaired += done["repaired"]
            self.result.texts_sent += done["embedded"]

    def _remove(self, store: Sink, drift: Findings, *, force: bool) -> None:
        """Remove what no writer can overwrite, but no unproven orphan, and no orphan at all if there are too many.

        Many orphans mean a lake that lost records rather than a store with too many documents.
        """
        removed = drift.frame.filter(is_foreign())
        orphans = self.result.drift["orphan"] - self.result.unproven
        if self.result.unproven:
            mine = F.col("table_name").isin([table.table for table in self.config.tables])
            removed = removed.filter((F.col("kind") != "orphan") | ~mine)
        if not force and orphans and orphans > most_removed(documents := store.summary().documents):
            self.result.notes.append(
                f"{orphans} orphans of {documents} documents are too many to be removed without --force. Check first that"
                f" {self.config.lake.path} is the lake that filled {self.sink.name}; if it is, remove them by:"
                f" `ragstream reconcile CONFIG --repair --force --store {self.sink.name}`."
            )
            orphans, removed = 0, removed.filter("kind <> 'orphan'")
        if orphans or drift.count(lambda group: group.foreign and group.kind != "orphan"):
            removed = removed.mapInArrow(remove_stage(self._settings()), from_arrow_schema(REMOVED))
            self.result.removed += sums(removed, "removed")["removed"]

    def _settings(self, done: Callable[[int], None] = lambda _: None) -> StoreSettings:
        return StoreSettings(self.sink, self.embedding, self._lake.peers_of(self.sink), done)

    def _bucket(self) -> Column:
        return bucket(self._width)


def differences(counts: Mapping[str, int]) -> int:
    """The number of findings that are drift."""
    return sum(number for kind, number in counts.items() if kind != "refused")


def _document_id(table: str) -> Column:
    """`transforms.documents.planning.document_id` of a column `_key`."""
    return F.substring(F.sha2(F.concat(F.lit(f"{table}\0"), F.col("_key")), 256), 1, 32)
