"""A row as the fold of its changes (I3): per column, the newest value present since the row's last delete.

The fold is a join: commutative, associative and idempotent. So any history, shuffled, repeated or cut into other
batches, gives the same row, and any number of writers may fold into the state that a store keeps of a row. Which value of a
column is newer `transforms/ranks.py` says, and what a delete leaves `transforms/tombstones.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

from schemas.changes import Change, Value
from transforms.ranks import CARRIED, latest, rank_key, since, source_point
from transforms.tombstones import without_deleted


class _Unresolved:
    """The value of a column that the row has and that no change has had yet."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNRESOLVED"

    def __reduce__(self) -> str:
        return "UNRESOLVED"


UNRESOLVED = _Unresolved()


@dataclass(frozen=True, slots=True)
class Cell:
    """One column's value and its rank."""

    value: Value
    rank: str


@dataclass(frozen=True, slots=True)
class RowState:
    """All that is kept of a row, live or deleted.

    `upserted`, `deleted` and `complete` are the greatest sequences of an upsert, a delete, and a change of the whole
    row. `key_moves` maps the sequence of each key change away from this key to the new key, so that a late older
    change still reaches the row it became.
    """

    upserted: str = ""
    deleted: str = ""
    complete: str = ""
    columns: Mapping[str, Cell] = field(default_factory=dict)
    key_moves: Mapping[str, str] = field(default_factory=dict)
    commit_time_us: int | None = None

    @property
    def sequence(self) -> str:
        """The sequence of the newest upsert or delete."""
        return max(self.upserted, self.deleted)

    @property
    def newest(self) -> str:
        """The newest sequence in the state; of a row that is known by a key change alone, that of its newest value."""
        return max([self.sequence, *(since(cell.rank) for cell in self.columns.values())])

    @property
    def exists(self) -> bool:
        """Whether the row is there: its newest upsert is newer than its newest delete."""
        return self.upserted > self.deleted

    def values(self) -> dict[str, Value]:
        """The row's known columns."""
        return {name: cell.value for name, cell in self.columns.items() if cell.value is not UNRESOLVED}

    def unresolved(self, names: Collection[str]) -> tuple[str, ...]:
        """The named columns without a value, or with one older than the newest whole row (I3); they are never NULL.

        A column that the row had and that its newest whole row lacks keeps its older value.
        """
        if not self.exists:
            return ()
        return tuple(sorted(filter(self._is_unresolved, names)))

    def _is_unresolved(self, name: str) -> bool:
        cell = self.columns.get(name)
        if cell is None:
            return not self.complete > self.deleted
        return cell.value is UNRESOLVED or latest(cell.rank) < self.complete


EMPTY = RowState()


def join(one: RowState, other: RowState) -> RowState:
    """Join two states of the same row."""
    columns = dict(one.columns)
    for name, cell in other.columns.items():
        known = columns.get(name)
        if known is None or rank_key(cell.rank) > rank_key(known.rank):
            columns[name] = cell
    newest = one if one.sequence >= other.sequence else other
    joined = RowState(
        max(one.upserted, other.upserted), max(one.deleted, other.deleted), max(one.complete, other.complete),
        columns, {**one.key_moves, **other.key_moves}, newest.commit_time_us,
    )  # fmt: skip
    return without_deleted(joined)


def state_of(change: Change) -> RowState:
    """The state of a row of which only this change is known."""
    if change.op == "d":
        key_moves = {change.sequence: change.new_key} if change.new_key else {}
        return RowState("", change.sequence, "", {}, key_moves, change.commit_time_us)
    cells = {name: Cell(value, change.sequence) for name, value in change.columns.items()}
    if change.old_key is not None:
        cells |= dict.fromkeys(change.unavailable, Cell(UNRESOLVED, source_point(change.sequence) + CARRIED))
    complete = change.sequence if change.complete else ""
    return RowState(change.sequence, "", complete, cells, {}, change.commit_time_us)


def truncated_at(state: RowState, sequence: str) -> RowState:
    """The state after a TRUNCATE of its table at that sequence: what is not newer is gone (I5)."""
    return join(state, RowState("", sequence)) if sequence else state


def carried(state: RowState, move: str) -> RowState:
    """What a key change at sequence `move` carries from the old row to the new one: every value from before it.

    The new row's existence is not carried: its own change has that. Where the old row was known as a whole, so is
    the new one.
    """
    point = source_point(move)
    cells = {
        name: Cell(cell.value, f"{point}{CARRIED}{cell.rank}")
        for name, cell in state.columns.items()
        if cell.value is not UNRESOLVED and since(cell.rank) < point
    }
    return RowState("", "", point if state.complete and state.complete < point else "", cells)


def move_after(key_moves: Mapping[str, str], sequence: str) -> str | None:
    """The first key change after a sequence: the one that took the row's values along."""
    return min((s for s in key_moves if s > sequence), default=None)


class Rows(MutableMapping[str, RowState]):
    """States by key; `load` reads what a store has for a key that was not seen yet."""

    def __init__(self, load: Callable[[str], RowState | None] | None = None) -> None:
        """Start with nothing; `load` is asked once for each key."""
        self._states: dict[str, RowState] = {}
        self._load = load

    def __getitem__(self, key: str) -> RowState:
        """The state of a key, EMPTY for one without changes."""
        if key not in self._states:
            self._states[key] = (self._load(key) if self._load else None) or EMPTY
        return self._states[key]

    def __setitem__(self, key: str, state: RowState) -> None:
        """Keep a state."""
        self._states[key] = state

    def __delitem__(self, key: str) -> None:
        """Forget a key."""
        del self._states[key]

    def __iter__(self) -> Any:
        """Keys seen."""
        return iter(self._states)

    def __len__(self) -> int:
        """How many keys were seen."""
        return len(self._states)


def apply(rows: MutableMapping[str, RowState], change: Change) -> None:
    """Fold one row change into the states of the table's rows; a key change reaches both rows, in either order.

    Applying a set of changes in any order and any number of times gives the same states.
    """
    if change.op == "t":
        msg = "a truncation is an event of the table; see truncated_at"
        raise ValueError(msg)
    if change.op == "d" and change.new_key:
        _offer(rows, change.new_key, carried(rows[change.key], change.sequence))
    _join(rows, change.key, state_of(change))
    if change.old_key:
        _offer(rows, change.key, carried(rows[change.old_key], change.sequence))


def _join(rows: MutableMapping[str, RowState], key: str, state: RowState) -> None:
    """Join a state into a row, and pass on to the new row what a key change had carried over."""
    rows[key] = join(rows[key], state)
    by_move: dict[str, dict[str, Cell]] = {}
    key_moves = rows[key].key_moves
    if not key_moves:
        return
    for name, cell in state.columns.items():
        move = move_after(key_moves, since(cell.rank))
        if move:
            by_move.setdefault(move, {})[name] = cell
    if state.complete and (move := move_after(key_moves, state.complete)):
        by_move.setdefault(move, {})
    for move, cells in by_move.items():
        complete = state.complete if move_after(key_moves, state.complete) == move else ""
        _offer(rows, key_moves[move], carried(replace(state, columns=cells, complete=complete), move))


def _offer(rows: MutableMapping[str, RowState], key: str, offered: RowState) -> None:
    if offered.columns or offered.complete:
        _join(rows, key, offered)


def keys_of(changes: Iterable[Change]) -> set[str]:
    """Every row a set of changes touches or reads."""
    return {key for c in changes for key in (c.key, c.old_key, c.new_key) if key}


def in_order(changes: Iterable[Change]) -> list[Change]:
    """Sort by sequence: no order is needed for the result, but the source's own order does the least work."""
    return sorted(changes, key=lambda c: c.sequence)


def encode(state: RowState) -> dict[str, Any]:
    """A state as JSON: one rank a row, and one more for each column that differs from it."""
    sequence = state.sequence
    document: dict[str, Any] = {"s": sequence}
    for name, value in (("u", state.upserted), ("d", state.deleted), ("c", state.complete)):
        if value:
            document[name] = "=" if value == sequence else value
    if state.columns:
        document["v"] = state.values()
        unresolved = {n: c.rank for n, c in state.columns.items() if c.value is UNRESOLVED}
        ranks = {n: c.rank for n, c in state.columns.items() if c.rank != sequence and c.value is not UNRESOLVED}
        document |= {name: part for name, part in (("h", unresolved), ("r", ranks)) if part}
    if state.key_moves:
        document["m"] = dict(state.key_moves)
    if state.commit_time_us is not None:
        document["t"] = state.commit_time_us
    return document


def restore(document: Mapping[str, Any]) -> RowState:
    """The state that `encode` rendered."""
    sequence = document["s"]
    marks = (sequence if document.get(name) == "=" else document.get(name, "") for name in ("u", "d", "c"))
    ranks = document.get("r", {})
    columns = {n: Cell(v, ranks.get(n, sequence)) for n, v in document.get("v", {}).items()}
    columns |= {n: Cell(UNRESOLVED, rank) for n, rank in document.get("h", {}).items()}
    upserted, deleted, complete = marks
    return RowState(upserted, deleted, complete, columns, document.get("m", {}), document.get("t"))
