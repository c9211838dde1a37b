"""What records would do in the lake, the warehouse and each store, and why; nothing is written.

Every step is asked of the code that the jobs run: landing's decoding, the folds of merge and load, the planner, the stores'
own reads. A part that does not answer is planned as if it held nothing of the row, and the step says so. Records of one
file are explained in their order, each after those before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embeddings import open_embedder
from glue_jobs.config.pipeline import PipelineConfig, decode_contexts
from glue_jobs.operations.explain_store import StoreSteps
from glue_jobs.operations.explained import Step, changed_columns, rank
from lake.history.current import changes_in
from lake.landing.replay import decoded_rows, landed_before, rows_of_keys
from lake.layout import RAW_COLUMNS, LakeLayout
from lake.storage import rows_of
from lake.tables import folding, shape
from lake.tables.observed_types import ObservedTypes, announced
from schemas.changes import Change, Changes
from schemas.errors import PipelineError
from schemas.records import Record
from transforms.envelopes.decode import coordinates, decode
from transforms.fold import RowState, keys_of, truncated_at

if TYPE_CHECKING:
    from schemas.tables import TableConfig

type Row = dict[str, Any]


@dataclass(frozen=True)
class Explained:
    """A record's coordinates and its steps."""

    stream: str
    partition: str
    position: str
    steps: Sequence[Step]


@dataclass
class Explainer:
    """Explains records of one source, in their order."""

    config: PipelineConfig
    source: str
    _earlier: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    """Rows that `changes` would have got of the records before, by table."""
    _changes: dict[str, list[Change]] = field(default_factory=lambda: defaultdict(list))
    """Changes so far, by table."""

    def __post_init__(self) -> None:
        """Open nothing yet."""
        self._layout = LakeLayout(self.config.lake.path)
        self._contexts = decode_contexts(self.config)
        self._context = self._contexts[self.source]
        embedder = open_embedder(self.config.embedding) if self.config.embedding and self.config.sinks else None
        self._warehouse = None
        if self.config.warehouse is not None:
            from glue_jobs.operations.explain_warehouse import WarehouseSteps

            self._warehouse = WarehouseSteps(self.config.warehouse, self.config.tables, self._contexts)
        self._stores = [StoreSteps(sink, embedder, self.config.lake.path) for sink in self.config.sinks if embedder]

    def explain(self, record: Record) -> Explained:
        """The steps of one record."""
        meaning = decode(record, self._context)
        landing, row = self._landing(record)
        steps = [self._decoding(record, meaning), landing]
        if isinstance(meaning, Changes) and row is not None:
            table = meaning.changes[-1].table
            steps += self._after(self.config.table(table), meaning.changes, row)
        return Explained(record.stream, record.partition, record.position, steps)

    def _decoding(self, record: Record, meaning: object) -> Step:
        envelope = self._context.envelope
        if not isinstance(meaning, Changes):
            condition = getattr(meaning, "condition", "")
            why = getattr(meaning, "message", "") or getattr(meaning, "reason", "")
            return Step("decode", f"reject {condition}" if condition else "ignored", (why,), {"envelope": envelope})
        change = meaning.changes[-1]
        short = record.value is not None and coordinates(record.value, record.stream, record.position, self._context)
        why = [*rank(change), "landing reads it without its columns" if short else "landing decodes it whole"]
        if change.unavailable:
            why.append(f"no value came of {', '.join(change.unavailable)}: they keep their older ones")
        if not change.complete and change.op not in {"d", "t"}:
            why.append("it is not the whole row: a column that is absent keeps its older value")
        why += [f"{reject.condition}: {reject.message}" for reject in meaning.unfit]
        rules = self._context.tables[change.table].rules
        why += [f"column {name}: {rule}, by its rule" for name, rule in rules.items()]
        detail = {
            "envelope": envelope, "table": change.table, "operation": change.op, "key": change.key,
            "old_key": change.old_key or next((c.key for c in meaning.changes if c.new_key), None),
            "sequence": change.sequence, "columns": dict(change.columns),
        }  # fmt: skip
        return Step("decode", f"a change of {change.table}", tuple(why), detail)

    def _landing(self, record: Record) -> tuple[Step, Row | None]:
        """What landing would do, and the row of `changes` that it would write."""
        batch, (raw,), (meaning,) = decoded_rows([_raw(record)], self._context)
        kept = "the decoded columns alone, since `columns` has rules" if batch.kept else "the bytes that came"
        if meaning["condition"]:
            kept = "no bytes, since its table has or may have rules in `columns`" if batch.kept else kept
            return Step("landing", f"a row of `rejects`: {meaning['condition']}", (f"it keeps {kept}",)), None
        if not meaning["_op"]:
            ((*_, reason),) = batch.tally.ignored
            return Step("landing", "counted as ignored", (reason,)), None
        row = raw | meaning | {"_source": self.source}
        why = [f"it keeps {kept}"]
        try:
            if landed_before(self._layout, [row]):
                why.append("its coordinates stand in `changes` already")
        except PipelineError as error:
            why.append(f"not known whether it stands there already: {error.message}")
        return Step("landing", "a row of `changes`", tuple(why)), row

    def _after(self, table: TableConfig, changes: Sequence[Change], row: Row) -> Iterator[Step]:
        """The steps after landing."""
        self._changes[table.table] += changes
        if changes[-1].op == "t":
            yield Step("fold", "every row that is not newer is gone", ("a TRUNCATE hides rows up to its sequence",))
            return
        keys = keys_of(changes)
        note: tuple[str, ...] = ()
        try:
            landed, truncated = rows_of_keys(self._layout, table.table, keys), self._truncated(table.table)
        except PipelineError as error:
            landed, truncated, note = [], "", (f"the lake cannot be read: {error.message}",)
        earlier = [one for one in self._earlier[table.table] if one["_key"] in keys]
        truncated = max([truncated, *(c.sequence for c in self._changes[table.table] if c.op == "t")])
        self._earlier[table.table].append(row)
        yield from self._folds(table, (landed, earlier, row), truncated, note)
        spec = self.config.document_specs.get(table.table)
        if spec is None:
            yield Step("stores", "nothing", ("the table has no `document`",))
            return
        for store in self._stores:
            yield store.step(spec, self._changes[table.table], changes)

    def _truncated(self, table: str) -> str:
        import pyarrow.dataset as ds

        rows = rows_of(
            self._layout.path("changes"), ["_sequence"], (ds.field("_table") == table) & (ds.field("_op") == "t")
        )
        return max((row["_sequence"] for row in rows), default="")

    def _folds(
        self, table: TableConfig, records: tuple[list[Row], list[Row], Row], truncated: str, note: tuple[str, ...]
    ) -> Iterator[Step]:
        """The row as the fold of all its changes, and what merge and load make of it."""
        landed, earlier, row = records
        before = [*landed, *earlier]
        states = [self._states(table.table, rows, truncated) for rows in (before, [*before, row])]
        for key in sorted({*states[1]}):
            old, new = (truncated_at(state.get(key, RowState()), truncated) for state in states)
            outcome, why, detail = changed_columns(old, new)
            yield Step("fold", outcome, (*why, *note), {"key": key, **detail})
            if old != new:
                yield self._merge(table, [*before, row], key, truncated)
            if self._warehouse is not None:
                observed, columns = self._observed(table), self._columns(table, [*before, row])
                yield self._warehouse.step(table, observed, columns, records, key, truncated)

    def _states(self, table: str, rows: Sequence[Row], truncated: str) -> Mapping[str, RowState]:
        changes = [change for row in rows for change in changes_in(row, table, self._contexts) if change.op != "t"]
        return dict(folding.fold_changes({}, changes, truncated).items())

    def _merge(self, table: TableConfig, rows: Sequence[Row], key: str, truncated: str) -> Step:
        observed = self._observed(table)
        target = shape.evolved(shape.TableShape(), table, observed, [*table.keys, *self._columns(table, rows)])
        settings = folding.FoldSettings.of(table, observed, self._contexts, target, target, truncated)
        records = [row | {"_from": "change"} for row in rows]
        written = next((row for row in folding.fold_group(records, settings) if row["_key"] == key), None)
        if written is None or not written["_live"]:
            return Step("merge", "no row in the table; a tombstone where something older may come", (), {"key": key})
        rejects = written["_rejects"] or []
        why = tuple(
            f"{cell['column']} does not fit {cell['kind']}: NULL, and a reject CAST_FAILED"
            if cell["kind"]
            else f"{cell['column']} is a new column: a reject, by `drift`"
            for cell in rejects
        )
        return Step(
            "merge", "the row is written", why, {"key": key, "row": written["_row"], "pending": written["_pending"]}
        )

    def _columns(self, table: TableConfig, rows: Sequence[Row]) -> list[str]:
        """The columns of all changes in rows of `changes`."""
        changes = (change for row in rows for change in changes_in(row, table.table, self._contexts))
        return sorted({name for change in changes for name in change.columns})

    def _observed(self, table: TableConfig) -> ObservedTypes:
        try:
            return announced(self._layout, [table]).get(table.table, ObservedTypes())
        except PipelineError:
            return ObservedTypes()

    def close(self) -> None:
        """Close the stores and the warehouse."""
        for store in self._stores:
            store.close()
        if self._warehouse is not None:
            self._warehouse.close()


def explain(config: PipelineConfig, source: str, records: Sequence[Record]) -> list[Explained]:
    """Explain records in their order."""
    with closing(Explainer(config, source)) as explainer:
        return [explainer.explain(record) for record in records]


def _raw(record: Record) -> Row:
    headers = [{"key": name, "value": value} for name, value in record.headers] or None
    return dict(zip(RAW_COLUMNS, (*record[:5], headers, None), strict=True))
