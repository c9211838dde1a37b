"""Histories into a lake and a warehouse: landing, rejects replayed, merges and loads, each in batches of its own."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from converge.compare import Failure, differences, equal
from converge.histories import ROUNDS, History, Recorded, batches
from converge.journal import Journal, survived
from converge.warehouse import is_same, loaded
from lake.history.current import fold_table
from lake.landing.batch import Landing, Transaction
from lake.landing.replay import Choice, by_source, land_again, open_rejects
from lake.layout import LakeLayout
from lake.tables.merge import TableMerger
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
"""Commits of a batch before which a process dies, and the end of the batch."""

type Work = Callable[[Transaction], object]


@dataclass
class Lake:
    """The lane of the lake: `changes`, the tables, and the warehouse where one is configured."""

    spark: SparkSession
    layout: LakeLayout
    tables: Sequence[TableConfig]
    recordings: Mapping[str, Recorded]
    warehouse: RedshiftConfig | None = None
    delivery: int = 0
    """Names the batches of a delivery: the same where a process goes on with it, and another for each that follows."""

    @property
    def contexts(self) -> dict[str, DecodeContext]:
        """Decode contexts by source."""
        return {name: recorded.recording.context for name, recorded in self.recordings.items()}

    def deliver(self, histories: Sequence[History], journal: Journal, on_done: Callable[[int], None]) -> None:
        """Land all batches; replay what was rejected; merge and load in other cuts, and all of it once more."""
        self.delivery = histories[0].space
        kills = {kill.round: kill.step for history in histories for kill in history.kills}
        for number in range(ROUNDS):
            if not journal.is_done(unit := f"{self.delivery}-landed-{number}"):
                self._land_round(number, histories, (kills[number] % _STEPS if number in kills else -1, journal))
                journal.done(unit)
        if not journal.is_done(unit := f"{self.delivery}-replayed"):
            self._replay(batches(self.recordings, histories, None), journal)
            journal.done(unit)
        r = random.Random(self.delivery)  # noqa: S311 - where the changes are cut
        changes = self._changes()
        for part, batch in enumerate([changes.filter(f"xxhash64(position, {r.randrange(99)}) % 2 = 0"), changes]):
            step = r.randrange(_STEPS) if kills else -1
            self._once(f"merge-{part}", (step, journal), self._merging(batch))
            if self.warehouse is not None:
                self._once(f"load-{part}", (step, journal), self._loading(batch, part))
        on_done(len(histories))

    def failures(self, histories: Sequence[History]) -> list[Failure]:
        """Compare the fold of `changes`, the tables and the warehouse with the model."""
        failures = []
        for table in self.tables:
            ours = [h for h in histories if self.recordings[h.recording].table(h) == table.table]
            ends = [(history, self.recordings[history.recording].end(history)) for history in ours]
            for lane, rows, same in self._contents(table):
                for history, end in ends:
                    own = {key: rows[key] for key in end.events if key in rows}
                    if wrong := tuple(differences(end, own, same)):
                        failures.append(Failure(history, lane, wrong))
        return failures

    # Deliveries.

    def _land_round(self, number: int, histories: Sequence[History], kill: tuple[int, Journal]) -> None:
        """Land what both readers have of a round; a process dies while one source is landed."""
        step, journal = kill
        for reader in (0, 1):
            ours = batches(self.recordings, histories, number, reader)
            for place, (source, records) in enumerate(sorted(ours.items())):
                dies = reader == 0 and place == (number + step) % len(ours)
                work = self._landing(source, self.contexts[source], records)
                self._once(f"{number}-{reader}-{source}", (step if dies else -1, journal), work)

    def _replay(self, late: Mapping[str, list[Record]], journal: Journal) -> None:
        """Land records while their tables are another source's, which rejects them, and replay the rejects."""
        for source, records in late.items():
            context = self.contexts[source]
            # A reject of a table whose columns must not travel keeps no bytes, so there is nothing to replay.
            wrong = context if context.ruled else replace(context, tables={}, others=frozenset(context.tables))
            self._once(f"reject-{source}", (-1, journal), self._landing(source, wrong, records))
        if not late:
            return
        owners = {name: source for source, context in self.contexts.items() for name in context.tables}
        for source, rejects in by_source(open_rejects(self.layout, Choice(stage="decode")), owners).items():
            for _ in range(2):
                land_again(self.layout, source, self.contexts[source], rejects)

    def _landing(self, source: str, context: DecodeContext, records: Sequence[Record]) -> Work:
        rows = frame(self.spark, records)
        return lambda transaction: Landing(self.layout, source, context).land(rows, transaction)

    def _merging(self, batch: DataFrame) -> Work:
        return lambda transaction: TableMerger(self.layout, self.tables, self.contexts).merge(batch, transaction)

    def _loading(self, batch: DataFrame, part: int) -> Work:
        def load(transaction: Transaction) -> object:
            assert self.warehouse is not None  # noqa: S101 - the caller looked
            loader = WarehouseLoader(self.layout, self.tables, self.contexts, self.warehouse, _OWNER)
            return loader.load(batch, f"converge-{self.delivery}/{part}", transaction)

        return load

    def _once(self, unit: str, kill: tuple[int, Journal], work: Work) -> None:
        """Do a batch, and again from its beginning after a death before one of its commits, or after the last."""
        step, journal = kill
        name = f"{self.delivery}-{unit}"
        if journal.is_done(name):
            return
        commits = iter(range(_STEPS))

        def at_commit(table: str) -> Mapping[str, str]:
            if next(commits, None) == step:
                journal.die(name)
            return {"txnAppId": f"{unit}:{table}", "txnVersion": str(self.delivery)}

        def plain(table: str) -> Mapping[str, str]:
            return {"txnAppId": f"{unit}:{table}", "txnVersion": str(self.delivery)}

        with survived() as outcome:
            work(at_commit)
            if step >= 0:  # also where the batch had fewer commits than that
                journal.die(name)
        if outcome.died:
            work(plain)
        journal.done(name)

    def _changes(self) -> DataFrame:
        return self.spark.read.format("delta").load(self.layout.path("changes"))

    # Contents.

    def _contents(self, table: TableConfig) -> Iterator[tuple[str, dict[str, dict[str, Any]], Any]]:
        live = fold_table(self.layout, table.table, self.contexts).live()
        yield "changes", {key: _shown(state) for key, state in live.items()}, equal
        shape = stored_shape(self.spark, self.layout.table(table.table)) or TableShape()
        kinds = shape.kinds
        yield "tables", self._merged(table, shape), lambda n, wanted, actual: _is(_typed(wanted, kinds.get(n)), actual)
        if self.warehouse is not None:
            columns, rows = loaded(self.warehouse, table.table, names_of(self.tables, self.warehouse)[table.table])
            of = columns.kinds
            yield "warehouse", rows, lambda n, wanted, actual: is_same(wanted, actual, of.get(n, "string"))

    def _merged(self, table: TableConfig, shape: TableShape) -> dict[str, dict[str, Any]]:
        if not shape.columns:
            return {}
        rows = self.spark.read.format("delta").load(self.layout.table(table.table)).toArrow().to_pylist()
        names = {column.name: column.source for column in shape.columns}
        return {
            row["_key"]: {names[n]: v for n, v in row.items() if n in names and names[n] not in (row["_pending"] or ())}
            for row in rows
            if row["_op"] != "d"
        }


def frame(spark: SparkSession, records: Sequence[Record]) -> DataFrame:
    """Records as a source reader yields them."""
    rows = [
        (*r[:5], list(r.headers), None if r.timestamp_ms is None else moment(r.timestamp_ms * 1000)) for r in records
    ]
    return spark.createDataFrame(rows, RECORD_COLUMNS)


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
