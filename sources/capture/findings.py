"""What a capture loses or cannot carry, from its database's catalogue and its connector's settings. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schemas.tables import TableConfig
from sources.capture.database_tables import GENERATED_COLUMNS_SINCE, Publication, Source, SourceColumn, SourceTable
from sources.capture.debezium import PLACEHOLDER, DebeziumCaptureConfig
from sources.capture.dms import DmsCaptureConfig
from sources.capture.engines.postgresql import slot_name
from sources.capture.rendering import CaptureConfig
from sources.capture.target import quoted, tables_named
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.placeholders import SMALL_BITS, UNSENT_ARRAYS, has_placeholder

if TYPE_CHECKING:
    from sources.capture.binlog_server import BinlogTable

_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
_SMALL_BITS = re.compile(r"bit(?: varying)?\((\d+)\)")
_NEEDED = (
    "bigint.unsigned.handling.mode", "binary.handling.mode", "column.propagate.source.type", "connector.class",
    "decimal.handling.mode", "enable.time.adjuster", "field.name.adjustment.mode", "header.converter",
    "include.unknown.datatypes", "inconsistent.schema.handling.mode", "key.converter",
    "key.converter.replace.null.with.default", "lob.enabled", "message.key.columns", "publication.name",
    "publish.via.partition.root", "schema.name.adjustment.mode", "skipped.operations", "slot.name", "value.converter",
    "value.converter.ignore.default.for.nullables", "value.converter.replace.null.with.default",
    "value.converter.schemas.enable",
    *(f"{part}.converter.{name}" for part in ("key", "value") for name in ("endpoint", "region", "schema.registry.url")),
)  # fmt: skip
"""Settings without which changes do not come, or values are lost or taken for NULL."""


@dataclass(frozen=True)
class Findings:
    """`wrong`: what can be mended, each with how; `notes`: limits that nothing mends."""

    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def findings(
    capture: CaptureConfig, pipeline: str, tables: Sequence[TableConfig], source: Source, *, nulls_lost: bool = False
) -> Findings:
    """Compare the configured tables with the captured database; `nulls_lost` is a trait of the connector's converters."""
    result = Findings()
    wrong, notes = result.wrong, result.notes
    debezium = isinstance(capture, DebeziumCaptureConfig)
    publication = None
    if isinstance(capture, DmsCaptureConfig) and not capture.include_null_and_empty:
        notes.append("include_null_and_empty is off: a column set to NULL cannot be told from one that was left out")
    if isinstance(capture, DebeziumCaptureConfig):
        publication = source.publications.get(slot_name(capture, pipeline))
        notes.extend(_not_applied(capture, pipeline, source))
        wrong.extend(_lost_slot(capture, pipeline, source))
    for table in tables:
        source_table = table.existing_in(source.tables)
        if source_table is None:
            wrong.append(_missing(table, tables, publication))
            continue
        wrong.extend([*_unlogged(source_table), *_keyless(table, source_table)])
        if debezium:
            wrong.extend(_unpublished(source_table, publication))
            wrong.extend(_unpublished_columns(source_table, publication, source.version))
            notes.extend(_never_sent(source_table, source.version))
            wrong.extend(lost_nulls(source_table, _quoted(source_table.name), quoted) if nulls_lost else ())
        elif source_table.kind == "p":
            wrong.extend(_split_by_dms(table, source_table))
        # AWS does not document what DMS sends for such a value.
        (wrong if debezium else notes).extend(_taken_for_null(source_table, debezium=debezium))
    return result


def _missing(table: TableConfig, tables: Sequence[TableConfig], publication: Publication | None) -> str:
    """A table that is not there; a publication follows one that is renamed, and so shows its new name."""
    published = publication.tables if publication else frozenset[str]()
    others = sorted(published.difference(*(other.names for other in tables)))
    where = (
        f". The publication has {', '.join(others)}: was it renamed? Write `partitions: [NEW NAME]`" if others else ""
    )
    return f"{table.table} is not in the database, or its user may not see it{where}"


def lost_nulls(table: SourceTable | BinlogTable, named: str, quoted_column: Callable[[str], str]) -> Iterator[str]:
    """Columns whose NULL a converter writes as their default."""
    if columns := [column.name for column in table.columns if column.defaulted]:
        changes = ", ".join(f"ALTER COLUMN {quoted_column(name)} SET DEFAULT NULL" for name in columns)
        yield (
            f"{table.name}: through AWS Glue's converters a NULL in {', '.join(columns)} arrives as the column's default, and "
            f"nothing shows it. Run: ALTER TABLE {named} {changes}"
        )


def connector_differences(settings: Mapping[str, str], rendered: Mapping[str, str], tables: Sequence[str]) -> list[str]:
    """Where a connector differs from what `ragstream capture` renders, as far as values or tables depend on it.

    `tables` are named as the connector's list names them.
    """
    differs = [
        f"{name} is {settings.get(name, 'not set')}, not {rendered[name]}"
        for name in _NEEDED
        if name in rendered and settings.get(name) != rendered[name]
    ]
    if PLACEHOLDER in settings:
        differs.append(f"{PLACEHOLDER} is set: the placeholder of this pipeline is Debezium's own")
    listed = [re.compile(pattern.strip()) for pattern in settings.get("table.include.list", ".*").split(",")]
    return differs + [
        f"table.include.list lacks {table}"
        for table in tables
        if not any(pattern.fullmatch(table) for pattern in listed)
    ]


def _unlogged(table: SourceTable) -> Iterator[str]:
    if table.kind in _KINDS:
        yield f"{table.name} is {_KINDS[table.kind]}: no change of it is ever sent"
    elif not table.logged:
        yield f"{table.name} is not in the database's log. Run: ALTER TABLE {_quoted(table.name)} SET LOGGED"


def _keyless(table: TableConfig, source_table: SourceTable) -> Iterator[str]:
    """Tables whose log lacks the key of a row that is deleted, or whose key changes."""
    for part in source_table.stored:
        if part.identity == "f" or set(table.keys) <= {table.renamed.get(name, name) for name in part.identity_columns}:
            continue
        keys = ", ".join(table.keys)
        if part.identity == "d" and part.identity_columns:
            own = f"Take the primary key ({', '.join(part.identity_columns)}) as `keys`"
            yield f"{part.name}: deletes do not tell the key {keys}. {own}, or run: {_full(part.name)}"
        elif part.identity == "i":
            yield f"{part.name}: deletes do not tell the key {keys}. Run: {_full(part.name)}"
        else:
            yield (
                f"{part.name} has no key in its log, and PostgreSQL refuses its updates and deletes while it is published. Add a "
                f"primary key; or, if {keys} of `keys` are unique and never NULL, let the connector make them the record's key "
                f"(message.key.columns, as `ragstream capture` renders it). Run: {_full(part.name)}"
            )


def _unpublished(table: SourceTable, publication: Publication | None) -> Iterator[str]:
    if publication is None or table.kind in _KINDS:
        return
    name = _quoted(publication.name)
    if table.kind == "p" and not publication.via_root:
        statement = f"ALTER PUBLICATION {name} SET (publish_via_partition_root = true)"
        yield f"{table.name} is partitioned, and changes come under the names of its partitions. Run: {statement}"
    elif table.name not in publication.tables:
        statement = f"ALTER PUBLICATION {name} ADD TABLE {_quoted(table.name)}"
        yield f"{table.name} is not in the publication {publication.name}: no change of it comes. Run: {statement}"
    if not publication.whole:
        statement = f"ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')"
        yield f"the publication {publication.name} leaves kinds of changes out. Run: {statement}"


def _unpublished_columns(table: SourceTable, publication: Publication | None, version: int) -> Iterator[str]:
    """A generated column comes with the snapshot alone, unless its publication sends it."""
    stored = [column.name for column in table.columns if column.generated == "stored"]
    if stored and publication is not None and not publication.generated and version >= GENERATED_COLUMNS_SINCE:
        statement = f"ALTER PUBLICATION {_quoted(publication.name)} SET (publish_generated_columns = stored)"
        yield f"{table.name}: changes leave the generated columns {', '.join(stored)} out. Run: {statement}"


def _never_sent(table: SourceTable, version: int) -> Iterator[str]:
    unsent = [f"{column.name} ({column.type})" for column in table.columns if column.base in UNSENT_ARRAYS]
    if unsent:
        yield f"{table.name}: Debezium sends no value of {', '.join(unsent)}; keep it as text or jsonb to have it"
    sendable = {"", "stored"} if version >= GENERATED_COLUMNS_SINCE else {""}
    generated = [column.name for column in table.columns if column.generated not in sendable]
    if generated:
        yield (
            f"{table.name}: no change tells the generated columns {', '.join(generated)}, which are pending from a row's first "
            f"change on; PostgreSQL 18 sends those that are STORED"
        )


def _taken_for_null(table: SourceTable, *, debezium: bool) -> Iterator[str]:
    """Columns whose unchanged value looks like NULL, unless the log has whole rows."""
    large = [column for column in table.columns if column.out_of_line]
    unsure = [f"{column.name} ({column.type})" for column in large if not _is_sure(column, debezium=debezium)]
    for part in table.stored if unsure else ():
        if part.identity != "f":
            yield (
                f"{part.name}: an unchanged large value cannot be told from NULL in {', '.join(unsure)}. "
                f"Run: {_full(part.name)}"
            )


def _is_sure(column: SourceColumn, *, debezium: bool) -> bool:
    if column.generated or column.base in UNSENT_ARRAYS:
        return True  # no replica identity mends these
    bits = _SMALL_BITS.fullmatch(column.type)
    if bits and int(bits[1]) <= SMALL_BITS:
        return True
    return debezium and has_placeholder(column.base, in_domain=column.in_domain)


def _split_by_dms(table: TableConfig, source_table: SourceTable) -> Iterator[str]:
    """DMS sends changes under the names of partitions."""
    context = DecodeContext("dms", {table.table: TableContext(table.table, table.keys, {}, table.partitions)})
    missed = [part.name for part in source_table.stored if context.table(part.name) is None]
    if missed or not table.partitions:
        yield (
            f"{source_table.name} is partitioned, and DMS sends changes under the names of its partitions. Write them into "
            f"`partitions` of this table, with * for any text; not there: {', '.join(missed) or 'all to come'}"
        )


def _not_applied(capture: DebeziumCaptureConfig, pipeline: str, source: Source) -> Iterator[str]:
    name = slot_name(capture, pipeline)
    parts: dict[str, Collection[str]] = {"publication": source.publications, "replication slot": source.slots}
    if missing := [part for part, names in parts.items() if name not in names]:
        yield f"the database has no {' and no '.join(missing)} {name}: nothing is captured until `ragstream capture --apply`"


def _lost_slot(capture: DebeziumCaptureConfig, pipeline: str, source: Source) -> Iterator[str]:
    name = slot_name(capture, pipeline)
    if source.slots.get(name) == "lost":
        yield (
            f"the replication slot {name} has lost changes (wal_status lost). Drop it, apply the capture again, and let it "
            f"take a new snapshot"
        )


def _full(table: str) -> str:
    return f"ALTER TABLE {_quoted(table)} REPLICA IDENTITY FULL"


def _quoted(name: str) -> str:
    """A table, or a publication, as SQL names it."""
    return tables_named([name])[0].quoted if "." in name else quoted(name)
