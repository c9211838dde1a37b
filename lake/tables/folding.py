"""Folding one table's new records into its stored rows, as a stage of a Spark job; the rules are `transforms.fold`'s.

Rows that key changes tie together are folded as one group. Stored rows come typed and go typed; what a column cannot
give back exactly stays in `_state`, so a row is never known less well for having been stored.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lake.history.current import changes_in
from lake.tables.observed_types import canonical
from lake.tables.shape import RESERVED_TYPES, TableShape
from lake.tables.typed import UnfitError, back, into, same
from schemas.changes import Change
from transforms.values import exact_json
from transforms.fold import EMPTY, Rows, RowState, apply, encode, in_order, join, restore, truncated_at
from transforms.values.times import moment

if TYPE_CHECKING:
    from transforms.context import DecodeContext

type Row = dict[str, Any]
type Stage = Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]

_BATCH_ROWS = 4096
_REJECT = pa.struct([("column", pa.string()), ("kind", pa.string()), ("sequence", pa.string())])


@dataclass(frozen=True)
class FoldSettings:
    """What the stage needs to know of the table; plain data, so it pickles."""

    table: str
    contexts: Mapping[str, DecodeContext]
    """By source."""
    held: TableShape
    """The columns stored rows have."""
    wanted: TableShape
    """The columns rows get."""
    types: Mapping[str, str]
    """Canonical types by source column, for values that came without a schema."""
    truncated: str = ""
    """The newest TRUNCATE of the table, by sequence."""
    everything: bool = False
    """Whether rows that did not change are wanted as well."""

    @cached_property
    def late(self) -> frozenset[str]:
        """Source columns that stored rows hold as text and that get another type: nobody had announced one."""
        wanted = self.wanted.kinds
        return frozenset(n for n, kind in self.held.kinds.items() if kind == "string" != wanted.get(n, kind))


def output_schema(shape: TableShape) -> pa.Schema:
    """Columns of the stage's answer: one row for each row of the table that changed."""
    told: list[tuple[str, pa.DataType]] = [
        ("_live", pa.bool_()),
        ("_held", pa.string()),
        ("_tombstone", pa.string()),
        ("_moves", pa.list_(pa.string())),
        ("_purge", pa.bool_()),
        ("_rejects", pa.list_(_REJECT)),
        ("_unknown", pa.list_(pa.string())),
        ("_row", shape.arrow()),
    ]
    return pa.schema([*RESERVED_TYPES.items(), *told])


def fold_stage(settings: FoldSettings) -> Stage:
    """A function for `mapInArrow` over rows sorted by `_group`: stored rows, tombstones and records in any order.

    Given again what it was given before, and what it answered as stored rows, it answers nothing.
    """
    schema = output_schema(settings.wanted)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = (row for batch in batches for row in batch.to_pylist())
        groups = itertools.groupby(rows, key=lambda row: row["_group"])
        answers = (answer for _, group in groups for answer in fold_group(group, settings))
        for some in itertools.batched(answers, _BATCH_ROWS):
            yield pa.RecordBatch.from_pylist(list(some), schema)

    return run


def fold_group(rows: Iterable[Row], settings: FoldSettings) -> Iterator[Row]:
    """Fold one group, and tell each row that is to be written."""
    stored: dict[str, RowState] = {}
    held: dict[str, str] = {}
    gone: dict[str, RowState] = {}
    ops: dict[str, tuple[str, str]] = {}
    changes: list[Change] = []
    for row in rows:
        if row["_from"] == "table":
            stored[row["_key"]] = _as_announced(restored(row, settings.held), settings)
            held[row["_key"]] = row["_held"]
            ops[row["_key"]] = (stored[row["_key"]].upserted, row["_op"])
        elif row["_from"] == "tombstone":
            gone[row["_key"]] = join(gone.get(row["_key"], EMPTY), restore(exact_json.loads(row["_state"])))
        else:
            told = typed_changes(row, settings.table, settings.contexts, settings.types)
            changes += (change for change in told if change.op != "t")
    for change in changes:
        if change.op != "d":
            ops[change.key] = max(ops.get(change.key, ("", "")), (change.sequence, change.op))
    known = {key: join(stored.get(key, EMPTY), gone.get(key, EMPTY)) for key in (*stored, *gone)}
    states = Rows(lambda key: truncated_at(known.get(key, EMPTY), settings.truncated))
    for key in known:
        states[key]
    for change in in_order(changes):
        apply(states, change)
    for key, state in states.items():
        final = truncated_at(state, settings.truncated)
        before = stored.get(key), held.get(key)
        yield from _answer(key, final, before, gone.get(key), ops.get(key, ("", "u"))[1], settings)


def typed_changes(
    row: Row, table: str, contexts: Mapping[str, DecodeContext], types: Mapping[str, str]
) -> Iterator[Change]:
    """What a row of `changes` tells of a table, values in canonical form as far as there is evidence of their types."""
    for change in changes_in(row, table, contexts):
        yield change if change.schema_id else _typed(change, types)


def _as_announced(state: RowState, settings: FoldSettings) -> RowState:
    """A stored row in canonical form where its columns were text for want of evidence, which came after them."""
    late = {n: settings.types[n] for n in settings.late if n in settings.types}
    told = {name: cell.value for name, cell in state.columns.items() if name in late and isinstance(cell.value, str)}
    if not told:
        return state
    values = canonical(told, late)
    return replace(state, columns={n: replace(c, value=values.get(n, c.value)) for n, c in state.columns.items()})


def _typed(change: Change, types: Mapping[str, str]) -> Change:
    """A change that came without its schema, with its values in canonical form as far as there is evidence."""
    return Change(
        change.table, change.op, change.sequence, change.key, canonical(change.columns, types), change.complete,
        change.unavailable, change.old_key, change.new_key, change.commit_time_us,
    )  # fmt: skip


def _answer(
    key: str,
    state: RowState,
    before: tuple[RowState | None, str | None],
    gone: RowState | None,
    op: str,
    settings: FoldSettings,
) -> Iterator[Row]:
    stored, held = before
    grave = _grave(state, settings.truncated)
    bury = grave is not None and (gone is None or join(gone, grave) != gone)
    purge = gone is not None and bool(gone.columns) and state.exists
    if state.exists and (stored != state or settings.everything or bury or purge):
        answer = live_row(key, state, stored, op, settings)
    elif bury or purge or (stored is not None and not state.exists):
        answer = {"_key": key, "_op": "d", "_sequence": state.sequence, "_commit_time": commit_time(state)}
    else:
        return
    yield answer | {
        "_live": state.exists,
        "_held": held,
        "_tombstone": exact_json.dumps(encode(grave)) if bury and grave else None,
        "_moves": sorted(set(state.key_moves.values())) if bury and state.key_moves else None,
        "_purge": purge,
    }


def _grave(state: RowState, truncated: str) -> RowState | None:
    """What must outlive the row (I4): its delete, and where its values went. A TRUNCATE is remembered once a table."""
    key_moves = {sequence: key for sequence, key in state.key_moves.items() if sequence > truncated}
    if not state.exists and (state.deleted > truncated or state.columns or key_moves):
        return RowState("", state.deleted, state.complete, state.columns, key_moves, state.commit_time_us)
    return RowState("", max(key_moves), "", {}, key_moves) if key_moves else None


def live_row(key: str, state: RowState, stored: RowState | None, op: str, settings: FoldSettings) -> Row:
    """A live row as the table keeps it."""
    kinds = settings.wanted.kinds
    names = {c.source: c.name for c in settings.wanted.columns}
    rejects: list[Row] = []
    row: Row = {}
    for source, value in state.values().items():
        if source not in kinds:
            continue
        try:
            row[names[source]] = into(value, kinds[source])
        except UnfitError:
            held = stored.columns.get(source) if stored else None
            cell = state.columns[source]
            if held != cell:
                rejects.append({"column": source, "kind": kinds[source], "sequence": cell.rank})
    return {
        "_key": key,
        "_op": op,
        "_sequence": state.sequence,
        "_commit_time": commit_time(state),
        "_pending": list(state.pending(list(kinds))) or None,
        "_state": exact_json.dumps(packed(state, row, settings.wanted)),
        "_rejects": rejects or None,
        "_unknown": sorted(state.columns.keys() - kinds.keys()) or None,
        "_row": row,
    }


def packed(state: RowState, row: Row, shape: TableShape) -> Row:
    """The state without what the typed columns give back: literals in `v`, names of told NULLs in `n`."""
    document = encode(state)
    told = document.pop("v", {})
    given = {c.source: back(row[c.name], c.kind) for c in shape.columns if row.get(c.name) is not None}
    literals = {n: v for n, v in told.items() if v is not None and not (n in given and same(given[n], v))}
    nulls = [name for name, value in told.items() if value is None]
    return document | {name: part for name, part in (("v", literals), ("n", nulls)) if part}


def restored(row: Row, shape: TableShape) -> RowState:
    """The state that a stored row stands for: `packed` inverted."""
    document = exact_json.loads(row["_state"])
    values = row["_row"] or {}
    given = {c.source: back(values[c.name], c.kind) for c in shape.columns if values.get(c.name) is not None}
    told = given | dict.fromkeys(document.pop("n", ())) | document.get("v", {})
    return restore(document | {"v": told})


def commit_time(state: RowState) -> dt.datetime | None:
    """When the newest change of a row was committed; None where that is not known, or no calendar has it."""
    if state.commit_time_us is None:
        return None
    try:
        return moment(state.commit_time_us)
    except OverflowError:
        return None
