"""Histories through decode and fold alone, state by state as a store keeps them. Pure, and the quickest place to find a fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from converge.compare import Failure, differences
from converge.histories import ROUNDS, History, Recorded
from converge.journal import Journal
from schemas.changes import Change
from transforms import fold
from transforms.values import exact_json


class InMemory:
    """The lane without a store: the state of a row is written as JSON after each batch, and read for the next."""

    def __init__(self, recordings: Mapping[str, Recorded]) -> None:
        """Take the recordings by name."""
        self._recordings = recordings
        self._wrong: dict[int, tuple[str, ...]] = {}
        """What is wrong at the end of a history, by its key space."""

    def deliver(self, histories: Sequence[History], journal: Journal, on_done: Callable[[int], None]) -> None:
        """Fold histories, each for itself, and compare: nothing else is kept."""
        for history in histories:
            recorded = self._recordings[history.recording]
            changes = recorded.changes(history)
            self._wrong[history.space] = tuple(differences(recorded.end(history, changes), _rows(history, changes)))
            on_done(1)

    def failures(self, histories: Sequence[History]) -> list[Failure]:
        """Those that ended otherwise than the model."""
        return [Failure(h, OpenInMemory.name, wrong) for h in histories if (wrong := self._wrong[h.space])]


@dataclass(frozen=True)
class OpenInMemory:
    """Opens the lane."""

    recordings: Mapping[str, Recorded]
    name: ClassVar[str] = "fold"
    keeps: ClassVar[bool] = False

    def __call__(self) -> InMemory:
        """There is nothing to connect to."""
        return InMemory(self.recordings)


def _rows(history: History, changes: Mapping[int, tuple[Change, ...]]) -> dict[str, dict[str, Any]]:
    stored: dict[str, str] = {}
    truncated = ""
    for batch in _batches(history, changes):
        truncated = max([truncated, *(change.sequence for change in batch if change.op == "t")])
        rows = fold.Rows(lambda key, stored=stored: _restored(stored.get(key)))  # type: ignore[misc]
        for change in batch:
            if change.op != "t":
                fold.apply(rows, change)
        stored |= {key: exact_json.dumps(fold.encode(state)) for key, state in rows.items() if state != fold.EMPTY}
    states = {key: fold.truncated_at(_restored(text), truncated) for key, text in stored.items()}
    return {key: _shown(state) for key, state in states.items() if state.exists}


def _batches(history: History, changes: Mapping[int, tuple[Change, ...]]) -> Iterator[list[Change]]:
    killed = {kill.round for kill in history.kills}
    batches = [history.batch(n, reader) for n in range(ROUNDS) for reader in (1, 0) for _ in range(1 + (n in killed))]
    for batch in (*batches, history.batch(None)):
        yield [change for delivery in batch for change in changes[delivery.event]]


def _restored(text: str | None) -> fold.RowState:
    return fold.restore(exact_json.loads(text)) if text else fold.EMPTY


def _shown(state: fold.RowState) -> dict[str, Any]:
    values = state.values()
    unresolved = set(state.unresolved(list(values)))
    return {name: value for name, value in values.items() if name not in unresolved}
