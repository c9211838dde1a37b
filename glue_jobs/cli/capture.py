"""`ragstream capture`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from glue_jobs.cli.main import CONFIG

if TYPE_CHECKING:
    from glue_jobs.config.pipeline import PipelineConfig
    from sources.capture.debezium import DebeziumCaptureConfig
    from sources.capture.names import KnownTable

_KEYS = "; where `keys` are not the primary key, the connector needs message.key.columns"


@click.command()
@CONFIG
@click.option("--apply", "apply_", is_flag=True, help="Create or update the connector on the worker at `connect_url`.")
def capture(config: str, *, apply_: bool) -> None:
    """Render the connector or the DMS task that captures the tables of CONFIG; secrets are withheld."""
    from glue_jobs.config.pipeline import load_config
    from glue_jobs.operations import capture_checks
    from schemas.errors import ConfigurationError, UnavailableError
    from sources.capture.rendering import as_json
    from sources.capture.source import known_tables

    loaded = load_config(config)
    if not loaded.capture:
        raise ConfigurationError(
            f"{config}: there is no `capture`.",
            condition="CAPTURE_MISSING",
            hint="Add capture: {type: debezium, dsn: ${secret:source}, connect_url: ...}, or type: dms.",
        )
    for entry in (capture_checks.completed(loaded, part) for part in loaded.capture):
        if entry.type == "debezium" and apply_:
            _apply(loaded, entry)
            continue
        known: Mapping[str, KnownTable] = {}
        if entry.type == "debezium":
            try:
                known = known_tables(entry, loaded.tables_of(loaded.source(entry.source).name))
            except UnavailableError as error:
                click.echo(f"note: {error.message}{_KEYS}", err=True)
            except ModuleNotFoundError as error:
                click.echo(f"note: {error.name} is not installed, so the database was not asked{_KEYS}", err=True)
        click.echo(as_json(capture_checks.rendered(loaded, entry, known)))


def _apply(config: PipelineConfig, entry: DebeziumCaptureConfig) -> None:
    from glue_jobs.operations import capture_checks
    from schemas.errors import UnavailableError
    from sources.capture.connect_worker import put_connector
    from sources.capture.source import require_tables

    tables = config.tables_of(config.source(entry.source).name)
    try:
        rendered = capture_checks.rendered(config, entry, require_tables(entry, tables), reveal=True)
    except UnavailableError as error:
        rendered = capture_checks.rendered(config, entry, {}, reveal=True) | {"source_sql": []}
        click.echo(f"note: {error.message}; its owner runs `source_sql` of `ragstream capture` there", err=True)
    kept, name = put_connector(entry, rendered), rendered["connector"]["name"]
    if kept:
        click.echo(f"note: the connector {name} keeps what is not rendered: {', '.join(kept)}", err=True)
    click.echo(f"connector {name} runs on {entry.connect_url}: {', '.join(table.table for table in tables)}", err=True)
