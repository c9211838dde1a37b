"""Folding one table's new records into its stored rows, as a stage of a Spark job; the rules are `transforms.fold`'s.

Rows that key changes tie together are folded as one group. Stored rows come typed and go typed; what a column cannot
give back exactly stays in `_state`, so a row is never known less well for having been stored.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Any

import pyarrow as pa

from lake.history.current import changes_in
from lake.tables.drift import EVOLVE, DriftRules, unsent_defaults
from lake.tables.observed_types import ObservedTypes, canonical, types_of
from lake.tables.shape import RESERVED_TYPES, TableShape
from lake.tables.typed import UnfitError, back, into, same
from schemas.changes import Change
from schemas.tables import TableConfig
from transforms.context import DecodeContext
from transforms.fold import EMPTY, UNRESOLVED, Rows, RowState, apply, encode, in_order, join, restore, truncated_at
from transforms.values import exact_json
from transforms.values.times import moment

type Row = dict[str, Any]
type Stage = Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]

_BATCH_ROWS = 4096
_UNREAD = object()
"""The value of a column that a stored row may have and that was not read. The fold compares ranks and never values: where none is
left, the row is what it would be with all values read."""
_REJECT = pa.struct([("column", pa.string()), ("kind", pa.string()), ("sequence", pa.string())])


@dataclass(frozen=True)
class FoldSettings:
    """What the stage needs to know of the table; plain data, so it pickles."""

    table: str
    contexts: Mapping[str, DecodeContext]
    """By source."""
    current: TableShape
    """The columns stored rows have."""
    shape: TableShape
    """The columns rows get."""
    types: Mapping[str, str]
    """Canonical types by source column, for values that came without a schema."""
    truncated: str = ""
    """The newest TRUNCATE of the table, by sequence."""
    rules: DriftRules = EVOLVE
    """Which columns the table takes."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Names that columns of stored rows have now."""
    defaulted: Mapping[str, str] = field(default_factory=dict)
    """Columns that came later and are not NULL in the rows that were there: since which sequence."""

    @classmethod
    def of(
        cls,
        table: TableConfig,
        observed: ObservedTypes,
        contexts: Mapping[str, DecodeContext],
        current: TableShape,
        shape: TableShape,
        truncated: str = "",
    ) -> FoldSettings:
        """The settings of a table; between two shapes all its rows are written anew."""
        types, rules = types_of(table, observed), DriftRules.of(table, observed)
        defaulted = {name: since for name, since in observed.defaulted.items() if name in shape.kinds}
        return cls(table.table, contexts, current, shape, types, truncated, rules, table.renamed, defaulted)

    @cached_property
    def retyped(self) -> frozenset[str]:
        """Source columns that stored rows hold in another type."""
        kinds = self.current.kinds
        return frozenset(name for name, kind in self.shape.kinds.items() if kinds.get(name, kind) != kind)

    @cached_property
    def late(self) -> frozenset[str]:
        """Source columns that stored rows hold as text and that get another type: nobody had announced one."""
        kinds = self.shape.kinds
        return frozenset(n for n, kind in self.current.kinds.items() if kind == "string" != kinds.get(n, kind))


def output_schema(shape: TableShape) -> pa.Schema:
    """Columns that the stage yields: one row for each row of the table that changed."""
    columns: list[tuple[str, pa.DataType]] = [
        ("_live", pa.bool_()),
        ("_version", pa.string()),
        ("_tombstone", pa.string()),
        ("_moves", pa.list_(pa.string())),
        ("_purge", pa.bool_()),
        ("_rejects", pa.list_(_REJECT)),
        ("_unknown", pa.list_(pa.string())),
        ("_unread", pa.bool_()),
        ("_row", shape.arrow()),
    ]
    return pa.schema([*RESERVED_TYPES.items(), *columns])


def fold_stage(settings: FoldSettings, now: dt.datetime) -> Stage:
    """A function for `mapInArrow` over rows sorted by `_group`: stored rows, tombstones and records in any order.

    Over the same records and the rows that it yielded, stored by now, it yields nothing. `now` is when that is: as a value of
    the plan it would have Spark compile each batch's stages anew.
    """
    schema = output_schema(settings.shape)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = (row for batch in batches for row in batch.to_pylist())
        groups = itertools.groupby(rows, key=lambda row: row["_group"])
        folded = (row | {"_ingest_time": now} for _, group in groups for row in fold_group(group, settings))
        for batch_rows in itertools.batched(folded, _BATCH_ROWS):
            yield pa.RecordBatch.from_pylist(list(batch_rows), schema)

    return run


def fold_group(rows: Iterable[Row], settings: FoldSettings) -> Iterator[Row]:
    """Fold one group into the rows that are to be written.

    Of stored rows that are `_from` a `look` no values were read. Where these are needed, one row says so (`_unread`), with the
    group as its `_key`.
    """
    stored: dict[str, RowState] = {}
    versions: dict[str, str] = {}
    tombstones: dict[str, RowState] = {}
    ops: dict[str, tuple[str, str]] = {}
    changes: list[Change] = []
    group = ""
    for row in rows:
        key, group = row["_key"], row.get("_group", "")
        if row["_from"] in {"table", "look"}:
            stored[key], versions[key] = _as_stored(row, settings), row["_version"]
            ops[key] = (stored[key].upserted, row["_op"])
        elif row["_from"] == "tombstone":
            tombstone = under_new_names(restore(exact_json.loads(row["_state"])), settings.renamed)
            tombstones[key] = join(tombstones.get(key, EMPTY), tombstone)
        else:
            changes += row_changes(row, settings.table, settings.contexts, settings.types)
    for change in changes:
        if change.op != "d":
            ops[change.key] = max(ops.get(change.key, ("", "")), (change.sequence, change.op))
    looked = any(cell.value is _UNREAD for state in stored.values() for cell in state.columns.values())
    known = {key: join(stored.get(key, EMPTY), tombstones.get(key, EMPTY)) for key in (*stored, *tombstones)}
    states = fold_changes(known, changes, settings.truncated)
    if looked and _needs_values(states):
        yield {"_key": group, "_unread": True}
        return
    for key, state in states.items():
        final = truncated_at(state, settings.truncated)
        before = stored.get(key), versions.get(key)
        yield from _written(key, final, before, tombstones.get(key), ops.get(key, ("", "u"))[1], settings)


def _needs_values(states: Rows) -> bool:
    """Whether what a group of rows becomes depends on values that were not read; rows that key changes tie always do."""
    return len(states) > 1 or any(
        state.key_moves or any(cell.value is _UNREAD for cell in state.columns.values()) for state in states.values()
    )


def fold_changes(known: Mapping[str, RowState], changes: Iterable[Change], truncated: str) -> Rows:
    """Fold changes of rows into what is known of a group's rows; `truncated` is the sequence of the newest TRUNCATE."""
    rows = Rows(lambda key: truncated_at(known.get(key, EMPTY), truncated))
    for key in known:
        rows[key]
    for change in in_order(changes):
        apply(rows, change)
    return rows


def row_changes(
    row: Row, table: str, contexts: Mapping[str, DecodeContext], types: Mapping[str, str]
) -> Iterator[Change]:
    """Changes of rows in a record of `changes`, values in canonical form as far as their types are known."""
    for change in changes_in(row, table, contexts):
        if change.op != "t":
            yield change if change.schema_id else _typed(change, types)


def _as_stored(row: Row, settings: FoldSettings) -> RowState:
    return _as_announced(under_new_names(restored(row, settings.current), settings.renamed), settings)


def under_new_names(state: RowState, names: Mapping[str, str]) -> RowState:
    """A state whose columns were stored before they were configured as renamed; of two of one name the newer one stays."""
    old = {name: cell for name, cell in state.columns.items() if name in names}
    if not old:
        return state
    kept = replace(state, columns={name: cell for name, cell in state.columns.items() if name not in names})
    return reduce(lambda one, name: join(one, replace(kept, columns={names[name]: old[name]})), old, kept)


def _as_announced(state: RowState, settings: FoldSettings) -> RowState:
    """A stored row in canonical form where its columns were text because their types were announced after them."""
    late = {n: settings.types[n] for n in settings.late if n in settings.types}
    texts = {name: cell.value for name, cell in state.columns.items() if name in late and isinstance(cell.value, str)}
    if not texts:
        return state
    values = canonical(texts, late)
    return replace(state, columns={n: replace(c, value=values.get(n, c.value)) for n, c in state.columns.items()})


def _typed(change: Change, types: Mapping[str, str]) -> Change:
    """A change that came without its schema, with its values in canonical form as far as their types are known."""
    return Change(
        change.table, change.op, change.sequence, change.key, canonical(change.columns, types), change.complete,
        change.unavailable, change.old_key, change.new_key, change.commit_time_us,
    )  # fmt: skip


def _written(
    key: str,
    state: RowState,
    before: tuple[RowState | None, str | None],
    known_tombstone: RowState | None,
    op: str,
    settings: FoldSettings,
) -> Iterator[Row]:
    """What is to be written of a row; `before` is its stored state and version."""
    stored, version = before
    tombstone = _tombstone(state, settings.truncated)
    is_new = tombstone is not None and (known_tombstone is None or join(known_tombstone, tombstone) != known_tombstone)
    purge = known_tombstone is not None and bool(known_tombstone.columns) and state.exists
    if state.exists and (stored != state or settings.current != settings.shape or is_new or purge):
        row = live_row(key, state, stored, op, settings)
    elif is_new or purge or (stored is not None and not state.exists):
        row = {"_key": key, "_op": "d", "_sequence": state.sequence, "_commit_time": commit_time(state)}
    else:
        return
    yield row | {
        "_live": state.exists,
        "_version": version,
        "_tombstone": exact_json.dumps(encode(tombstone)) if is_new and tombstone else None,
        "_moves": sorted(set(state.key_moves.values())) if is_new and state.key_moves else None,
        "_purge": purge,
        "_unread": False,
    }


def _tombstone(state: RowState, truncated: str) -> RowState | None:
    """What must outlive the row (I4): its delete, and where its values went. A TRUNCATE is remembered once a table."""
    key_moves = {sequence: key for sequence, key in state.key_moves.items() if sequence > truncated}
    if not state.exists and (state.deleted > truncated or state.columns or key_moves):
        return RowState("", state.deleted, state.complete, state.columns, key_moves, state.commit_time_us)
    return RowState("", max(key_moves), "", {}, key_moves) if key_moves else None


def live_row(key: str, state: RowState, stored: RowState | None, op: str, settings: FoldSettings) -> Row:
    """A live row as the table keeps it."""
    kinds = settings.shape.kinds
    names = {c.source: c.name for c in settings.shape.columns}
    rejects: list[Row] = []
    row: Row = {}
    for source, value in state.values().items():
        if source not in kinds:
            continue
        try:
            row[names[source]] = into(value, kinds[source])
        except UnfitError:
            cell = state.columns[source]
            if stored is None or stored.columns.get(source) != cell or source in settings.retyped:
                rejects.append({"column": source, "kind": kinds[source], "sequence": cell.rank})
    unknown = state.columns.keys() - kinds.keys()
    rejects += [
        {"column": name, "kind": None, "sequence": state.columns[name].rank}
        for name in sorted(unknown)
        if settings.rules.rejects(name) and _is_new(name, state, stored)
    ]
    return {
        "_key": key,
        "_op": op,
        "_sequence": state.sequence,
        "_commit_time": commit_time(state),
        "_pending": sorted({*state.unresolved(list(kinds)), *unsent_defaults(state, settings.defaulted)}) or None,
        "_state": exact_json.dumps(packed(state, row, settings.shape)),
        "_rejects": rejects or None,
        "_unknown": sorted(filter(settings.rules.concerns_shape, unknown)) or None,
        "_row": row,
    }


def _is_new(name: str, state: RowState, stored: RowState | None) -> bool:
    """Whether a column has a value that the stored row did not have."""
    cell = state.columns[name]
    has_value = cell.value is not None and cell.value is not UNRESOLVED
    return has_value and (stored is None or stored.columns.get(name) != cell)


def packed(state: RowState, row: Row, shape: TableShape) -> Row:
    """The state without what the typed columns give back: other values in `v`, names of columns that are NULL in `n`."""
    document = encode(state)
    values, from_row = document.pop("v", {}), _from_row(row, shape)
    literals = {n: v for n, v in values.items() if v is not None and not (n in from_row and same(from_row[n], v))}
    nulls = [name for name, value in values.items() if value is None]
    return document | {name: part for name, part in (("v", literals), ("n", nulls)) if part}


def restored(row: Row, shape: TableShape) -> RowState:
    """The state of a stored row: `packed` inverted."""
    document = exact_json.loads(row["_state"])
    nulls = dict.fromkeys(document.pop("n", ()))
    looked = row.get("_from") == "look"
    values = dict.fromkeys(shape.kinds, _UNREAD) if looked else _from_row(row["_row"] or {}, shape)
    return restore(document | {"v": values | nulls | document.get("v", {})})


def _from_row(row: Row, shape: TableShape) -> Row:
    """The values that the typed columns give back, by source column, in canonical form."""
    return {c.source: back(row[c.name], c.kind) for c in shape.columns if row.get(c.name) is not None}


def commit_time(state: RowState) -> dt.datetime | None:
    """When the newest change of a row was committed; None where that is not known, or no calendar has it."""
    if state.commit_time_us is None:
        return None
    try:
        return moment(state.commit_time_us)
    except OverflowError:
        return None
