"""The captured database by its own client: its tables, log and rights are compared with the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from schemas.errors import ConfigurationError, UnavailableError
from schemas.tables import TableConfig
from sources.capture import binlog_findings, binlog_server, database_tables
from sources.capture.binlog_server import BinlogServer
from sources.capture.converters import chosen, loses_nulls
from sources.capture.database_tables import Source
from sources.capture.debezium import DebeziumCaptureConfig
from sources.capture.engines import ENGINES
from sources.capture.findings import Findings, findings
from sources.capture.names import KnownTable, recorded
from sources.capture.rendering import CaptureConfig, Details, render
from sources.registry.config import RegistryConfig


@dataclass(frozen=True)
class Compared:
    """The findings, and the tables as the database has them."""

    findings: Findings
    tables: Sequence[TableConfig]
    """As configured, with the columns of the database renamed as records have them."""
    known: Mapping[str, KnownTable] = field(default_factory=dict)


def compared(
    capture: CaptureConfig, pipeline: str, tables: Sequence[TableConfig], registry: RegistryConfig | None = None
) -> Compared:
    """Compare the configured tables with the database; of an engine without a client here, notes say what to run.

    Raises UnavailableError when the database does not answer.
    """
    asked = _asked(capture, tables)
    if asked is None:
        return Compared(Findings(notes=_queries_to_run(capture, pipeline, tables, registry)), tables)
    known = _known(asked, tables)
    tables = as_recorded(capture, tables, known, registry)
    nulls_lost = isinstance(capture, DebeziumCaptureConfig) and loses_nulls(capture.converter, registry)
    if isinstance(asked, Source):
        result = findings(capture, pipeline, tables, asked, nulls_lost=nulls_lost)
    else:
        result = binlog_findings.findings(capture, tables, asked, nulls_lost=nulls_lost)
    return Compared(result, tables, known)


def as_recorded(
    capture: CaptureConfig,
    tables: Sequence[TableConfig],
    known: Mapping[str, KnownTable],
    registry: RegistryConfig | None,
) -> Sequence[TableConfig]:
    """The tables with the database's columns renamed as the capture's records have them."""
    is_avro = isinstance(capture, DebeziumCaptureConfig) and chosen(capture.converter, registry) == "avro"
    return recorded(tables, known) if is_avro else tables


def known_tables(capture: CaptureConfig, tables: Sequence[TableConfig]) -> dict[str, KnownTable]:
    """Those of the tables that the database has, under whichever of their names, by the name that they have here.

    Raises UnavailableError where the database does not answer, or no client of it is here.
    """
    asked = _asked(capture, tables)
    if asked is None:
        raise UnavailableError(
            f"capture: no client of {ENGINES[capture.database].scheme.title} is here, so nothing was asked"
        )
    return _known(asked, tables)


def require_tables(capture: CaptureConfig, tables: Sequence[TableConfig]) -> dict[str, KnownTable]:
    """The tables; ConfigurationError for those that the database lacks: a connector would silently carry the others alone.

    Raises UnavailableError as `known_tables` does.
    """
    known = known_tables(capture, tables)
    if missing := {table.table for table in tables} - known.keys():
        raise ConfigurationError(
            f"capture: {', '.join(sorted(missing))} is not in the database, or its user may not see it.",
            condition="CAPTURE_TABLE_MISSING",
            hint="Correct the names under `tables`, or create the tables first. The new name of one that was renamed belongs into"
            " its `partitions`.",
        )
    return known


def _asked(capture: CaptureConfig, tables: Sequence[TableConfig]) -> Source | BinlogServer | None:
    """What the database says of itself; None of an engine without a client here."""
    names = [name for table in tables for name in table.names]
    match capture.database:
        case "postgresql":
            return database_tables.ask(capture, names)
        case "mysql" | "mariadb":
            return binlog_server.ask(capture, names)
        case _:
            return None


def _known(asked: Source | BinlogServer, tables: Sequence[TableConfig]) -> dict[str, KnownTable]:
    there = {
        name: KnownTable(tuple(column.name for column in table.columns), table.keys, name)
        for name, table in asked.tables.items()
    }
    return {table.table: existing for table in tables if (existing := table.existing_in(there)) is not None}


def _queries_to_run(
    capture: CaptureConfig, pipeline: str, tables: Sequence[TableConfig], registry: RegistryConfig | None
) -> list[str]:
    title = ENGINES[capture.database].scheme.title
    names, details = [table.table for table in tables], Details(registry=registry)
    queries = render(capture, pipeline, names, details=details).get("check_sql", [])
    first = f"{title} is not asked from here. Run these there; each row that one returns is something wrong:"
    return ["\n".join([first, *(f"    {query};" for query in queries)])] if queries else []
