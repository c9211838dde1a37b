"""The result of decoding a record: changes of rows, a reject, or a record to ignore."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Op = Literal["c", "u", "d", "r", "t"]
"""Debezium's operations: create, update, delete, read (snapshot, load), truncate."""

type Value = Any
"""A column's value: None, bool, int, Decimal, str, list or dict. Numbers are exact; times and bytes are text."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one row, or the truncation of a table (op t, empty key).

    `columns` are the columns that were present. `complete` means that the record has the whole row: an absent column is then
    NULL if the row never had it, and unresolved if it did; otherwise an absent column keeps its older value (I3).
    `unavailable` names columns that a complete row has but the record left out (unchanged TOAST after a key change).
    `old_key` (op c, u) and `new_key` (op d) link the two halves of a key change. `hides_old_key` marks an update whose
    record does not say whether the key changed.
    """

    table: str
    op: Op
    sequence: str
    key: str
    columns: Mapping[str, Value] = field(default_factory=dict)
    complete: bool = False
    unavailable: tuple[str, ...] = ()
    old_key: str | None = None
    new_key: str | None = None
    commit_time_us: int | None = None
    schema_id: str | None = None
    hides_old_key: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of a record: one, or two for a key change.

    `unfit` are the rejects of columns whose values can never be stored; the last change leaves them unresolved.
    `at_lob_limit` counts values that are as long as the capture's limit, and so may have been cut.
    """

    changes: tuple[Change, ...]
    unfit: tuple[Reject, ...] = ()
    at_lob_limit: int = 0


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that can never be processed; it goes to `rejects` with its raw bytes.

    With a `column` it is one value of a record that is landed otherwise, and has the row's key and sequence.
    """

    condition: str
    message: str
    table: str | None = None
    stage: str = "decode"
    column: str | None = None
    key: str | None = None
    sequence: str | None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """A record without a row: heartbeat, tombstone, transaction marker, control record and the like; counted.

    `schema` are the column types that a control record announces.
    """

    reason: str
    table: str | None = None
    schema: SeenSchema | None = None


@dataclass(frozen=True, slots=True)
class SeenSchema:
    """Column types that a source announced for a table: name to canonical type (`transforms.values.types`)."""

    schema_id: str
    table: str
    columns: Mapping[str, str]
    keys: tuple[str, ...] = ()
    sequence: str = ""
    """Orders what was announced for one table: of the first change that has these types, or of the control record."""
    defaulted: tuple[str, ...] = ()
    """Columns that are NOT NULL or have a default: rows from before such a column was added are not NULL, and not sent."""


type Decoded = Changes | Reject | Ignored
