"""The state that a warehouse row keeps beside its columns, without their values.

`transforms.fold` needs the sequence of each column of a stored row, and not its value. So the state that is read back names
each value by its row and column (`StoredValue`), and the folded state says which value is to be copied from where, inside
the warehouse: no value of a row ever leaves it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from transforms.fold import UNRESOLVED, Cell, RowState
from transforms.positions.sequence import SEQUENCE_DIGITS

if TYPE_CHECKING:
    from lake.tables.shape import TableShape

STATE_BYTES = 60_000
"""`_state`'s most bytes: with `_key`, a row of the Data API's answers stays under 64 KiB."""


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A value that a warehouse row has: the row's key, and the place of the column."""

    key: str
    place: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A value that its column cannot take: the column is NULL, and a reject says why."""


REFUSED = Refused()


def packed(state: RowState, refused: frozenset[str], shape: TableShape) -> str:
    """A state as text in ASCII, without its values.

    `s u d c t` are those of `transforms.fold.encode`; `k`: for each place `.` unknown, `-` an unresolved column, `!` refused,
    `+` a value; `r`: the ranks that differ from `s`, each with its places; `m`: the row's key moves.
    """
    sequence = state.sequence
    document: dict[str, Any] = {"s": sequence}
    for name, value in (("u", state.upserted), ("d", state.deleted), ("c", state.complete)):
        if value:
            document[name] = "=" if value == sequence else value
    marks, ranks = [], dict[str, list[int]]()
    for place, column in enumerate(shape.columns):
        cell = state.columns.get(column.source)
        marks.append(
            "." if cell is None else "-" if cell.value is UNRESOLVED else "!" if column.source in refused else "+"
        )
        if cell is not None and cell.rank != sequence:
            ranks.setdefault(cell.rank, []).append(place)
    document["k"] = "".join(marks).rstrip(".")
    parts = (("r", ranks), ("m", dict(state.key_moves)), ("t", state.commit_time_us))
    return json.dumps(document | {name: part for name, part in parts if part}, separators=(",", ":"))


def restored(key: str, text: str, shape: TableShape) -> RowState:
    """The state that `packed` rendered, with a `StoredValue` for each value."""
    document = json.loads(text)
    sequence = document["s"]
    upserted, deleted, complete = (
        sequence if document.get(name) == "=" else document.get(name, "") for name in ("u", "d", "c")
    )
    ranks = {place: rank for rank, places in document.get("r", {}).items() for place in places}
    columns = {
        shape.columns[place].source: Cell(_value(key, place, mark), ranks.get(place, sequence))
        for place, mark in enumerate(document.get("k", ""))
        if mark != "."
    }
    return RowState(upserted, deleted, complete, columns, document.get("m", {}), document.get("t"))


def without_refused(state: RowState) -> RowState:
    """The state as if the values that a column refused had not come yet."""
    columns = {name: cell for name, cell in state.columns.items() if cell.value is not REFUSED}
    return replace(state, columns=columns)


def _value(key: str, place: int, mark: str) -> Any:
    return UNRESOLVED if mark == "-" else REFUSED if mark == "!" else StoredValue(key, place)


def oldest(state: RowState) -> str:
    """The oldest sequence the state owes anything to: a TRUNCATE not older than that leaves it as it is."""
    sequences = [state.upserted, state.complete, *(cell.rank[:SEQUENCE_DIGITS] for cell in state.columns.values())]
    return min((sequence for sequence in sequences if sequence), default=state.newest)


def key_moves_of(text: str) -> Mapping[str, str]:
    """The rows that a stored row's values went to, by sequence."""
    key_moves: Mapping[str, str] = json.loads(text).get("m", {})
    return key_moves
