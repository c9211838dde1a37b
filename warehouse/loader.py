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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa

from lake.history.key_groups import grouped
from lake.layout import escape
from lake.rejects import create_rejects
from lake.storage import append_rows
from lake.table_schemas import REJECTS
from lake.tables.batch_stats import require_schemas, summarized
from lake.tables.observed_types import ObservedTypes, announced, types_of
from lake.tables.shape import TableShape
from schemas.errors import ConfigurationError, UnavailableError
from schemas.ownership import Owner
from warehouse.batches import changes_of
from warehouse.checks import check_owner, owner_of
from warehouse.clients import open_client
from warehouse.errors import ContendedError, StaleError
from warehouse.folding import LoadSettings, Outcome
from warehouse.shape import evolved, names_of, registered, steps
from warehouse.sql import REGISTERS, Copies, Load, Registry, TableStatements
from warehouse.staging import StagingWriter, staging
from warehouse.states import key_moves_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row

    from lake.landing.batch import Transaction
    from lake.layout import LakeLayout
    from schemas.tables import TableConfig
    from transforms.context import DecodeContext
    from warehouse.batches import TableChanges
    from warehouse.clients import Client
    from warehouse.config import RedshiftConfig

_ROUNDS = 20
"""Times a batch is folded into a table anew; each is lost only to another load's progress, or to a new column."""
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class LoadCounts:
    """What a load did to one table."""

    changes: int = 0
    written: int = 0
    deleted: int = 0
    rejects: int = 0


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
        create_rejects(layout.root)
        registry = Registry(config.schema_name)
        check_owner(config, owner_of(self._client, registry), owner)
        prepare(self._client, registry)
        check_owner(config, claimed(self._client, registry, owner), owner)
        self._client.close()

    def load(self, frame: DataFrame, batch: str, transaction: Transaction) -> dict[str, LoadCounts]:
        """Load one batch of rows of `changes`; `batch` names it, the same when it is run again, as a folder's name."""
        summaries = summarized(frame, self._tables)
        observed = announced(self._layout)
        require_schemas(summaries, observed)
        changes = changes_of(frame, summaries)
        try:
            return {
                row["_table"]: self._one(changes[row["_table"]], row, observed, batch, transaction) for row in summaries
            }
        finally:
            self._client.close()

    def _one(
        self,
        changes: TableChanges,
        summary: Row,
        observed: Mapping[str, ObservedTypes],
        batch: str,
        transaction: Transaction,
    ) -> LoadCounts:
        table = self._tables[summary["_table"]]
        load = TableLoad(
            changes, table, observed.get(table.table, ObservedTypes()), self._contexts, self._client,
            Copies(self._config.iam_role),
            TableStatements(Registry(self._config.schema_name), table.table, self._names[table.table]),
            staging(self._config, f"{batch}/{escape(table.table)}"),
        )  # fmt: skip
        told = functools.partial(self._reject, table.table, transaction)
        return load.run(summary, told)

    def _reject(self, table: str, transaction: Transaction, cells: Sequence[Mapping[str, Any]]) -> None:
        """Keep what can never be loaded; once a batch, however often it runs."""
        now = dt.datetime.now(dt.UTC)
        rows = [
            {name: cell.get(name) for name in REJECTS.names}
            | {
                "stage": "warehouse", "message": f"{cell['what']} in the warehouse's {table}", "_table": table,
                "_ingest_time": now, "_ingest_date": now.date(),
            }
            for cell in cells
        ]  # fmt: skip
        path = self._layout.path("rejects")
        append_rows(path, pa.Table.from_pylist(rows, REJECTS), transaction(f"rejects:warehouse:{table}"))


def prepare(client: Client, registry: Registry) -> None:
    """Create schema and registry where they are missing; safe to call by several drivers at once."""
    for last in (False, False, True):
        found = client.run([registry.find()])
        if {name for _, name in found} >= REGISTERS:
            return
        try:
            client.run([*([] if found else [registry.create_schema()]), *registry.create()])
        except (ContendedError, ConfigurationError):
            if last:
                raise  # else somebody else may have created it meanwhile


def claimed(client: Client, registry: Registry, mine: Owner, instead_of: Owner | None = None) -> Owner:
    """Make a schema that is nobody's, or still another's, a pipeline's; whose it is then."""
    (held,) = client.run(registry.claim(mine, instead_of))
    return Owner(*map(str, held))


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
    seen: set[str] = field(default_factory=set)

    def run(self, summary: Row, reject: Callable[[Sequence[Mapping[str, Any]]], None]) -> LoadCounts:
        """Fold and write until no other load came between; then nothing is left on S3."""
        self.writer.clear()
        outcome = None
        for attempt in range(_ROUNDS):
            try:
                outcome = self._round(summary, reject)
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
        return LoadCounts(summary["changes"], outcome.live, outcome.gone, len(outcome.rejects))

    def _round(self, summary: Row, reject: Callable[[Sequence[Mapping[str, Any]]], None]) -> Outcome | None:
        """One try; None where records told a column that the table lacked."""
        shape, stored = self._shape()
        truncated = max(summary["truncated"] or "", stored)
        held = self._held(stored, truncated)
        outcome = self._folded(summary, shape, held, truncated)
        if outcome.unknown:
            self.seen |= outcome.unknown
            return None
        if outcome.rejects:
            reject(outcome.rejects)
        if outcome.rows or truncated != stored:
            rows, pieces = (self.writer.manifest(f) if f else None for f in (outcome.rows, outcome.pieces))
            now = dt.datetime.now(dt.UTC).isoformat(" ", "seconds")
            load = Load(self.copies, shape, stored, truncated, rows, pieces, outcome.layers, now)
            self.client.run(self.statements.write(load))
        return outcome

    def _shape(self) -> tuple[TableShape, str]:
        """Bring the table to the shape that the evidence asks for; also tells its newest TRUNCATE."""
        found = self.client.run([self.statements.known()])
        held = registered([row[:4] for row in found])
        wanted = evolved(held, self.table, self.observed, sorted(self.seen))
        if not found:
            self.client.run(self.statements.create(wanted))
        elif (name := unquote(str(found[0][5]))) != self.statements.name:
            raise ConfigurationError(
                f"warehouse: {self.table.table} stands in the warehouse as {name}, and is called {self.statements.name} now",
                condition="WAREHOUSE_NAME_CHANGED",
                hint=f"call it {name} again (warehouse.names), or give this pipeline a schema of its own",
            )
        for step in steps(held, wanted) if found else ():
            self.client.run(self.statements.alter(held, step))
            held = step
        return wanted, str(found[0][4] or "") if found else ""

    def _held(self, stored: str, truncated: str) -> dict[str, tuple[int, str]]:
        """Revision and state of the rows that the batch touches, and of those that took values along from them."""
        wanted = self.changes.keys()
        held: dict[str, tuple[int, str]] = {}
        lagging, asked = truncated > stored, set[str]()
        while wanted or lagging:
            manifest = self.writer.rows(pa.table({"_key": pa.array(sorted(wanted), pa.string())})) if wanted else None
            rows = self.client.run(self.statements.read(self.copies, manifest, truncated, lagging=lagging))
            held |= {str(key): (int(revision), str(state)) for key, revision, state in rows}
            asked |= wanted
            wanted = {to for _, state in held.values() for to in key_moves_of(state).values()} - asked - held.keys()
            lagging = False
        return held

    def _folded(self, summary: Row, shape: TableShape, held: Mapping[str, tuple[int, str]], truncated: str) -> Outcome:
        pairs = [(key, to) for key, (_, state) in held.items() for to in key_moves_of(state).values()]
        groups = grouped([*pairs, *((p["_key"], p["_related_key"]) for p in summary["pairs"])])
        types = types_of(self.table, {self.table.table: self.observed})
        settings = LoadSettings(self.table.table, self.contexts, types, shape, truncated, self.writer)
        return self.changes.staged(settings, held, groups)
