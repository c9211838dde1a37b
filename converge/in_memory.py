"""Histories through decode and fold alone, state by state as a store keeps them. Pure, and the quickest place to find a fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from converge.compare import Failure, differences
from converge.histories import ROUNDS, History, Recorded
from converge.journal import Journal
from schemas.changes import Change, Changes
from transforms import fold
from transforms.envelopes.decode import decode
from transforms.values import exact_json


class InMemory:
    """The lane without a store: the state of a row is written as JSON after each batch, and read for the next."""

    def __init__(self, recordings: Mapping[str, Recorded]) -> None:
        """Take the recordings by name."""
        self._recordings = recordings

    def deliver(self, histories: Sequence[History], journal: Journal, on_done: Callable[[int], None]) -> None:
        """Nothing is kept, so there is nothing to deliver to."""
        on_done(len(histories))

    def failures(self, histories: Sequence[History]) -> list[Failure]:
        """Fold histories, each for itself; return those that end otherwise than the model."""
        failures = []
        for history in histories:
            recorded = self._recordings[history.recording]
            if wrong := tuple(differences(recorded.end(history), self._rows(recorded, history))):
                failures.append(Failure(history, OpenInMemory.name, wrong))
        return failures

    def _rows(self, recorded: Recorded, history: History) -> dict[str, dict[str, Any]]:
        stored: dict[str, str] = {}
        truncated = ""
        for changes in self._batches(recorded, history):
            truncated = max([truncated, *(change.sequence for change in changes if change.op == "t")])
            rows = fold.Rows(lambda key, stored=stored: _restored(stored.get(key)))  # type: ignore[misc]
            for change in changes:
                if change.op != "t":
                    fold.apply(rows, change)
            stored |= {key: exact_json.dumps(fold.encode(state)) for key, state in rows.items() if state != fold.EMPTY}
        states = {key: fold.truncated_at(_restored(text), truncated) for key, text in stored.items()}
        return {key: _shown(state) for key, state in states.items() if state.exists}

    def _batches(self, recorded: Recorded, history: History) -> list[list[Change]]:
        killed = {kill.round for kill in history.kills}
        given = [history.batch(n, reader) for n in range(ROUNDS) for reader in (1, 0) for _ in range(1 + (n in killed))]
        given.append(history.batch(None))
        return [[change for d in batch for change in _changes(recorded, history, d)] for batch in given]


@dataclass(frozen=True)
class OpenInMemory:
    """Opens the lane."""

    recordings: Mapping[str, Recorded]
    name: ClassVar[str] = "fold"
    keeps: ClassVar[bool] = False

    def __call__(self) -> InMemory:
        """There is nothing to connect to."""
        return InMemory(self.recordings)


def _changes(recorded: Recorded, history: History, delivery: Any) -> tuple[Change, ...]:
    answer = decode(recorded.record(history, delivery), recorded.recording.context)
    return answer.changes if isinstance(answer, Changes) else ()


def _restored(text: str | None) -> fold.RowState:
    return fold.restore(exact_json.loads(text)) if text else fold.EMPTY


def _shown(state: fold.RowState) -> dict[str, Any]:
    values = state.values()
    unresolved = set(state.unresolved(list(values)))
    return {name: value for name, value in values.items() if name not in unresolved}
