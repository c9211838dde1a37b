"""The captured database by its own client: what it has is compared with the configuration, and statements are run on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from schemas.errors import ConfigurationError, UnavailableError
from schemas.tables import TableConfig
from sources.capture import binlog_findings, binlog_server, database_tables
from sources.capture.engines import ENGINES
from sources.capture.findings import Findings, findings
from sources.capture.rendering import CaptureConfig, render


@dataclass(frozen=True)
class Compared:
    """What was found, and the columns of each table that the database has."""

    findings: Findings
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)


def compared(capture: CaptureConfig, pipeline: str, tables: Sequence[TableConfig]) -> Compared:
    """Compare the configured tables with the database; of an engine without a client here, notes say what to run.

    Raises UnavailableError when the database does not answer.
    """
    names = [table.table for table in tables]
    if capture.database == "postgresql":
        source = database_tables.ask(capture, names)
        result = findings(capture, pipeline, tables, source)
        return Compared(result, {name: [c.name for c in table.columns] for name, table in source.tables.items()})
    if capture.database in {"mysql", "mariadb"}:
        server = binlog_server.ask(capture, names)
        result = binlog_findings.findings(capture, tables, server)
        return Compared(result, {name: [c.name for c in table.columns] for name, table in server.tables.items()})
    return Compared(Findings(notes=list(_to_be_run(capture, pipeline, names))))


def require_tables(capture: CaptureConfig, tables: Sequence[str]) -> None:
    """Raise ConfigurationError for tables that the database lacks: a connector would silently carry the others alone.

    Raises UnavailableError where the database does not answer, or no client of it is here.
    """
    if capture.database == "postgresql":
        known = set(database_tables.ask(capture, tables).tables)
    elif capture.database in {"mysql", "mariadb"}:
        known = set(binlog_server.ask(capture, tables).tables)
    else:
        raise UnavailableError(
            f"capture: no client of {ENGINES[capture.database].scheme.title} is here, so nothing was asked"
        )
    if missing := set(tables) - known:
        raise ConfigurationError(
            f"capture: {', '.join(sorted(missing))} is not in the database, or its user may not see it.",
            condition="CAPTURE_TABLE_MISSING",
            hint="Correct the names under `tables`, or create the tables first.",
        )


def _to_be_run(capture: CaptureConfig, pipeline: str, tables: Sequence[str]) -> Sequence[str]:
    title = ENGINES[capture.database].scheme.title
    queries = render(capture, pipeline, tables).get("check_sql", [])
    first = f"{title} is not asked from here. Run these there; each row that one returns is something wrong:"
    return ["\n".join([first, *(f"    {query};" for query in queries)])] if queries else ()
