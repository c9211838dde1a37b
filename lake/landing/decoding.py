"""A batch of records decoded to the columns that landing adds; no Spark."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from lake.landing.breaker import Example, RejectClass
from schemas.changes import Change, Changes, Ignored, Reject, SeenSchema
from schemas.records import Record
from transforms.context import DecodeContext
from transforms.envelopes import stored
from transforms.envelopes.decode import coordinates, decode, seen_schema
from transforms.envelopes.event import KEY_GONE
from transforms.envelopes.registry import schema_names
from transforms.values.exact_json import printable
from transforms.values.rules import may_keep_bytes, ruled_schema

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
UNFIT = pa.struct(
    [
        ("record", pa.int64()),
        ("_table", pa.string()),
        ("condition", pa.string()),
        ("message", pa.string()),
        ("_key", pa.string()),
        ("_sequence", pa.string()),
        ("column", pa.string()),
    ]
)
"""Columns of records that landed without them; `record` is the record's place in the batch."""
_LAST = "~"
"""After every sequence, which is digits and lower-case letters."""
_NOTHING: Row = (None,) * len(DECODED)
_SLICE = 256
"""Records made Python's at a time, so that they stay in the processor's cache while they are read."""
DECODED_HEADERS = ("__debezium.oldkey", "__debezium.newkey", "ragstream.malformed", stored.HEADER)
"""The headers decoding looks at."""


@dataclass
class Tally:
    """Counts of what became of the records of one action, from the tasks that succeeded."""

    read: Counter[str] = field(default_factory=Counter)
    """By stream."""
    landed: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    rejected_as: Counter[RejectClass] = field(default_factory=Counter)
    examples: dict[RejectClass, Example] = field(default_factory=dict)
    """The first reject of each class."""
    ignored: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """By stream, partition, table (may be empty) and reason."""
    unfit: Counter[str] = field(default_factory=Counter)
    """Columns that do not fit, of records that landed."""
    hidden_keys: Counter[str] = field(default_factory=Counter)
    """Updates whose record does not say whether the key changed."""
    at_lob_limit: Counter[str] = field(default_factory=Counter)
    """Values as long as the capture's limit, which may have been cut."""
    newest_commit_us: dict[tuple[str, str], int] = field(default_factory=dict)
    """By stream and partition."""
    schemas: dict[tuple[str, str], SeenSchema] = field(default_factory=dict)
    """By table and schema id, the earliest."""
    keys_gone: dict[str, str] = field(default_factory=dict)
    """By table whose announced schema lacks a key column: what is wrong."""
    registered: set[str] = field(default_factory=set)
    """Ids of a registry's schemas that landed records name."""

    @property
    def records(self) -> int:
        """How many records were decoded."""
        return self.landed.total() + self.rejected.total() + self.ignored.total()

    @property
    def ignored_by_table(self) -> Counter[str]:
        """Ignored records by table, whatever the reason."""
        by_table: Counter[str] = Counter()
        for (_, _, table, _), count in self.ignored.items():
            by_table[table] += count
        return by_table

    def add(self, other: Tally) -> None:
        """Add what another task did."""
        self.read.update(other.read)
        self.landed.update(other.landed)
        self.rejected.update(other.rejected)
        self.rejected_as.update(other.rejected_as)
        self.examples = {**other.examples, **self.examples}
        self.ignored.update(other.ignored)
        self.unfit.update(other.unfit)
        self.hidden_keys.update(other.hidden_keys)
        self.at_lob_limit.update(other.at_lob_limit)
        self.keys_gone |= other.keys_gone
        for seen in other.schemas.values():
            _note_schema(self, seen)
        self.registered |= other.registered
        for place, newest in other.newest_commit_us.items():
            self.newest_commit_us[place] = max(newest, self.newest_commit_us.get(place, newest))


class DecodedBatch(NamedTuple):
    """What a batch of records means: a row of DECODED for each record, and rejects of single columns beside them."""

    records: pa.StructArray
    unfit: pa.StructArray
    tally: Tally
    kept: Mapping[int, bytes | None]
    """By place, of records whose own bytes must not be kept: what `changes` keeps in place of them; None of a reject."""


def decoded(columns: Sequence[pa.Array[Any]], context: DecodeContext) -> DecodedBatch:
    """Decode a batch given as the columns stream, partition, position, key, value, headers."""
    batch = _Batch(context)
    rows = [row for start in range(0, len(columns[0]), _SLICE) for row in batch.rows(columns, start)]
    batch.tally.read.update(counted(columns[0]))
    return DecodedBatch(_structs(rows, DECODED), _structs(batch.unfit, UNFIT), batch.tally, batch.kept)


def _structs(rows: Sequence[Row], kind: pa.StructType) -> pa.StructArray:
    columns = zip(*rows, strict=True) if rows else ((),) * len(kind)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, kind, strict=True)]
    return pa.StructArray.from_arrays(arrays, fields=list(kind))


def counted(texts: pa.Array[Any]) -> dict[str, int]:
    """How often each text is there."""
    values, counts = pc.value_counts(texts).flatten()
    return {str(text): int(count or 0) for text, count in zip(values.to_pylist(), counts.to_pylist(), strict=True)}


def _decoded_headers(headers: Any) -> Iterable[tuple[tuple[str, bytes | None], ...]]:
    names = headers.flatten().field("key")
    if not pc.any(pc.is_in(names, pa.array(DECODED_HEADERS))).as_py():
        return itertools.repeat(())
    return [
        tuple((h["key"], h["value"]) for h in row or () if h["key"] in DECODED_HEADERS) for row in headers.to_pylist()
    ]


class _Batch:
    """The rows of one batch, and the tally they add up to."""

    def __init__(self, context: DecodeContext) -> None:
        self.tally = Tally()
        self._context = context
        self._seen: dict[tuple[str, str], str] = {}
        self.unfit: list[Row] = []
        self.kept: dict[int, bytes | None] = {}

    def rows(self, columns: Sequence[pa.Array[Any]], start: int) -> Iterator[Row]:
        """Decode a slice; in full only the records whose coordinates cannot be read alone."""
        *plain, headers = (column.slice(start, _SLICE) for column in columns)
        # Through numpy: `to_pylist` makes an Arrow scalar of every value on the way, at ten times the cost.
        values = [column.to_numpy(zero_copy_only=False).tolist() for column in plain]
        for place, record in enumerate(zip(*values, _decoded_headers(headers), strict=False), start):
            stream, partition, position, _, value, headers_read = record
            change = None if value is None or headers_read else coordinates(value, stream, position, self._context)
            if change is None:
                yield self._full(Record(*record), place)
            else:
                table, op, order, commit_us, key, related, hides_old_key, at_lob_limit = change
                if hides_old_key:
                    self.tally.hidden_keys[table] += 1
                if at_lob_limit:
                    self.tally.at_lob_limit[table] += at_lob_limit
                landed = self._landed(table, commit_us, (stream, partition))
                yield table, op, order, landed, None, key, related, None, None

    def _full(self, record: Record, place: int) -> Row:
        meaning = decode(record, self._context)
        if isinstance(meaning, Changes):
            for reject in meaning.unfit:
                self.tally.unfit[reject.table or ""] += 1
                texts = map(printable, (reject.message, reject.key or "", reject.sequence or "", reject.column or ""))
                self.unfit.append((place, reject.table, reject.condition, *texts))
            if meaning.changes[-1].table in self._context.ruled:
                self.kept[place] = stored.encode(meaning.changes, self._context)
            if meaning.at_lob_limit:
                self.tally.at_lob_limit[meaning.changes[-1].table] += meaning.at_lob_limit
            return self._changed(record, meaning.changes[-1])
        if isinstance(meaning, Reject):
            if not may_keep_bytes(meaning, record.stream, self._context):
                self.kept[place] = None
            name, message = (meaning.table or "", meaning.condition), printable(meaning.message)
            self.tally.rejected[name[0]] += 1
            self.tally.rejected_as[name] += 1
            self.tally.examples.setdefault(name, Example(record.stream, record.partition, record.position, message))
            if meaning.condition == KEY_GONE:
                self.tally.keys_gone[name[0]] = message
            return (meaning.table, *_NOTHING[:6], meaning.condition, message)
        _note_ignored(self.tally, record, meaning)
        return _NOTHING

    def _changed(self, record: Record, change: Change) -> Row:
        name = (change.table, change.schema_id or "")
        if change.schema_id and change.sequence < self._seen.get(name, _LAST):
            self._seen[name] = change.sequence
            seen = seen_schema(record, self._context, change.sequence)
            _note_schema(self.tally, seen and ruled_schema(seen, self._context))
        if self._context.registry is not None and change.table not in self._context.ruled:
            parts = (record.value, record.key, *(value for _, value in record.headers))
            self.tally.registered.update(schema_names(self._context.registry.kind, parts))
        commit_us = self._landed(change.table, change.commit_time_us, (record.stream, record.partition))
        if change.hides_old_key:
            self.tally.hidden_keys[change.table] += 1
        related = change.old_key or change.new_key
        return (change.table, change.op, change.sequence, commit_us, change.schema_id, change.key, related, None, None)

    def _landed(self, table: str, commit_us: int | None, place: tuple[str, str]) -> int | None:
        """Count a change, and its commit time."""
        self.tally.landed[table] += 1
        if commit_us is not None and commit_us > self.tally.newest_commit_us.get(place, -1):
            self.tally.newest_commit_us[place] = commit_us
        return commit_us


def _note_ignored(tally: Tally, record: Record, ignored: Ignored) -> None:
    table = printable(ignored.table or "")
    tally.ignored[record.stream, record.partition, table, ignored.reason] += 1
    _note_schema(tally, ignored.schema)


def _note_schema(tally: Tally, seen: SeenSchema | None) -> None:
    known = tally.schemas.get((seen.table, seen.schema_id)) if seen else None
    if seen and (known is None or seen.sequence < known.sequence):
        tally.schemas[seen.table, seen.schema_id] = seen
