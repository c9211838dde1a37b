"""Recorded events moved into key spaces of their own, so that thousands of histories share one store. Pure."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from converge.recording import Event, Recording
from schemas.changes import Changes
from schemas.errors import ConfigurationError
from schemas.records import Record
from transforms.envelopes.decode import decode
from transforms.values import exact_json

_SCHEMA, _PAYLOAD = re.compile(rb'\s*\{\s*"schema"\s*:'), re.compile(rb',\s*"payload"\s*:\s*')
_ROWS = ("before", "after", "data", "before-image")
_STREAM_STEP = 1_000_000_000
"""Stream positions between two key spaces: a recording has fewer records than that, or its own numbers lie apart as they did."""


@dataclass(frozen=True)
class _KeyColumn:
    """The column of a table's key that is given other values."""

    name: str
    ranks: Mapping[int, int]
    """Of the integers that the recording has in it: other integers are made from these, so that they stay small."""

    def moved(self, value: Any, space: int) -> Any:
        """Another value of the same form; raises ValueError where none is known."""
        if isinstance(value, int) and not isinstance(value, bool):
            return self._whole(value, space)
        if not isinstance(value, str):
            raise ValueError  # noqa: TRY004 - of the value, not of the program
        if value.isdecimal():
            return str(self._whole(int(value), space))
        try:
            return str(uuid.uuid5(uuid.UUID(value), str(space)))
        except ValueError:
            return f"{value}~{space}"

    def _whole(self, value: int, space: int) -> int:
        return max(self.ranks) + 1 + (space - 1) * len(self.ranks) + self.ranks[value]


@dataclass
class KeySpaces:
    """The key spaces of one recording. Space 0 is the recording as it is; the same event in the same space is the same record."""

    recording: Recording
    _columns: dict[str, _KeyColumn] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Choose the column of each table's key; raises ConfigurationError for a table that has none."""
        by_table: dict[str, list[Event]] = {}
        for event in self.recording.events.values():
            if not event.truncates:
                by_table.setdefault(event.table, []).append(event)
        for table, events in by_table.items():
            self._columns[table] = self._column(table, events)

    def record(self, event: Event, space: int) -> Record:
        """The event's record in a key space: other keys and another stream position, in the same order."""
        record = event.record
        if space == 0:
            return record
        number, colon, part = record.position.partition(":")
        record = record._replace(position=f"{int(number) + space * _STREAM_STEP}{colon}{part}")
        return record if event.truncates else _moved(record, self._columns[event.table], space)

    def _column(self, table: str, events: Sequence[Event]) -> _KeyColumn:
        for name in self.recording.context.tables[table].keys:
            column = _KeyColumn(name, _ranks(events, name))
            if all(self._is_moved(event, column) for event in events):
                return column
        raise ConfigurationError(
            f"table {table}: no column of its key ({', '.join(self.recording.context.tables[table].keys)}) can be given other "
            "values, so its histories cannot share a store",
            condition="KEY_NOT_MOVABLE",
            hint="keys of integers, text and UUIDs can; leave the table's events out",
        )

    def _is_moved(self, event: Event, column: _KeyColumn) -> bool:
        """Whether the moved record is read as the same changes of other rows."""
        try:
            decoded = decode(_moved(event.record, column, 1), self.recording.context)
        except (ValueError, KeyError):
            return False
        if not isinstance(decoded, Changes) or len(decoded.changes) != len(event.changes):
            return False
        pairs = zip(decoded.changes, event.changes, strict=True)
        return all(
            (a.key != b.key, a.op, len(a.columns), bool(a.old_key), bool(a.new_key))
            == (True, b.op, len(b.columns), bool(b.old_key), bool(b.new_key))
            for a, b in pairs
        )


def _ranks(events: Sequence[Event], column: str) -> dict[int, int]:
    values = {
        v
        for event in events
        for text in _texts(event.record)
        for row in _rows(text)
        if (v := _whole(row.get(column))) is not None
    }
    return {value: rank for rank, value in enumerate(sorted(values))}


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _texts(record: Record) -> Iterator[bytes]:
    yield from (text for text in (record.key, record.value, *(text for _, text in record.headers)) if text)


def _split(text: bytes) -> tuple[bytes, Any, bytes]:
    """What stands before the JSON that has rows, that JSON, and what stands after it."""
    start = text.find(b"{")
    if start < 0:
        return text, None, b""
    payload = _PAYLOAD.search(text, start) if _SCHEMA.match(text, start) else None
    if payload is None:
        return text[:start], exact_json.loads(text[start:]), b""
    return text[: payload.end()], exact_json.loads(text[payload.end() : text.rindex(b"}")]), b"}"


def _rows(text: bytes) -> Iterator[dict[str, Any]]:
    document = _split(text)[1]
    if isinstance(document, dict):
        inside = [document[name] for name in _ROWS if isinstance(document.get(name), dict)]
        yield from inside or [document]


def _moved(record: Record, column: _KeyColumn, space: int) -> Record:
    def other(text: bytes | None) -> bytes | None:
        if not text:
            return text
        before, document, after = _split(text)
        if not isinstance(document, dict):
            return text
        inside = [document[name] for name in _ROWS if isinstance(document.get(name), dict)]
        for row in inside or [document]:
            if row.get(column.name) is not None:
                row[column.name] = column.moved(row[column.name], space)
        return before + exact_json.dumps(document).encode() + after

    headers = tuple((name, other(text) if name.startswith("__debezium.") else text) for name, text in record.headers)
    return record._replace(key=other(record.key), value=other(record.value), headers=headers)
