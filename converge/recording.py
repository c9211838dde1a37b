"""Recorded events as histories use them: decoded once, and ordered by the source's position. Pure.

What a record says of its row (table, key, values) is the decoder's, and is tested on recordings elsewhere. In which order
changes count is read here from the bytes themselves, by code of its own.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from schemas.changes import Change, Changes, Reject
from schemas.errors import ConfigurationError
from schemas.records import Record
from transforms.context import DecodeContext
from transforms.envelopes.decode import decode


@dataclass(frozen=True)
class Event:
    """One recorded event that changes rows of one table."""

    number: int
    """Its place in the recording."""
    record: Record
    changes: tuple[Change, ...]
    """As the decoder reads it: one, or two for a key change in one record."""
    place: tuple[Any, ...]
    """Where it stands in the source's own order; events of a table compare by it."""
    has_position: bool = True
    """Whether the source's position says so; else the order of the recording does, for every event of the table."""

    @property
    def table(self) -> str:
        """Its table, as the configuration names it."""
        return self.changes[0].table

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the rows it changes; none for a TRUNCATE."""
        return frozenset(k for c in self.changes for k in (c.key, c.old_key, c.new_key) if k)

    @property
    def truncates(self) -> bool:
        """Whether it empties its table."""
        return self.changes[0].op == "t"


@dataclass(frozen=True)
class Recording:
    """The events of one source, and what decoding needs to know of it."""

    name: str
    context: DecodeContext
    events: Mapping[int, Event]
    rejected: int
    """Records that the decoder rejects: no history has them."""
    ignored: int
    families: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    """By table: events of rows that key changes tie together, in the source's order."""
    truncations: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By table. They concern every key space, so every history of the table has them."""


def recording(name: str, context: DecodeContext, records: Iterable[Record]) -> Recording:
    """Read a recording; raises ConfigurationError where no record of it changes a row of a configured table."""
    events: dict[int, Event] = {}
    rejected = ignored = 0
    for number, record in enumerate(records):
        decoded = decode(record, context)
        if isinstance(decoded, Changes):
            place = position(record, context)
            events[number] = Event(number, record, decoded.changes, (*place, number) if place else ())
        elif isinstance(decoded, Reject):
            rejected += 1
        else:
            ignored += 1
    if not events:
        raise ConfigurationError(
            f"source {name}: of {rejected + ignored} recorded events none changes a row of a configured table "
            f"({rejected} are rejects)",
            condition="NO_EVENTS",
            hint="name the tables as the source does, and the envelope of the events; `ragstream check` says more",
        )
    unplaced = {event.table for event in events.values() if not event.place}
    for number, event in events.items():
        if event.table in unplaced:
            events[number] = replace(event, place=(number,), has_position=False)
    return Recording(name, context, events, rejected, ignored, _families(events.values()), _truncations(events))


def _truncations(events: Mapping[int, Event]) -> dict[str, tuple[int, ...]]:
    by_table: dict[str, list[int]] = defaultdict(list)
    for event in events.values():
        if event.truncates:
            by_table[event.table].append(event.number)
    return {table: tuple(numbers) for table, numbers in by_table.items()}


def _families(events: Iterable[Event]) -> dict[str, tuple[tuple[int, ...], ...]]:
    groups: dict[str, list[tuple[set[str], list[Event]]]] = defaultdict(list)
    for event in events:
        if event.truncates:
            continue
        apart = groups[event.table]
        tied = [group for group in apart if group[0] & event.keys]
        keys = set(event.keys).union(*(group[0] for group in tied))
        together = [*(e for group in tied for e in group[1]), event]
        groups[event.table] = [*(group for group in apart if group not in tied), (keys, together)]
    return {
        table: tuple(tuple(e.number for e in sorted(group, key=lambda e: e.place)) for _, group in of_table)
        for table, of_table in groups.items()
    }


# The source's own order.


def position(record: Record, context: DecodeContext) -> tuple[Any, ...] | None:
    """The place of a record in its source's log, by epoch, position and stream position; None where it tells none."""
    try:
        value = json.loads((record.value or b"")[(record.value or b"").index(b"{") :])
    except ValueError:
        return None
    value = value.get("payload", value)
    source = value.get("source")
    place = _of_connector(source) if isinstance(source, dict) else _of_dms(value.get("metadata") or {})
    if place is None:
        return None
    commit = _commit_us(source) if isinstance(source, dict) else None
    epoch = sum(1 for start in context.epoch_starts_us if commit is not None and start <= commit)
    return (epoch, *place, tuple(map(int, record.position.split(":"))))


def _commit_us(source: Mapping[str, Any]) -> int | None:
    micros, millis = source.get("ts_us"), source.get("ts_ms")
    return micros if isinstance(micros, int) else millis * 1000 if isinstance(millis, int) else None


def _of_connector(source: Mapping[str, Any]) -> tuple[Any, ...] | None:
    read = _CONNECTORS.get(source.get("connector", "postgresql"))
    try:
        return read(source) if read else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _postgresql(source: Mapping[str, Any]) -> tuple[Any, ...]:
    if source.get("sequence"):
        commit, row = json.loads(source["sequence"])
        return (int(commit or row), int(row or commit))
    return (int(source["lsn"]), int(source["lsn"]))


def _binlog(source: Mapping[str, Any]) -> tuple[Any, ...]:
    return (int(source["file"].rpartition(".")[2]), int(source["pos"]), int(source.get("row") or 0))


def _sqlserver(source: Mapping[str, Any]) -> tuple[Any, ...]:
    numbers = [int((source.get(name) or "0").replace(":", ""), 16) for name in ("commit_lsn", "change_lsn")]
    return (*numbers, int(source.get("event_serial_no") or 0))


def _oracle(source: Mapping[str, Any]) -> tuple[Any, ...]:
    if not source.get("commit_scn"):
        return (int(source["scn"]), -1)
    if source.get("txSeq") is not None:
        return (int(source["commit_scn"]), 1, int(source["txSeq"]))
    block = [int(part, 16) for part in source["rs_id"].strip().removeprefix("0x").split(".")]
    return (int(source["commit_scn"]), 0, *block, int(source["ssn"]))


_CONNECTORS: Mapping[str, Callable[[Mapping[str, Any]], tuple[Any, ...]]] = {
    "postgresql": _postgresql, "mysql": _binlog, "mariadb": _binlog, "sqlserver": _sqlserver, "oracle": _oracle,
}  # fmt: skip


def _of_dms(metadata: Mapping[str, Any]) -> tuple[Any, ...] | None:
    if metadata.get("operation") == "load":
        return (0,)
    parts = re.fullmatch(r"(\w+)/(\w+)\.(\d+)\.(\w+)/(\w+)", str(metadata.get("stream-position")))
    if parts is None:
        return None
    one, two, count, three, four = parts.groups()
    return (1, int(one, 16), int(two, 16), int(three, 16), int(four, 16), int(count))
