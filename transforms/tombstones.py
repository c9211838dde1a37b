"""A deleted row stays as a tombstone: the sequence of its delete, without a value. Nothing older brings the row back (I4).

A store keeps the tombstone in the document row, whose guard each `sinks/*/writer.py` has; the lake in the Delta table
`tombstones`, the warehouse beside the live rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from transforms.ranks import latest

if TYPE_CHECKING:
    from transforms.fold import RowState


def without_deleted(state: RowState) -> RowState:
    """The state without all that is not newer than the row's newest delete, whichever came first."""
    deleted = state.deleted
    if not deleted:
        return state
    return replace(
        state,
        upserted=state.upserted if state.upserted > deleted else "",
        complete=state.complete if state.complete > deleted else "",
        columns={name: cell for name, cell in state.columns.items() if latest(cell.rank) > deleted},
    )
