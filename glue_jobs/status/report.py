"""The report of `ragstream status`, from the jobs' status records, the lake and the stores."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NamedTuple

import pyarrow.compute as pc

from embeddings import open_embedder
from embeddings.budget.report import reports, sections_of
from embeddings.prices import Price, Usage, price_of
from glue_jobs.config.pipeline import PipelineConfig, is_configured
from glue_jobs.continuous import store_positions
from glue_jobs.continuous.backfills import Backfill, Backfills
from glue_jobs.status import drift
from glue_jobs.status.freshness import Freshness
from glue_jobs.status.outdated import Outdated, outdated_of
from glue_jobs.status.record import QueryRecord, read_all
from glue_jobs.status.table_notes import AT_LOB_LIMIT, HIDDEN_KEYS, schema_drift
from lake.landing.settled import settled_by_table
from lake.landing.unconfigured import left_out
from lake.layout import LakeLayout
from lake.storage import scan
from lake.tables.drift import ColumnDrift
from schemas.errors import PipelineError
from schemas.tables import TableConfig
from sinks import open_sink
from sinks.protocol import StoreSummary
from sinks.versions import IndexVersions
from transforms.documents.planning import DocumentSpec, is_refused

_IDLE_SECONDS = 5.0
"""A running query that was idle this recently counts as caught up."""


def status(config: PipelineConfig) -> dict[str, Any]:
    """Collect the report; a store that does not answer has an `error` in its place."""
    records = {record.query: record for record in read_all(config.checkpoint)}
    stores, backfills, behind = _stores(config), Backfills(config.checkpoint).read(), _behind(config)
    counted = {name: _count_by_table(config, name) for name in ("changes", "rejects")}
    settled = settled_by_table(LakeLayout(config.lake.path))
    pending = Counter[str]()
    for store in stores.values():
        if not isinstance(store, PipelineError):
            pending.update(dict(store.summary.unresolved))
    drifted = schema_drift(config)
    tables = {table.table: _table(table, config, records, counted, settled, pending) for table in config.tables}
    return {
        "tables": {name: row | {"schema_drift": _schema_drift(drifted.get(name, ()))} for name, row in tables.items()},
        "stores": {
            name: {
                "lag_seconds": _lag_of_store(records, name, backfills.get(name)),
                **_store(store),
                **_drift(config, name),
                "behind": name in behind,
                "backfilling": {"since": backfills[name].since} if name in backfills else None,
            }
            for name, store in stores.items()
        },
        "embedding": _embedding(config, records.values()),
        "budgets": {name: asdict(budget) for name, budget in reports(sections_of(config)).items()},
        "queries": {record.query: _query(record) for record in records.values()},
        "rejects_without_table": counted["rejects"][""] - settled[""],
        "rejects_settled": settled.total(),
        "unconfigured": [
            {"stream": s.stream, "records": s.tables.total(), "read": s.read, "tables": dict(s.tables)}
            for s in left_out(LakeLayout(config.lake.path), partial(is_configured, config))
        ],
    }


def _table(
    table: TableConfig,
    config: PipelineConfig,
    records: Mapping[str, QueryRecord],
    counted: Mapping[str, Counter[str]],
    settled: Counter[str],
    pending: Counter[str],
) -> dict[str, Any]:
    source = config.owner(table)
    land, index = records.get(f"land_{source}"), records.get(f"index_{source}")
    record = index if index is not None and config.sinks else land
    freshness = record.freshness.get(table.table, Freshness()) if record is not None else Freshness()
    total = {name: max(rows[table.table], _counted(land, table.table, name)) for name, rows in counted.items()}
    return {
        "changes": total["changes"],
        "rejects": total["rejects"] - settled[table.table],
        "pending": pending[table.table],
        "columns_missing": _columns_missing(index, table),
        HIDDEN_KEYS: _counted(land, table.table, HIDDEN_KEYS),
        AT_LOB_LIMIT: _counted(land, table.table, AT_LOB_LIMIT),
        "lag_seconds": lag_of([record] if record is not None else []),
        "freshness_seconds": {"p50": freshness.seconds(0.5), "p99": freshness.seconds(0.99)},
    }


def _schema_drift(drifted: Iterable[ColumnDrift]) -> list[dict[str, Any]]:
    """The columns of a table that differ from its first schema."""
    return [
        {"column": d.column, "change": d.change, "drift": d.drift, "types": list(d.kinds), "sentence": d.sentence}
        for d in drifted
    ]


def _columns_missing(index: QueryRecord | None, table: TableConfig) -> list[str]:
    """The document's columns that the newest complete row lacks."""
    spec = DocumentSpec.of(table)
    if index is None or spec is None or table.table not in index.columns_missing:
        return []
    return [name for name in index.columns_missing[table.table][1] if name in spec.columns]


def _counted(record: QueryRecord | None, table: str, name: str) -> int:
    """The job's count, which exceeds the lake's once retention has removed its oldest records."""
    return record.counts.get(table, {}).get(name, 0) if record is not None else 0


def _behind(config: PipelineConfig) -> set[str]:
    """The stores that lag behind others in some source."""
    places = [f"{config.checkpoint.rstrip('/')}/index_{source.name}" for source in config.sources]
    return {store for positions in filter(None, map(store_positions.read, places)) for store in positions.lagging}


def _lag_of_store(records: Mapping[str, QueryRecord], name: str, backfill: Backfill | None) -> float | None:
    if backfill is not None:
        return round(time.time() - backfill.since, 3)
    return lag_of(_queries(records, "index"), name)


def _store(answer: _StoreAnswer | PipelineError) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(("documents", "chunks", "refused", "model", "outdated", "filling"))
    if isinstance(answer, PipelineError):
        return row | {"error": answer.message}
    row |= {"documents": answer.summary.documents, "chunks": answer.summary.chunks, "refused": answer.refused}
    row["model"] = _index_versions(answer.summary.index_versions)
    row["filling"] = answer.filling or None
    return row | {"outdated": asdict(answer.outdated) if answer.outdated else None}


def _drift(config: PipelineConfig, store: str) -> dict[str, Any]:
    """The drift that the last `ragstream reconcile` of a store left, and its time; None: never."""
    last = drift.last(config.checkpoint, store)
    return {"drift": last.total, "reconciled_at": last.checked_at} if last else {"drift": None, "reconciled_at": None}


def _index_versions(versions: IndexVersions | None) -> dict[str, Any] | None:
    """The active model of a store, and the state of its other index versions by model."""
    if versions is None:
        return None
    others = {
        version.fingerprint: version.state for version in versions.every if version.number != versions.active_number
    }
    return {"active": versions.active.fingerprint, "index_version": versions.active_number, "others": others}


def lag_of(records: Iterable[QueryRecord], store: str = "") -> float | None:
    """The lag in seconds, of one store or of all; None before it is known.

    0 while the source holds nothing new; otherwise the age of the as-of time of the partition that is furthest behind.
    """
    now = time.time()
    lags = []
    for record in records:
        as_of_us = record.stores_as_of_us.get(store, record.as_of_us)
        if not as_of_us:
            return None
        idle = record.running and not record.waiting and now - record.idle_at < _IDLE_SECONDS
        idle = idle and as_of_us / 1_000_000 > record.idle_at - 1.0  # else the store is behind what the query has read
        seen_at = record.ticked_at if record.running and now - record.ticked_at < _IDLE_SECONDS else now
        lags.append(0.0 if idle else max(0.0, seen_at - as_of_us / 1_000_000))
    return round(max(lags), 3) if lags else None


def _embedding(config: PipelineConfig, records: Iterable[QueryRecord]) -> dict[str, Any]:
    total = Counter[str]()
    for record in records:
        total.update(record.embedding)
    model = getattr(config.embedding, "model", "")
    price = price_of(model) or Price()
    names = ("requests", "texts", "tokens", "cache_hits", "cache_misses", "throttles")
    return {name: total[name] for name in names} | {"spend_usd": round(price.of(Usage(total["tokens"]), 0), 6)}


def _query(record: QueryRecord) -> dict[str, Any]:
    return {
        "running": record.running,
        "batches": record.batches,
        "batch_seconds": {"p50": record.batch_seconds.seconds(0.5), "p99": record.batch_seconds.seconds(0.99)},
        "updated_at": record.updated_at,
        "error": record.last_error or None,
    }


def _queries(records: Mapping[str, QueryRecord], job: str) -> list[QueryRecord]:
    return [record for name, record in records.items() if name.startswith(f"{job}_")]


class _StoreAnswer(NamedTuple):
    """What `status` asks of a store."""

    summary: StoreSummary
    outdated: Outdated | None
    refused: int
    filling: str


def _stores(config: PipelineConfig) -> dict[str, _StoreAnswer | PipelineError]:
    if config.embedding is None or not config.sinks:
        return {}
    embedder = open_embedder(config.embedding)
    sinks = [open_sink(sink, embedder.fingerprint, embedder.dimensions) for sink in config.sinks]

    def summary(at: int) -> _StoreAnswer | PipelineError:
        try:
            store_summary = replace(sinks[at].summary(), index_versions=sinks[at].index_versions())
            counted = sinks[at].documents_by_spec()
            refused = sum(number for (_, digest), number in counted.items() if is_refused(digest))
            return _StoreAnswer(store_summary, outdated_of(config, sinks[at], counted), refused, sinks[at].filling())
        except PipelineError as error:
            return error
        finally:
            sinks[at].close()

    with ThreadPoolExecutor(max_workers=len(sinks)) as pool:
        return dict(zip((sink.name for sink in sinks), pool.map(summary, range(len(sinks))), strict=True))


def _count_by_table(config: PipelineConfig, name: str) -> Counter[str]:
    """Rows of one of the lake's tables by source table; reads one column, in batches."""
    counts = Counter[str]()
    for batch in scan(LakeLayout(config.lake.path).path(name), ["_table"]):
        tables, rows = pc.value_counts(batch.column(0)).flatten()
        for table, number in zip(tables.to_pylist(), rows.to_pylist(), strict=True):
            counts[str(table or "")] += int(number or 0)
    return counts
