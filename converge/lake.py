"""Histories into a lake and a warehouse: landing, rejects replayed, merges and loads, each in batches of its own."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from converge.compare import Failure, differences, equal
from converge.histories import ROUNDS, History, Recorded, batches, delivered_alike
from converge.journal import Journal, survived
from converge.scratch import schema_of
from converge.warehouse import is_same, loaded
from lake.history.current import fold_table
from lake.landing.batch import Landing, Transaction
from lake.landing.replay import Choice, by_source, land_again, open_rejects
from lake.layout import RAW_COLUMNS, LakeLayout
from lake.table_schemas import CHANGES
from lake.tables.merge import TableMerger
from lake.tables.observed_types import ObservedTypes, announced, canonical, types_of
from lake.tables.shape import TableShape, stored_shape
from lake.tables.typed import UnfitError, into
from schemas.ownership import Owner
from schemas.records import RECORD_COLUMNS
from transforms.fold import RowState
from transforms.values.times import moment
from warehouse.config import RedshiftConfig
from warehouse.loader import WarehouseLoader
from warehouse.shape import names_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from schemas.records import Record
    from schemas.tables import TableConfig
    from transforms.context import DecodeContext

_OWNER = Owner("converge", "converge")
_STEPS = 5
"""Commits of a batch that lands before which a process dies, and the end of the batch."""
_TABLE_STEPS = 12
"""The same of a batch that is merged or loaded: each of its tables has one or more."""
_RECORDS = pa.schema([CHANGES.field(name) for name in RAW_COLUMNS])
"""RECORD_COLUMNS, as Arrow has them."""

type OnStep = Callable[[str], None]
type Work = Callable[[Transaction, OnStep], object]


@dataclass(frozen=True)
class Lake:
    """The lane of the lake: `changes`, the tables, and the warehouse where one is configured.

    Histories that are delivered together have a lake and a schema of their own: what stands there of others would be merged
    and read again with them.
    """

    spark: SparkSession
    folder: str
    tables: Sequence[TableConfig]
    recordings: Mapping[str, Recorded]
    warehouse: RedshiftConfig | None = None

    def deliver(self, histories: Sequence[History], journal: Journal, on_done: Callable[[int], None]) -> None:
        """Land all batches; replay what was rejected; merge and load in other cuts, and all of it once more."""
        for together in delivered_alike(histories):
            _Together(self, together, journal).deliver()
            on_done(len(together))

    def failures(self, histories: Sequence[History]) -> list[Failure]:
        """Compare the fold of `changes`, the tables and the warehouse with the model."""
        return [
            failure
            for together in delivered_alike(histories)
            for failure in _Together(self, together, Journal()).failures()
        ]


@dataclass(frozen=True)
class _Together:
    """Histories that are delivered together."""

    lane: Lake
    histories: Sequence[History]
    journal: Journal

    @property
    def number(self) -> int:
        """Names the delivery: the same where a process goes on with it."""
        return self.histories[0].space

    @property
    def layout(self) -> LakeLayout:
        return LakeLayout(f"{self.lane.folder}/{self.number}")

    @property
    def warehouse(self) -> RedshiftConfig | None:
        return schema_of(self.lane.warehouse, self.number) if self.lane.warehouse else None

    @cached_property
    def tables(self) -> list[TableConfig]:
        """Those of which there is a history."""
        names = {self.lane.recordings[h.recording].table(h) for h in self.histories}
        return [table for table in self.lane.tables if table.table in names]

    @cached_property
    def contexts(self) -> dict[str, DecodeContext]:
        """Decode contexts by source."""
        return {name: recorded.recording.context for name, recorded in self.lane.recordings.items()}

    # Deliveries.

    def deliver(self) -> None:
        kills = {kill.round: kill.step for kill in self.histories[0].kills}
        for number in range(ROUNDS):
            if not self.journal.is_done(unit := f"{self.number}-landed-{number}"):
                self._land_round(number, kills.get(number, -1))
                self.journal.done(unit)
        if not self.journal.is_done(unit := f"{self.number}-replayed"):
            self._replay(batches(self.lane.recordings, self.histories, None))
            self.journal.done(unit)
        r = random.Random(self.number)  # noqa: S311 - where the changes are cut
        dying, step = r.choice(["merge-0", "load-0", "merge-1", "load-1"]) if kills else "", r.randrange(_TABLE_STEPS)
        changes = self.lane.spark.read.format("delta").load(self.layout.path("changes"))
        for part, batch in enumerate([changes.filter(f"xxhash64(position, {r.randrange(99)}) % 2 = 0"), changes]):
            for unit, work in (f"merge-{part}", self._merging(batch)), (f"load-{part}", self._loading(batch, part)):
                self._once(unit, step if unit == dying else -1, work)

    def _land_round(self, number: int, step: int) -> None:
        """Land what both readers have of a round; a process dies while one source is landed."""
        by_source: dict[str, list[Record]] = {}
        for reader in (0, 1):
            for source, records in batches(self.lane.recordings, self.histories, number, reader).items():
                by_source.setdefault(source, []).extend(records)
        for place, (source, records) in enumerate(sorted(by_source.items())):
            dies = step >= 0 and place == (number + step) % len(by_source)
            work = self._landing(source, self.contexts[source], records)
            self._once(f"land-{number}-{source}", step % _STEPS if dies else -1, work)

    def _replay(self, late: Mapping[str, list[Record]]) -> None:
        """Land records while their tables are another source's, which rejects them, and replay the rejects."""
        for source, records in late.items():
            context = self.contexts[source]
            # A reject of a table whose columns must not travel keeps no bytes, so there is nothing to replay.
            wrong = context if context.ruled else replace(context, tables={}, others=frozenset(context.tables))
            self._once(f"reject-{source}", -1, self._landing(source, wrong, records))
        if not late:
            return
        owners = {name: source for source, context in self.contexts.items() for name in context.tables}
        for source, rejects in by_source(open_rejects(self.layout, Choice(stage="decode")), owners).items():
            for _ in range(2):
                land_again(self.layout, source, self.contexts[source], rejects)

    def _landing(self, source: str, context: DecodeContext, records: Sequence[Record]) -> Work:
        rows = frame(self.lane.spark, records)
        return lambda transaction, _: Landing(self.layout, source, context).land(rows, transaction)

    def _merging(self, batch: DataFrame) -> Work:
        def merge(transaction: Transaction, on_step: OnStep) -> object:
            return TableMerger(self.layout, self.tables, self.contexts, on_step).merge(batch, transaction)

        return merge

    def _loading(self, batch: DataFrame, part: int) -> Work:
        def load(transaction: Transaction, _: OnStep) -> object:
            if self.warehouse is None:
                return None
            loader = WarehouseLoader(self.layout, self.tables, self.contexts, self.warehouse, _OWNER)
            return loader.load(batch, f"converge/{part}", transaction)

        return load

    def _once(self, unit: str, step: int, work: Work) -> None:
        """Do a batch, and again from its beginning after a death before one of its commits, or after the last."""
        if self.journal.is_done(name := f"{self.number}-{unit}"):
            return
        steps = itertools.count()

        def on_step(_: str) -> None:
            if next(steps) == step:
                self.journal.die(name)

        def named(table: str) -> Mapping[str, str]:
            return {"txnAppId": f"{unit}:{table}", "txnVersion": "1"}

        def at_commit(table: str) -> Mapping[str, str]:
            on_step(table)
            return named(table)

        with survived() as outcome:
            work(at_commit, on_step)
            if step >= 0:  # also where the batch had fewer commits than that
                self.journal.die(name)
        if outcome.died:
            work(named, lambda _: None)
        self.journal.done(name)

    # Contents.

    def failures(self) -> Iterator[Failure]:
        observed = announced(self.layout, self.tables)
        for table in self.tables:
            ours = [h for h in self.histories if self.lane.recordings[h.recording].table(h) == table.table]
            ends = [(history, self.lane.recordings[history.recording].end(history)) for history in ours]
            types = types_of(table, observed.get(table.table, ObservedTypes()))
            for name, rows, same in self._contents(table, types):
                for history, end in ends:
                    own = {key: rows[key] for key in end.events if key in rows}
                    if wrong := tuple(differences(end, own, same)):
                        yield Failure(history, name, wrong)

    def _contents(
        self, table: TableConfig, types: Mapping[str, str]
    ) -> Iterator[tuple[str, dict[str, dict[str, Any]], Any]]:
        live = fold_table(self.layout, table.table, self.contexts).live()
        yield "changes", {key: _shown(state) for key, state in live.items()}, equal
        shape = stored_shape(self.lane.spark, self.layout.table(table.table)) or TableShape()
        kinds = shape.kinds

        def as_announced(name: str, value: Any) -> Any:  # of records that came without their schema
            return canonical({name: value}, types)[name]

        yield (
            "tables",
            self._merged(table, shape),
            lambda n, wanted, actual: _is(_typed(as_announced(n, wanted), kinds.get(n)), actual),
        )
        if self.warehouse is not None:
            columns, rows = loaded(self.warehouse, table.table, names_of(self.tables, self.warehouse)[table.table])
            of = columns.kinds
            yield (
                "warehouse",
                rows,
                lambda n, wanted, actual: is_same(as_announced(n, wanted), actual, of.get(n, "string")),
            )

    def _merged(self, table: TableConfig, shape: TableShape) -> dict[str, dict[str, Any]]:
        if not shape.columns:
            return {}
        path = self.layout.table(table.table)
        rows = self.lane.spark.read.format("delta").load(path).toArrow().to_pylist()
        names = {column.name: column.source for column in shape.columns}
        return {
            row["_key"]: {names[n]: v for n, v in row.items() if n in names and names[n] not in (row["_pending"] or ())}
            for row in rows
            if row["_op"] != "d"
        }


def frame(spark: SparkSession, records: Sequence[Record]) -> DataFrame:
    """Records as a source reader yields them."""
    times = [None if r.timestamp_ms is None else moment(r.timestamp_ms * 1000) for r in records]
    headers = [[{"key": name, "value": value} for name, value in r.headers] for r in records]
    columns = [*zip(*(r[:5] for r in records), strict=True), headers, times]
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, _RECORDS, strict=True)], schema=_RECORDS)
    return spark.createDataFrame(table, RECORD_COLUMNS)


def _shown(state: RowState) -> dict[str, Any]:
    values = state.values()
    unresolved = set(state.unresolved(list(values)))
    return {name: value for name, value in values.items() if name not in unresolved}


def _typed(value: Any, kind: str | None) -> Any:
    """A canonical value as its column shows it; NULL where it does not fit, and has a reject."""
    with contextlib.suppress(UnfitError):
        return into(value, kind or "string")
    return None


def _is(one: Any, other: Any) -> bool:
    """Equality in which not-a-number is itself."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is, one, other))
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124 - NaN alone differs from itself
