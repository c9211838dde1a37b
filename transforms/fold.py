"""A row as the fold of its changes (I3): per column, the newest value present since the row's last delete.

The fold is a join: commutative, associative and idempotent. So any history, shuffled, repeated or cut into other
batches, gives the same row, and a store that keeps the state of a row can be fed by any number of writers.

Ranks. A value present in a change ranks by the change's sequence. A value carried over by a key change at source
position S, known from the old row at rank R, ranks `S!R`: above everything before S, below everything said at S itself.
A column that a key change left out and nothing has filled yet is a hole at rank `S!`. The two halves of a key change
have one source position and two places in the stream, so S is the sequence with its stream position made zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from schemas.changes import Change, Value
from transforms.positions.sequence import SEQUENCE_DIGITS, STREAM_DIGITS

if TYPE_CHECKING:
    from collections.abc import Collection

_CARRIED = "!"
_SAID = "~"


class _Hole:
    """The value of a column that is known to exist and that nothing has told yet."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "HOLE"

    def __reduce__(self) -> str:
        return "HOLE"


HOLE = _Hole()


@dataclass(frozen=True, slots=True)
class Cell:
    """One column's value and its rank."""

    value: Value
    rank: str


@dataclass(frozen=True, slots=True)
class RowState:
    """All that is remembered of a row, alive or gone.

    `upserted`, `deleted` and `complete` are the greatest sequences of an upsert, a delete, and a change that told the
    whole row. `moves` maps the sequence of each key change away from this key to the new key, so that a late older
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
        """The newest sequence that said anything of this row."""
        return max(self.upserted, self.deleted)

    @property
    def newest(self) -> str:
        """The newest sequence the state knows anything from: also of a row that only a key change has told of."""
        return max([self.sequence, *(_since(cell.rank) for cell in self.columns.values())])

    @property
    def exists(self) -> bool:
        """Whether the row is there: its newest upsert is newer than its newest delete."""
        return self.upserted > self.deleted

    def values(self) -> dict[str, Value]:
        """The row's known columns."""
        return {name: cell.value for name, cell in self.columns.items() if cell.value is not HOLE}

    def pending(self, names: Collection[str]) -> tuple[str, ...]:
        """Those of the named columns that exist but that nothing has told, or not of late (I3); they are never NULL.

        A column that the row had and that its newest whole image lacks has stopped coming: its value is the older one.
        """
        if not self.exists:
            return ()
        return tuple(sorted(filter(self._is_pending, names)))

    def _is_pending(self, name: str) -> bool:
        cell = self.columns.get(name)
        if cell is None:
            return not self.complete > self.deleted
        return cell.value is HOLE or _latest(cell.rank) < self.complete


EMPTY = RowState()


def rank_key(rank: str) -> str:
    """Make ranks comparable as text: what was said at S sorts above what was carried over at S."""
    return rank + _SAID if len(rank) == SEQUENCE_DIGITS else rank


def hole_rank(rank: str) -> str:
    """The rank of a hole that stands for a value of that rank: just below it, and above all that is older."""
    return _since(rank) + _CARRIED


def _since(rank: str) -> str:
    return rank[:SEQUENCE_DIGITS]


def _source_point(sequence: str) -> str:
    """The sequence at which both halves of a key change stand: its stream position made zero."""
    return sequence[:-STREAM_DIGITS] + "0" * STREAM_DIGITS


def _latest(rank: str) -> str:
    """The newest sequence that a value belongs to: one carried over at S to what was said at S, wherever that stands."""
    since = _since(rank)
    return since if len(rank) == SEQUENCE_DIGITS else since[:-STREAM_DIGITS] + "f" * STREAM_DIGITS


def join(one: RowState, other: RowState) -> RowState:
    """Join two states of the same row."""
    deleted, complete = max(one.deleted, other.deleted), max(one.complete, other.complete)
    columns = dict(one.columns)
    for name, cell in other.columns.items():
        held = columns.get(name)
        if held is None or rank_key(cell.rank) > rank_key(held.rank):
            columns[name] = cell
    kept = {n: c for n, c in columns.items() if _latest(c.rank) > deleted}
    upserted = max(one.upserted, other.upserted)
    newest = one if one.sequence >= other.sequence else other
    key_moves = {**one.key_moves, **other.key_moves}
    upserted = upserted if upserted > deleted else ""
    complete = complete if complete > deleted else ""
    return RowState(upserted, deleted, complete, kept, key_moves, newest.commit_time_us)


def state_of(change: Change) -> RowState:
    """The state of a row of which only this change is known."""
    if change.op == "d":
        key_moves = {change.sequence: change.new_key} if change.new_key else {}
        return RowState("", change.sequence, "", {}, key_moves, change.commit_time_us)
    cells = {name: Cell(value, change.sequence) for name, value in change.columns.items()}
    if change.old_key is not None:
        hole = Cell(HOLE, _source_point(change.sequence) + _CARRIED)
        cells |= dict.fromkeys(change.unavailable, hole)
    complete = change.sequence if change.complete else ""
    return RowState(change.sequence, "", complete, cells, {}, change.commit_time_us)


def truncated_at(state: RowState, sequence: str) -> RowState:
    """The state after a TRUNCATE of its table at that sequence: what is not newer is gone (I5)."""
    return join(state, RowState("", sequence)) if sequence else state


def carried(state: RowState, move: str) -> RowState:
    """What a key change at sequence `move` carries from the old row to the new one: everything told before it.

    The new row's existence is not carried: its own change tells that. Where the old row was known as a whole, so is
    the new one.
    """
    point = _source_point(move)
    cells = {
        name: Cell(cell.value, f"{point}{_CARRIED}{cell.rank}")
        for name, cell in state.columns.items()
        if cell.value is not HOLE and _since(cell.rank) < point
    }
    return RowState("", "", point if state.complete and state.complete < point else "", cells)


def move_after(key_moves: Mapping[str, str], sequence: str) -> str | None:
    """The first key change after a sequence: the one that took the row's values along."""
    return min((s for s in key_moves if s > sequence), default=None)


class Rows(MutableMapping[str, RowState]):
    """States by key, that know which of them changed; `load` gives what a store holds for a key not seen yet."""

    def __init__(self, load: Callable[[str], RowState | None] | None = None) -> None:
        """Start with nothing; `load` is asked once for each key."""
        self._states: dict[str, RowState] = {}
        self._held: dict[str, RowState] = {}
        self._load = load

    def __getitem__(self, key: str) -> RowState:
        """The state of a key, EMPTY for one nobody knows."""
        if key not in self._states:
            held = (self._load(key) if self._load else None) or EMPTY
            self._states[key] = self._held[key] = held
        return self._states[key]

    def __setitem__(self, key: str, state: RowState) -> None:
        """Keep a state."""
        self[key]
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

    def changed(self) -> dict[str, RowState]:
        """States that differ from what the store held."""
        return {k: s for k, s in self._states.items() if s != self._held[k]}


def apply(rows: MutableMapping[str, RowState], change: Change) -> None:
    """Fold one row change into the states of the table's rows; a key change reaches both rows, in either order.

    Applying a set of changes in any order and any number of times gives the same states.
    """
    if change.op == "t":
        msg = "a truncation is an event of the table; see truncated_at"
        raise ValueError(msg)
    if change.op == "d" and change.new_key:
        _offer(rows, change.new_key, carried(rows[change.key], change.sequence))
    said = state_of(change)
    _join(rows, change.key, said)
    if change.old_key:
        _offer(rows, change.key, carried(rows[change.old_key], change.sequence))


def _join(rows: MutableMapping[str, RowState], key: str, said: RowState) -> None:
    """Join what was said into a row, and pass on what a key change has taken along already."""
    held = rows[key]
    rows[key] = join(held, said)
    by_move: dict[str, dict[str, Cell]] = {}
    key_moves = rows[key].key_moves
    if not key_moves:
        return
    for name, cell in said.columns.items():
        move = move_after(key_moves, _since(cell.rank))
        if move:
            by_move.setdefault(move, {})[name] = cell
    if said.complete and (move := move_after(key_moves, said.complete)):
        by_move.setdefault(move, {})
    for move, cells in by_move.items():
        part = replace(
            said, columns=cells, complete=said.complete if move_after(key_moves, said.complete) == move else ""
        )
        _offer(rows, key_moves[move], carried(part, move))


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
        holes = {n: c.rank for n, c in state.columns.items() if c.value is HOLE}
        ranks = {n: c.rank for n, c in state.columns.items() if c.rank != sequence and c.value is not HOLE}
        document |= {name: part for name, part in (("h", holes), ("r", ranks)) if part}
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
    columns |= {n: Cell(HOLE, rank) for n, rank in document.get("h", {}).items()}
    upserted, deleted, complete = marks
    return RowState(upserted, deleted, complete, columns, document.get("m", {}), document.get("t"))
