"""Steps of an explanation, and sentences on sequences and folds. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from transforms.fold import UNRESOLVED
from transforms.positions.sequence import NO_SOURCE_POSITION, SOURCE_DIGITS

if TYPE_CHECKING:
    from schemas.changes import Change
    from transforms.fold import Cell, RowState


@dataclass(frozen=True)
class Step:
    """What one part would do with a record."""

    part: str
    outcome: str
    why: tuple[str, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)


def rank(change: Change) -> Iterator[str]:
    """How a change ranks among those of its row."""
    epoch, position = change.sequence[:4], change.sequence[4:]
    source, stream = position[:SOURCE_DIGITS], position[SOURCE_DIGITS:]
    yield f"it ranks by epoch {int(epoch, 16)}, then by the source's position, then by its place in the stream"
    if source == NO_SOURCE_POSITION:
        yield "it has no position of the source's log (a load): below every change that has one"
    else:
        yield f"source position {source}"
    yield f"stream position {int(stream[:-4], 16)}"


def changed_columns(old: RowState, new: RowState) -> tuple[str, list[str], dict[str, Any]]:
    """What a change did to a row: the outcome, why, and the columns concerned."""
    if old == new:
        return "nothing changes", [_nothing(old)], {}
    names = sorted(name for name, cell in new.columns.items() if not _same(old.columns.get(name), cell))
    detail: dict[str, Any] = {"sequence_before": old.sequence or None, "sequence": new.sequence, "columns": names}
    if not new.exists:
        gone = "the row is gone" if old.exists else "the row stays gone"
        return gone, ["its newest delete is newer than its newest upsert"], detail
    outcome = "the row changes" if old.exists else "the row is new" if not old.deleted else "the row is there again"
    why = []
    if old.sequence == new.sequence:
        why.append("it is older than the row's newest change, and fills what that left out")
    kept = sorted(name for name, cell in old.columns.items() if new.columns.get(name) == cell)
    if kept and old.exists:
        why.append(f"older or equal for {', '.join(kept)}: these keep what they have")
    if unresolved := new.unresolved(list(new.columns)):
        why.append(f"pending, since no change has had a value: {', '.join(unresolved)}")
    return outcome, why, detail


def _nothing(state: RowState) -> str:
    if state.deleted and not state.exists:
        return "the row was deleted later"
    return "the row has this change already, or a newer one of every column"


def _same(old: Cell | None, new: Cell) -> bool:
    return old is not None and (
        old.value is new.value is UNRESOLVED or (old.value == new.value and old.rank == new.rank)
    )
