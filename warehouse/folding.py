"""Folding a batch's records into the rows of a warehouse table, as a stage of a Spark job; the rules are `transforms.fold`'s.

A worker stages what is to be written as Parquet files and returns their names. Over the same records and the rows as they
were written by then, it stages nothing.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from lake.tables.drift import EVOLVE, DriftRules, unsent_defaults
from lake.tables.folding import commit_time, fold_changes, row_changes
from lake.tables.observed_types import ObservedTypes, types_of
from lake.tables.shape import TableShape
from lake.tables.typed import UnfitError
from schemas.changes import Change
from schemas.tables import TableConfig
from transforms.context import DecodeContext
from transforms.fold import EMPTY, UNRESOLVED, RowState, truncated_at
from warehouse.kinds import fitted, staged_arrow
from warehouse.staging import ParquetFiles, StagedFile, StagingWriter
from warehouse.states import REFUSED, STATE_BYTES, StoredValue, oldest, packed, restored, without_refused

type Row = dict[str, Any]

OUTCOME_DDL = "outcome binary"
KEY_BYTES = 4096
"""`_key`'s most bytes: what PostgreSQL and MySQL allow for a primary key, as JSON."""

_TEXT: pa.DataType = pa.string()
_WHOLE: pa.DataType = pa.int64()
_FLAG: pa.DataType = pa.bool_()
_TIME: pa.DataType = pa.timestamp("us")
_BYTES: pa.DataType = pa.binary()

STORED = pa.schema([("_key", _TEXT), ("_revision", _WHOLE), ("_state", _TEXT)])
"""What a load reads of a row."""
STAGED = pa.schema(
    [
        ("_key", _TEXT), ("_base_revision", _WHOLE), ("_live", _FLAG), ("_sequence", _TEXT), ("_oldest", _TEXT),
        ("_commit_time", _TIME), ("_pending", _BYTES), ("_state", _TEXT),
    ]
)  # fmt: skip
"""What a staged row has before its values; `_base_revision` is the one it was folded from, 0 for none."""
PIECES = pa.schema([("_key", _TEXT), ("_layer", _WHOLE), ("_from", _TEXT), ("_revision", _WHOLE), ("_mask", _TEXT)])
"""Values that are copied inside the warehouse: into row `_key` from row `_from`, the places where `_mask` has a 1.

Layer -1 copies nothing: the row was read and is not written, and must be what it was.
"""


@dataclass(frozen=True)
class LoadSettings:
    """What the stage needs to know of the table; plain data, so it pickles."""

    table: str
    contexts: Mapping[str, DecodeContext]
    """By source."""
    types: Mapping[str, str]
    """Canonical types by source column, for values that came without a schema."""
    shape: TableShape
    truncated: str
    """The newest TRUNCATE of the table, by sequence."""
    writer: StagingWriter
    rules: DriftRules = EVOLVE
    defaulted: Mapping[str, str] = field(default_factory=dict)
    """Columns that came later and are not NULL in the rows that were there: since which sequence."""
    again: bool = False
    """Whether values that a column refused are asked for again: its type is wider now."""

    @classmethod
    def of(
        cls,
        table: TableConfig,
        observed: ObservedTypes,
        contexts: Mapping[str, DecodeContext],
        shape: TableShape,
        truncated: str,
        writer: StagingWriter,
    ) -> LoadSettings:
        """The settings of a table."""
        types, rules = types_of(table, observed), DriftRules.of(table, observed)
        defaulted = {name: since for name, since in observed.defaulted.items() if rules.takes(name)}
        return cls(table.table, contexts, types, shape, truncated, writer, rules, defaulted)


@dataclass
class Outcome:
    """What one task, or all of a stage, staged."""

    rows: list[StagedFile] = field(default_factory=list)
    pieces: list[StagedFile] = field(default_factory=list)
    layers: int = 0
    live: int = 0
    deleted: int = 0
    rejects: list[Row] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    """Columns that the shape lacks."""

    def add(self, other: Outcome) -> None:
        """Add what another task did."""
        self.rows += other.rows
        self.pieces += other.pieces
        self.layers = max(self.layers, other.layers)
        self.live += other.live
        self.deleted += other.deleted
        self.rejects += other.rejects
        self.unknown |= other.unknown


def staged_schema(shape: TableShape) -> pa.Schema:
    """Columns of a staged file of rows, in the order in which COPY takes them."""
    values = [(f"c{place}", staged_arrow(column.kind)) for place, column in enumerate(shape.columns)]
    return pa.schema([*STAGED, *values])


@dataclass(frozen=True)
class LoadPartition:
    """The stage: from rows sorted by `_group`, records and stored states in any order, to staged files."""

    settings: LoadSettings

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield one row: the pickled Outcome."""
        rows = (row for batch in batches for row in batch.to_pylist())
        outcome = self.staged(rows)
        yield pa.RecordBatch.from_arrays([pa.array([pickle.dumps(outcome)], pa.binary())], ["outcome"])

    def staged(self, rows: Iterable[Row]) -> Outcome:
        """Fold groups and stage what changed."""
        outcome = Outcome()
        shape, writer = self.settings.shape, self.settings.writer
        with ParquetFiles(writer, staged_schema(shape)) as staged, ParquetFiles(writer, PIECES) as pieces:
            for _, group in itertools.groupby(rows, key=lambda row: row["_group"]):
                for folded in fold_group(group, self.settings):
                    _count(folded, outcome)
                    if folded.row is not None:
                        staged.add(folded.row)
                        for piece in folded.pieces:
                            pieces.add(piece)
        outcome.rows, outcome.pieces = staged.files, pieces.files
        return outcome


@dataclass(frozen=True)
class Folded:
    """One row that is to be written, or (without `row`) that can never be."""

    row: Row | None
    pieces: list[Row] = field(default_factory=list)
    rejects: list[Row] = field(default_factory=list)
    unknown: frozenset[str] = frozenset()


def _count(folded: Folded, outcome: Outcome) -> None:
    outcome.rejects += folded.rejects
    outcome.unknown |= folded.unknown
    outcome.layers = max([outcome.layers, *(piece["_layer"] + 1 for piece in folded.pieces)])
    if folded.row is not None:
        outcome.live += folded.row["_live"]
        outcome.deleted += not folded.row["_live"]


def fold_group(rows: Iterable[Row], settings: LoadSettings) -> Iterator[Folded]:
    """Fold the rows that key changes tie together; yields those that changed."""
    stored: dict[str, RowState] = {}
    revisions: dict[str, int] = {}
    changes: list[Change] = []
    for row in rows:
        if row["_state"] is not None:
            revisions[row["_key"]] = row["_revision"]
            state = restored(row["_key"], row["_state"], settings.shape)
            stored[row["_key"]] = without_refused(state) if settings.again else state
        else:
            changes += row_changes(row, settings.table, settings.contexts, settings.types)
    nothing, folded = truncated_at(EMPTY, settings.truncated), list[Folded]()
    for key, state in fold_changes(stored, changes, settings.truncated).items():
        final = _without_old_moves(truncated_at(state, settings.truncated), settings.truncated)
        before = _without_old_moves(stored.get(key, EMPTY), settings.truncated)
        # A row that a TRUNCATE deleted goes with it; one that only differs by a newer TRUNCATE has not changed.
        if settings.truncated and final.deleted == settings.truncated:
            before = replace(before, deleted=max(before.deleted, settings.truncated))
        if final not in (nothing, before):
            folded.append(_folded(key, final, revisions, settings))
    written = {row.row["_key"] for row in folded if row.row}
    watched = [_piece(key, -1, key, revision, "") for key, revision in revisions.items() if key not in written]
    yield from (replace(row, pieces=[*row.pieces, *watched]) for row in folded[:1])
    yield from folded[1:]


def _without_old_moves(state: RowState, truncated: str) -> RowState:
    """A key change that a TRUNCATE covers leads nowhere: what came before it is gone."""
    if not state.key_moves:
        return state
    return replace(
        state, key_moves={sequence: key for sequence, key in state.key_moves.items() if sequence > truncated}
    )


def _folded(key: str, state: RowState, revisions: Mapping[str, int], settings: LoadSettings) -> Folded:
    shape = settings.shape
    known = frozenset(shape.kinds)
    unknown = frozenset(state.columns) - known
    if len(key.encode()) > KEY_BYTES:
        reject = _reject(settings, key, state.newest, "KEY_TOO_LONG", "its key is too long")
        return Folded(None, [], [reject], unknown)
    values: Row = {}
    copied: dict[str, list[int]] = {}
    refused: set[str] = set()
    rejects: list[Row] = []
    for place, column in enumerate(shape.columns):
        cell = state.columns.get(column.source)
        if cell is None or cell.value is UNRESOLVED:
            continue
        if isinstance(cell.value, StoredValue):
            copied.setdefault(cell.value.key, []).append(cell.value.place)
            continue
        try:
            if cell.value is not REFUSED:
                values[f"c{place}"] = fitted(cell.value, column.kind)
        except UnfitError:
            problem = f"a value of column {column.source} does not fit its type {column.kind}"
            rejects.append(_reject(settings, key, cell.rank, "CAST_FAILED", problem) | {"column": column.source})
        if f"c{place}" not in values:
            refused.add(column.source)
        if cell.value is not None and cell.value is not REFUSED and settings.rules.rejects(column.source):
            problem = f"a value of column {column.source} came after the first schema, and `drift` is reject,"
            rejects.append(_reject(settings, key, cell.rank, "SCHEMA_DRIFT", problem) | {"column": column.source})
    text = packed(state, frozenset(refused), shape)
    if len(text) > STATE_BYTES:
        reject = _reject(settings, key, state.newest, "STATE_TOO_LONG", "its history is too long")
        return Folded(None, [], [reject], unknown)
    committed = commit_time(state)
    row = values | {
        "_key": key, "_base_revision": revisions.get(key, 0), "_live": state.exists, "_sequence": state.newest,
        "_oldest": oldest(state),
        "_commit_time": committed and committed.replace(tzinfo=None), "_pending": _pending(state, settings), "_state": text,
    }  # fmt: skip
    return Folded(row, _pieces(key, copied, revisions, len(shape.columns)), rejects, unknown)


def _pending(state: RowState, settings: LoadSettings) -> bytes | None:
    names = {*state.unresolved(list(settings.shape.kinds)), *unsent_defaults(state, settings.defaulted)}
    return fitted(sorted(names), "super") if names else None


def _pieces(key: str, copied: Mapping[str, list[int]], revisions: Mapping[str, int], width: int) -> list[Row]:
    """One piece for each row that holds values; a value keeps its place when a key change moves it."""
    pieces = []
    for layer, (holder, places) in enumerate(sorted(copied.items())):
        chosen = set(places)
        mask = "".join("1" if place in chosen else "0" for place in range(width))
        pieces.append(_piece(key, layer, holder, revisions[holder], mask))
    return pieces


def _piece(key: str, layer: int, holder: str, revision: int, mask: str) -> Row:
    return {"_key": key, "_layer": layer, "_from": holder, "_revision": revision, "_mask": mask}


def _reject(settings: LoadSettings, key: str, sequence: str, condition: str, problem: str) -> Row:
    message = f"{problem} in the warehouse's {settings.table}"
    return {
        "_table": settings.table, "_key": key, "_sequence": sequence[:104], "condition": condition, "message": message,
    }  # fmt: skip


def together(rows: Iterable[Any]) -> Outcome:
    """The outcomes of all tasks as one."""
    whole = Outcome()
    for row in rows:
        whole.add(pickle.loads(row["outcome"]))  # noqa: S301 - made by this very action
    return whole
