"""`changes` folded into the tables of a warehouse: read the states concerned, fold, stage, and replace in one transaction.

Any cut of the changes into batches, any order and any repeat leaves the same rows (I2, I3). A batch killed at any point
and run again leaves what one run leaves. Of several drivers the second finds that the rows it read are others, and folds
anew: the warehouse itself refuses what was folded from an older revision.
"""

from __future__ import annotations

import datetime as dt
import functools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import batched
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from pyspark.sql import DataFrame, Row

from lake.history.key_groups import grouped
from lake.landing.batch import Transaction
from lake.layout import LakeLayout, escape
from lake.rejects import append_rejects
from lake.tables.batch_stats import TableCounts, summarized
from lake.tables.drift import refuse_drift
from lake.tables.observed_types import ObservedTypes
from lake.tables.shape import TableShape
from schemas.errors import ConfigurationError, UnavailableError
from schemas.ownership import Owner
from schemas.tables import TableConfig
from transforms.context import DecodeContext
from warehouse.batches import FewChanges, StoredRows, TableChanges, changes_of, history_of
from warehouse.checks import check_owner, owner_of
from warehouse.clients import Client, open_client
from warehouse.config import RedshiftConfig
from warehouse.errors import ContendedError, StaleError
from warehouse.folding import LoadSettings, Outcome
from warehouse.shape import evolved, filled, names_of, registered, steps
from warehouse.sql import REGISTERS, Copies, Load, Registry, TableStatements
from warehouse.staging import StagingWriter, staging
from warehouse.states import key_moves_of

_ROUNDS = 20
"""Times a batch is folded into a table anew; each is lost only to another load's progress, or to a new column."""
_PAUSE_SECONDS = 0.5
_REFILLED_AT_ONCE = 5_000
"""Rows whose history the driver holds at once."""


class WarehouseLoader:
    """Loads batches of `changes` into a warehouse, one table after the other."""

    def __init__(
        self,
        layout: LakeLayout,
        tables: Sequence[TableConfig],
        contexts: Mapping[str, DecodeContext],
        config: RedshiftConfig,
        owner: Owner,
    ) -> None:
        """Create the registry where it is missing, and claim the schema; `contexts` are the decode contexts by source.

        Raises:
            ConfigurationError: the schema belongs to another pipeline.
        """
        self._layout = layout
        self._tables = {table.table: table for table in tables}
        self._names = names_of(tables, config)
        self._contexts = contexts
        self._config = config
        self._client = open_client(config)
        registry = Registry(config.schema_name)
        check_owner(config, owner_of(self._client, registry), owner)
        prepare(self._client, registry)
        check_owner(config, claimed(self._client, registry, owner), owner)
        self._client.close()

    def load(self, frame: DataFrame, batch: str, transaction: Transaction) -> dict[str, TableCounts]:
        """Load one batch of rows of `changes`; `batch` names it, the same when it is run again, as a folder's name."""
        summaries = summarized(frame, self._layout, self._tables)
        changes = changes_of(frame, [summary for summary, _ in summaries])
        try:
            return {
                summary["_table"]: self._load(frame, summary, observed, changes[summary["_table"]], batch, transaction)
                for summary, observed in summaries
            }
        finally:
            self._client.close()

    def _load(
        self,
        frame: DataFrame,
        summary: Row,
        observed: ObservedTypes,
        changes: TableChanges,
        batch: str,
        transaction: Transaction,
    ) -> TableCounts:
        table = summary["_table"]
        reject = functools.partial(append_rejects, self._layout.root, stage="warehouse")
        history = functools.partial(history_of, frame.sparkSession, self._layout.path("changes"), table)
        load = TableLoad(
            changes, self._tables[table], observed, self._contexts, self._client, Copies(self._config.iam_role),
            TableStatements(Registry(self._config.schema_name), table, self._names[table]),
            staging(self._config, f"{batch}/{escape(table)}"),
            functools.partial(reject, transaction=transaction(f"rejects:warehouse:{table}")), history,
        )  # fmt: skip
        return load.run(summary)


def prepare(client: Client, registry: Registry) -> None:
    """Create schema and registry where they are missing; safe to call by several drivers at once."""
    for last in (False, False, True):
        present = client.run([registry.find()])
        if {name for _, name in present} >= REGISTERS:
            return
        try:
            client.run([*([] if present else [registry.create_schema()]), *registry.create()])
        except (ContendedError, ConfigurationError):
            if last:
                raise  # else somebody else may have created it meanwhile


def claimed(client: Client, registry: Registry, owner: Owner, instead_of: Owner | None = None) -> Owner:
    """Compare-and-set a schema's owner from none, or `instead_of`, to `owner`; returns the owner now. Idempotent."""
    (fields,) = client.run(registry.claim(owner, instead_of))
    return Owner(*map(str, fields))


class _Work(NamedTuple):
    """Changes to fold, and the pairs of keys that they tie."""

    changes: TableChanges
    pairs: Sequence[tuple[str, str]]
    again: bool = False
    """Whether values that a column refused are asked for again."""


@dataclass
class TableLoad:
    """One table's part of one batch."""

    changes: TableChanges
    table: TableConfig
    observed: ObservedTypes
    contexts: Mapping[str, DecodeContext]
    client: Client
    copies: Copies
    statements: TableStatements
    writer: StagingWriter
    reject: Callable[[Sequence[Mapping[str, Any]]], None]
    """Keeps what can never be loaded; once a batch, however often it runs."""
    history: Callable[[Sequence[str]], FewChanges]
    """All that has landed of some rows."""
    seen: set[str] = field(default_factory=set)

    def run(self, summary: Row) -> TableCounts:
        """Fold and write until no other load came between; then nothing is left on S3."""
        self.writer.clear()
        outcome = None
        for attempt in range(_ROUNDS):
            try:
                outcome = self._round(summary)
            except StaleError:
                continue
            except ContendedError:
                time.sleep(_PAUSE_SECONDS * random.uniform(0.5, 1.0) * min(attempt + 1, 10))  # noqa: S311
                continue
            if outcome is not None:
                break
        else:
            raise UnavailableError(f"warehouse: {self.table.table}: other loads were first {_ROUNDS} times")
        self.writer.clear()
        return TableCounts(summary["changes"], outcome.live, outcome.deleted, len(outcome.rejects))

    def _round(self, summary: Row) -> Outcome | None:
        """One try; None where records have a column that the table lacked."""
        shape, known_truncation = self._shape()
        truncated = max(summary["truncated"] or "", known_truncation)
        work = _Work(self.changes, tuple((p["_key"], p["_related_key"]) for p in summary["pairs"]))
        return self._applied(work, shape, known_truncation, truncated)

    def _applied(self, work: _Work, shape: TableShape, known_truncation: str, truncated: str) -> Outcome | None:
        """Fold a batch and write it."""
        stored = self._stored(work.changes, truncated, lagging=truncated > known_truncation)
        outcome = self._folded(work, shape, stored, truncated)
        if outcome.unknown:
            self.seen |= outcome.unknown
            return None
        if outcome.rejects and not work.again:
            self.reject(outcome.rejects)
        if outcome.rows or truncated != known_truncation:
            rows, pieces = (self.writer.manifest(f) if f else None for f in (outcome.rows, outcome.pieces))
            now = dt.datetime.now(dt.UTC).isoformat(" ", "seconds")
            load = Load(self.copies, shape, known_truncation, truncated, rows, pieces, outcome.layers, now)
            self.client.run(self.statements.write(load))
        return outcome

    def _refill(self, shape: TableShape, truncated: str) -> TableShape:
        """Read the values again from the lake that columns refused while they were narrower; a kill leaves them waiting."""
        refused = sorted(str(row[0]) for row in self.client.run([self.statements.refused()]))
        for keys in batched(refused, _REFILLED_AT_ONCE):
            changes = self.history(keys)
            if self._applied(_Work(changes, changes.pairs, again=True), shape, truncated, truncated) is None:
                raise StaleError(f"{self.table.table} lacks columns that landed")  # the next round adds them
        for step in steps(shape, filled(shape)):
            self.client.run(self.statements.alter(shape, step))
            shape = step
        return shape

    def _shape(self) -> tuple[TableShape, str]:
        """Bring the table to the shape that the announced types ask for; returns that and the table's newest TRUNCATE."""
        rows = self.client.run([self.statements.known()])
        refuse_drift(self.table, self.observed, sorted(self.seen))
        current = registered(rows)
        target = evolved(current, self.table, self.observed, sorted(self.seen))
        if not rows:
            self.client.run(self.statements.create(target))
            return target, ""
        if (name := unquote(str(rows[0][5]))) != self.statements.name:
            raise ConfigurationError(
                f"warehouse: {self.table.table} stands in the warehouse as {name}, and is called {self.statements.name} now",
                condition="WAREHOUSE_NAME_CHANGED",
                hint=f"call it {name} again (warehouse.names), or give this pipeline a schema of its own",
            )
        for step in steps(current, target):
            self.client.run(self.statements.alter(current, step))
            current = step
        truncated = str(rows[0][4] or "")
        return self._refill(target, truncated) if any(c.waiting for c in target.columns) else target, truncated

    def _stored(self, changes: TableChanges, truncated: str, *, lagging: bool) -> dict[str, tuple[int, str]]:
        """Revision and state of the rows that changes touch, and of those that took values along from them."""
        missing = changes.keys()
        stored: dict[str, tuple[int, str]] = {}
        read = set[str]()
        while missing or lagging:
            manifest = self.writer.rows(pa.table({"_key": pa.array(sorted(missing), pa.string())})) if missing else None
            rows = self.client.run(self.statements.read(self.copies, manifest, truncated, lagging=lagging))
            stored |= {str(key): (int(revision), str(state)) for key, revision, state in rows}
            read |= missing
            missing = {to for _, state in stored.values() for to in key_moves_of(state).values()} - read - stored.keys()
            lagging = False
        return stored

    def _folded(self, work: _Work, shape: TableShape, stored: StoredRows, truncated: str) -> Outcome:
        pairs = [(key, to) for key, (_, state) in stored.items() for to in key_moves_of(state).values()]
        settings = LoadSettings.of(self.table, self.observed, self.contexts, shape, truncated, self.writer)
        return work.changes.staged(replace(settings, again=work.again), stored, grouped([*pairs, *work.pairs]))
