"""Notes on tables for `check` and `status`, from the lake and the status records; `capture_checks` has those of the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from glue_jobs.status.record import read_all
from lake.layout import LakeLayout
from lake.tables.drift import ColumnDrift, drifts
from lake.tables.observed_types import announced

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from glue_jobs.config.pipeline import PipelineConfig

HIDDEN_KEYS = "updates_without_before_image"
"""Landing's count by table of updates without a before-image, the only place where DMS sends the old key of a key change."""

AT_LOB_LIMIT = "values_at_lob_limit"
"""Landing's count by table of values that are as long as the DMS task's LOB limit."""


def hidden_keys(table: str, updates: int) -> str:
    """The note on updates without a before-image: their consequence and the setting."""
    return (
        f"{table}: {updates} updates came without a before-image. If one of them changed a key, the old key's row stays, and"
        " nothing detects it: give the DMS task BeforeImageSettings as `ragstream capture` renders them, then reload the table"
    )


def at_lob_limit(table: str, values: int) -> str:
    """The note on values that may have been cut."""
    return (
        f"{table}: {values} values are exactly as long as `capture.max_lob_kb` allows, and may have been cut there: raise it,"
        " give the DMS task its LobMaxSize, then reload the table"
    )


def absent_column(table: str, column: str) -> str:
    """The note on a column that the newest complete row lacks."""
    return f"{table}: its newest complete row has no column {column!r}, which its document names"


def of_status(table: str, row: Mapping[str, Any]) -> list[str]:
    """The notes of a table, from its part of `ragstream status`."""
    texts = [absent_column(table, column) for column in row["columns_missing"]]
    texts += [f"{table}: {drift['sentence']}" for drift in row["schema_drift"]]
    return [*texts, *(note(table, row[name]) for name, note in _COUNTED.items() if row[name])]


def notes(config: PipelineConfig, compared: Collection[str] = ()) -> list[str]:
    """The notes of all tables for `ragstream check`, without columns of the sources whose database was `compared`."""
    total: Counter[tuple[str, str]] = Counter()
    for record in read_all(config.checkpoint):
        total.update({(table, name): n for table, counted in record.counts.items() for name, n in counted.items()})
    places = [(table.table, name) for table in config.tables for name in _COUNTED if total[table.table, name]]
    counted_notes = [_COUNTED[name](table, total[table, name]) for table, name in places]
    drifted = [f"{name}: {drift.sentence}" for name, of_table in schema_drift(config).items() for drift in of_table]
    return [*_columns(config, compared), *drifted, *counted_notes]


_COUNTED: Mapping[str, Callable[[str, int], str]] = {HIDDEN_KEYS: hidden_keys, AT_LOB_LIMIT: at_lob_limit}
"""By landing's count: the note on it."""


def schema_drift(config: PipelineConfig) -> dict[str, list[ColumnDrift]]:
    """By table: the columns that differ from the first schema that landed."""
    observed = announced(LakeLayout(config.lake.path), config.tables)
    return {
        table.table: list(drifts(table, observed[table.table])) for table in config.tables if table.table in observed
    }


def _columns(config: PipelineConfig, compared: Collection[str]) -> Iterator[str]:
    """Configured columns that a table lacks, by the schemas that its source announced, else by complete rows."""
    known = {
        table: {name for announcement in observed.announcements for name in announcement.columns}
        for table, observed in announced(LakeLayout(config.lake.path), config.tables).items()
    }
    missing = {
        table: columns[1] for record in read_all(config.checkpoint) for table, columns in record.columns_missing.items()
    }
    for table in config.tables:
        if config.owner(table) in compared:
            continue
        if table.table in known:
            yield from (f"{column} (as announced so far)" for column in table.unknown_columns(known[table.table]))
        elif table.document:
            named = {*table.document.template_columns, *table.document.metadata}
            yield from (absent_column(table.table, name) for name in missing.get(table.table, ()) if name in named)
