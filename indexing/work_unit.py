"""Work units: the changes of a group of records, decoded once for all stores. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schemas.changes import Change, Changes, Decoded, Ignored, Reject
from transforms.envelopes.decode import decode
from transforms.fold import keys_of

if TYPE_CHECKING:
    from indexing.optimistic_writer import RowName
    from schemas.documents import Refusal
    from schemas.records import Record
    from transforms.context import DecodeContext
    from transforms.documents.planning import DocumentSpec, WholeRow
    from transforms.drift import ColumnWatch

FRESHNESS_SAMPLE = 500
"""Changes of a table whose freshness is measured; more are counted, not timed."""


@dataclass
class WorkUnit:
    """The changes of a group of records, the same for every store."""

    rows: dict[str, list[Change]] = field(default_factory=lambda: defaultdict(list))
    """By table with documents."""
    truncations: dict[str, str] = field(default_factory=dict)
    """By table: the newest TRUNCATE's sequence."""
    newest_records: dict[RowName, tuple[str, Record]] = field(default_factory=dict)
    """By row: the sequence of its newest record, and that record; of a table with rules for columns, its coordinates alone."""
    commits_us: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """By table: the source's commit time of each change, in microseconds since the epoch."""
    reached_us: dict[str, int] = field(default_factory=dict)
    """By partition (`stream/partition`): its newest commit."""
    counts: Counter[str] = field(default_factory=Counter)
    """records, rejects, ignored, without document."""
    whole_rows: dict[str, WholeRow] = field(default_factory=dict)
    """By table: the newest whole row, for the columns it lacks."""
    size: int = 0
    """Bytes of the records' values."""
    reported: set[tuple[RowName, Refusal]] = field(default_factory=set)
    """Refusals that some store has reported: each is one reject, however many stores refuse."""

    @property
    def is_empty(self) -> bool:
        """Whether it changes nothing in any store."""
        return not self.rows and not self.truncations


def decoded(
    records: Iterable[Record],
    context: DecodeContext,
    specs: Mapping[str, DocumentSpec],
    watch: ColumnWatch | None = None,
) -> WorkUnit:
    """Decode a group of records; raises StoppedError for a table without a column that its key or document needs."""
    unit = WorkUnit()
    for record in records:
        unit.counts["records"] += 1
        meaning = decode(record, context)
        if watch is not None:
            watch.observe(meaning)
        _keep_reached(unit, record, meaning)
        if isinstance(meaning, Reject):
            unit.counts["rejects"] += 1
        elif isinstance(meaning, Ignored):
            unit.counts["ignored"] += 1
        else:
            for change in meaning.changes:
                _add(unit, change, record, specs.get(change.table))
        if context.ruled:
            _forget_bytes(unit, meaning, context)
    return unit


def changes_of(units: Sequence[WorkUnit]) -> dict[str, list[Change]]:
    """The changes of several units by table, in the order of the units."""
    rows: dict[str, list[Change]] = defaultdict(list)
    for unit in units:
        for table, changes in unit.rows.items():
            rows[table] += changes
    return dict(rows)


def rows_of(unit: WorkUnit) -> set[RowName]:
    """The rows that a unit's changes write or read."""
    return {(table, key) for table, changes in unit.rows.items() for key in keys_of(changes)}


def truncations_of(units: Sequence[WorkUnit]) -> dict[str, str]:
    """The newest TRUNCATE of each table."""
    newest: dict[str, str] = {}
    for unit in units:
        for table, sequence in unit.truncations.items():
            newest[table] = max(newest.get(table, ""), sequence)
    return newest


def freshness(units: Iterable[WorkUnit], now_us: int) -> dict[str, list[float]]:
    """By table, the milliseconds from the source's commit until now, of not more than FRESHNESS_SAMPLE changes."""
    ages: dict[str, list[float]] = defaultdict(list)
    for unit in units:
        for table, commits in unit.commits_us.items():
            room = FRESHNESS_SAMPLE - len(ages[table])
            ages[table] += [round((now_us - commit) / 1000, 1) for commit in commits[:room]]
    return dict(ages)


def keep_newest(rows: dict[str, WholeRow], table: str, row: WholeRow | None) -> None:
    """Keep the newest whole row of a table."""
    if row is not None:
        rows[table] = max(row, rows.get(table, row))


def _add(unit: WorkUnit, change: Change, record: Record, spec: DocumentSpec | None) -> None:
    """Add a change; of a table without documents, its commit alone."""
    table = change.table
    if change.commit_time_us is not None:
        unit.commits_us[table].append(change.commit_time_us)
    if spec is None:
        unit.counts["without document"] += 1
        return
    keep_newest(unit.whole_rows, table, spec.whole_row(change))
    if change.op == "t":
        unit.truncations[table] = max(unit.truncations.get(table, ""), change.sequence)
        return
    unit.rows[table].append(change)
    unit.size += len(record.value or b"")
    newest = unit.newest_records.get((table, change.key))
    if newest is None or newest[0] < change.sequence:
        unit.newest_records[table, change.key] = (change.sequence, record)


def _forget_bytes(unit: WorkUnit, meaning: Decoded, context: DecodeContext) -> None:
    """Keep of a record the coordinates alone where its table has rules for columns: it may end in `rejects`."""
    for change in meaning.changes if isinstance(meaning, Changes) else ():
        name = (change.table, change.key)
        if change.table in context.ruled and name in unit.newest_records:
            sequence, record = unit.newest_records[name]
            unit.newest_records[name] = sequence, record._replace(key=None, value=None, headers=())


def _keep_reached(unit: WorkUnit, record: Record, meaning: Decoded) -> None:
    """Advance a partition to a record's commit, or to its arrival if that was earlier or no commit is known."""
    times = [c.commit_time_us for c in meaning.changes if c.commit_time_us] if isinstance(meaning, Changes) else []
    if record.timestamp_ms is not None:
        times = [min([record.timestamp_ms * 1000, *times])]
    if times:
        place = f"{record.stream}/{record.partition}"
        unit.reached_us[place] = max(unit.reached_us.get(place, 0), *times)
