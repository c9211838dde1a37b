"""A batch of records decoded to the columns that landing adds; no Spark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from schemas.changes import Change, Changes, Ignored, Reject, SeenSchema
from schemas.records import Record
from transforms.debezium import seen_schema
from transforms.decode import decode
from transforms.exact_json import printable

if TYPE_CHECKING:
    from transforms.context import DecodeContext

type Row = tuple[Any, ...]

DECODED = pa.struct(
    [
        ("_table", pa.string()),
        ("_op", pa.string()),
        ("_sequence", pa.string()),
        ("_commit_time", pa.timestamp("us", tz="UTC")),
        ("_schema_id", pa.string()),
        ("_key", pa.string()),
        ("_related_key", pa.string()),
        ("condition", pa.string()),
        ("message", pa.string()),
    ]
)
DECODED_DDL = (
    "_table string, _op string, _sequence string, _commit_time timestamp, _schema_id string, _key string, "
    "_related_key string, condition string, message string"
)
_NOTHING: Row = (None,) * len(DECODED)
_LAST_COMMIT_US = 253_402_300_799_999_999
"""The last microsecond of the year 9999, the last one every reader of the lake can show."""
DECODED_HEADERS = ("__debezium.oldkey", "__debezium.newkey", "ragstream.malformed")
"""The headers decoding looks at; a record with none of them goes to Python without its headers."""


@dataclass
class Tally:
    """What became of the records of one action, told by the tasks that succeeded."""

    landed: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    ignored: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """By stream, partition, table (may be empty) and reason."""
    newest_commit_us: dict[str, int] = field(default_factory=dict)
    schemas: dict[tuple[str, str], SeenSchema] = field(default_factory=dict)
    """By table and schema id."""

    @property
    def records(self) -> int:
        """How many records were decoded."""
        return self.landed.total() + self.rejected.total() + self.ignored.total()

    @property
    def ignored_by_table(self) -> Counter[str]:
        """Ignored records by table, whatever the reason."""
        found: Counter[str] = Counter()
        for (_, _, table, _), count in self.ignored.items():
            found[table] += count
        return found

    def add(self, other: Tally) -> None:
        """Add what another task did."""
        self.landed.update(other.landed)
        self.rejected.update(other.rejected)
        self.ignored.update(other.ignored)
        self.schemas |= other.schemas
        for table, newest in other.newest_commit_us.items():
            self.newest_commit_us[table] = max(newest, self.newest_commit_us.get(table, newest))


def decoded(columns: Sequence[pa.Array[Any]], context: DecodeContext) -> tuple[pa.Array[Any], Tally]:
    """Decode a batch given as the columns stream, partition, position, key, value, headers; headers may all be NULL."""
    tally = Tally()
    seen: set[tuple[str, str]] = set()
    rows = [_row(record, context, tally, seen) for record in _records(columns)]
    return pa.array(rows, DECODED), tally


def _records(columns: Sequence[pa.Array[Any]]) -> Iterator[Record]:
    *plain, headers = columns
    values = [column.to_pylist() for column in plain]
    if headers.null_count == len(headers):
        return (Record(*row) for row in zip(*values, strict=True))
    told = [tuple((h["key"], h["value"]) for h in row or ()) for row in headers.to_pylist()]
    return (Record(*row) for row in zip(*values, told, strict=True))


def _row(record: Record, context: DecodeContext, tally: Tally, seen: set[tuple[str, str]]) -> Row:
    answer = decode(record, context)
    if isinstance(answer, Changes):
        change = answer.changes[-1]
        if change.schema_id and (change.table, change.schema_id) not in seen:
            seen.add((change.table, change.schema_id))
            _note_schema(tally, seen_schema(record, context))
        return _landed(change, tally)
    if isinstance(answer, Reject):
        tally.rejected[answer.table or ""] += 1
        return (answer.table, *_NOTHING[:6], answer.condition, printable(answer.message))
    _note_ignored(tally, record, answer)
    return _NOTHING


def _landed(change: Change, tally: Tally) -> Row:
    commit_us = change.commit_time_us
    if commit_us is not None and not 0 <= commit_us <= _LAST_COMMIT_US:
        commit_us = None
    tally.landed[change.table] += 1
    if commit_us is not None and commit_us > tally.newest_commit_us.get(change.table, -1):
        tally.newest_commit_us[change.table] = commit_us
    related = change.old_key or change.new_key
    return (change.table, change.op, change.sequence, commit_us, change.schema_id, change.key, related, None, None)


def _note_ignored(tally: Tally, record: Record, answer: Ignored) -> None:
    table = printable(answer.table or "")
    tally.ignored[record.stream, record.partition, table, answer.reason] += 1
    _note_schema(tally, answer.schema)


def _note_schema(tally: Tally, seen: SeenSchema | None) -> None:
    if seen:
        tally.schemas[seen.table, seen.schema_id] = seen
