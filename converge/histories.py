"""Histories: which recorded events reach the code in which order, how often, in which batches, and where it dies. Pure.

A history is made from a seed. Its events are those of some rows of one table, up to a point of the source's log, so that
each state on the way is the end of some history.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from converge.key_space import KeySpaces
from converge.model import Model, ModelRow
from converge.recording import Event, Recording
from schemas.changes import Change, Changes
from schemas.records import Record
from transforms.envelopes.decode import decode

ROUNDS = 4
"""Batches of a history at most; those of many histories are delivered together."""
TOGETHER = 500
"""Histories whose batches are one batch, at most."""
_MOST_FAMILIES = 5
_MOST_EVENTS = 24


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event that reaches the code."""

    event: int
    round: int
    reader: int = 0
    """The second reader (1) has it while the first is between its plan and its write."""
    late: bool = False
    """Rejected, as by a wrong configuration, and replayed at the end."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A process dies in a round, and its batch is delivered again from the beginning."""

    round: int
    step: int
    """Which of a store's durable steps; a store that has fewer begins again with its first."""


@dataclass(frozen=True)
class History:
    """One history of a recording, in a key space of its own."""

    recording: str
    space: int
    seed: int
    deliveries: tuple[Delivery, ...]
    kills: tuple[Kill, ...] = ()

    def batch(self, number: int | None, reader: int = 0) -> list[Delivery]:
        """What a reader is given in a round; without a round, what was rejected first and is replayed at the end."""
        if number is None:
            return [d for d in self.deliveries if d.late]
        return [d for d in self.deliveries if (d.round, d.reader, d.late) == (number, reader, False)]


@dataclass(frozen=True)
class End:
    """The end of a history at its source."""

    rows: Mapping[str, ModelRow]
    """By key."""
    events: Mapping[str, list[int]]
    """The events that name a key, by key: of rows that are gone as well."""

    def name(self, key: str) -> str:
        """Name a row without its key."""
        numbers = sorted(self.events.get(key, ()))
        return f"the row of event{'s' * (len(numbers) != 1)} {', '.join(map(str, numbers))}"


@dataclass(frozen=True)
class Recorded:
    """A recording with its key spaces: what turns a history into records and into the rows at its end."""

    recording: Recording
    spaces: KeySpaces

    @classmethod
    def of(cls, recording: Recording) -> Recorded:
        """Prepare a recording."""
        return cls(recording, KeySpaces(recording))

    def record(self, history: History, delivery: Delivery) -> Record:
        """The record of a delivery."""
        return self.spaces.record(self.recording.events[delivery.event], history.space)

    def table(self, history: History) -> str:
        """The table of a history."""
        return self.recording.events[history.deliveries[0].event].table

    def changes(self, history: History) -> dict[int, tuple[Change, ...]]:
        """What the history's events mean, each decoded once, in the source's order, with every TRUNCATE of the table."""
        numbers = {d.event for d in history.deliveries} | set(self.recording.truncations.get(self.table(history), ()))
        changes = {}
        for event in sorted((self.recording.events[n] for n in numbers), key=lambda e: e.place):
            decoded = decode(self.spaces.record(event, history.space), self.recording.context)
            assert isinstance(decoded, Changes)  # noqa: S101 - KeySpaces has looked
            changes[event.number] = decoded.changes
        return changes

    def end(self, history: History, changes: Mapping[int, tuple[Change, ...]] | None = None) -> End:
        """The rows that the source would have at the end: each event once; `changes` where they are decoded already."""
        model, named = Model(), dict[str, list[int]]()
        for number, of_event in (changes or self.changes(history)).items():
            model.apply(of_event)
            for key in {k for c in of_event for k in (c.key, c.old_key, c.new_key) if k}:
                named.setdefault(key, []).append(number)
        return End(model.tables.get(self.table(history), {}), named)


def batches(
    recordings: Mapping[str, Recorded], histories: Sequence[History], number: int | None, reader: int = 0
) -> dict[str, list[Record]]:
    """The records of the histories' batches, as `History.batch`, by source; sources without a record are left out."""
    by_source: dict[str, list[Record]] = {}
    for history in histories:
        recorded = recordings[history.recording]
        if records := [recorded.record(history, delivery) for delivery in history.batch(number, reader)]:
            by_source.setdefault(history.recording, []).extend(records)
    return by_source


def delivered_alike(histories: Sequence[History]) -> Iterator[tuple[History, ...]]:
    """Histories that die alike, as many as are delivered together."""
    for _, alike in itertools.groupby(sorted(histories, key=lambda h: str(h.kills)), key=lambda h: h.kills):
        yield from itertools.batched(alike, TOGETHER)


def history(recording: Recording, space: int, seed: int, kills: Sequence[Kill] = ()) -> History:
    """The history of a seed; the same seed and recording give the same one."""
    r = random.Random(f"{recording.name}/{seed}")  # noqa: S311 - no secret depends on it
    tables = sorted(recording.families)
    (table,) = r.choices(tables, [sum(map(len, recording.families[name])) for name in tables])
    events = _chosen(recording, table, r)
    ordered = _ordered(events, r)
    return History(recording.name, space, seed, tuple(_cut(_repeated(ordered, r), r)), tuple(kills))


def _chosen(recording: Recording, table: str, r: random.Random) -> list[Event]:
    """The events of some rows up to a point of the log, and every TRUNCATE of the table."""
    families = recording.families[table]
    picked = r.sample(families, min(len(families), r.randint(1, _MOST_FAMILIES)))
    events = sorted((recording.events[n] for family in picked for n in family), key=lambda e: e.place)
    if r.random() < 0.7:
        events = events[: r.randint(1, len(events))]
    truncations = [recording.events[n] for n in recording.truncations.get(table, ())]
    return sorted([*events[:_MOST_EVENTS], *truncations], key=lambda e: e.number)


def _ordered(events: list[Event], r: random.Random) -> list[Event]:
    """As recorded; interleaved as a transport may that keeps the order of one key; or in any order, where positions tell it."""
    mode = r.choice(["recorded", "transport", "anywhere"])
    if mode == "recorded":
        return events
    if mode == "anywhere" and all(event.has_position for event in events) and not _reuses_keys(events):
        return r.sample(events, len(events))
    by_key: dict[object, list[Event]] = {}
    for event in events:
        by_key.setdefault((event.record.stream, event.record.partition, event.record.key), []).append(event)
    queues, mixed = [list(reversed(queue)) for queue in by_key.values()], list[Event]()
    while queues := [queue for queue in queues if queue]:
        mixed.append(r.choice(queues).pop())
    return mixed


def _reuses_keys(events: Sequence[Event]) -> bool:
    """Whether a key comes back after a key change took its row away: docs/limits.md says what shuffling does to such a row."""
    left: set[str] = set()
    for change in (c for event in sorted(events, key=lambda e: e.place) for c in event.changes):
        if change.op != "d" and change.key in left:
            return True
        left |= {key for key in (change.old_key, change.key if change.new_key else None) if key}
    return False


def _repeated(events: list[Event], r: random.Random) -> list[Event]:
    """Delivered again from an earlier place on, as after a crash of the capture; or some once more, anywhere later."""
    again = list(events)
    if r.random() < 0.5:
        at = r.randrange(len(again))
        again[at:at] = again[r.randint(0, at) : at]
    for _ in range(r.choice([0, 0, 1, 3])):
        at = r.randrange(len(again))
        again.insert(r.randint(at, len(again)), again[at])
    return again


def _cut(events: Sequence[Event], r: random.Random) -> Iterator[Delivery]:
    """In batches; some to a second reader, some rejected first."""
    rounds = sorted(r.randrange(ROUNDS) for _ in events)
    shared, rejecting = r.random() < 0.4, r.random() < 0.2
    for event, number in zip(events, rounds, strict=True):
        late = rejecting and not event.truncates and r.random() < 0.3
        yield Delivery(event.number, number, int(shared and r.random() < 0.5), late=late)


def in_space(history: History, space: int) -> History:
    """The same history in another key space."""
    return replace(history, space=space)
