"""`ragstream capture`."""

from __future__ import annotations

import click

from glue_jobs.cli.main import CONFIG


@click.command()
@CONFIG
@click.option("--apply", "apply_", is_flag=True, help="Create or update the connector on the worker at `connect_url`.")
def capture(config: str, *, apply_: bool) -> None:
    """Render the connector or the DMS task that captures the tables of CONFIG; secrets are withheld."""
    from glue_jobs.config.pipeline import load_config
    from glue_jobs.operations import capture_checks
    from schemas.errors import ConfigurationError, UnavailableError
    from sources.capture.rendering import as_json, render

    loaded = load_config(config)
    if not loaded.capture:
        raise ConfigurationError(
            f"{config}: there is no `capture`.",
            condition="CAPTURE_MISSING",
            hint="Add capture: {type: debezium, dsn: ${secret:source}, connect_url: ...}, or type: dms.",
        )
    for entry in (capture_checks.completed(loaded, each) for each in loaded.capture):
        tables, topics = capture_checks.tables_and_topics(loaded, entry)
        if apply_ and entry.type == "debezium":
            from sources.capture.connect_worker import put_connector
            from sources.capture.source import require_tables

            rendered = render(entry, loaded.name, tables, topics, reveal=True)
            try:
                require_tables(entry, tables)
            except UnavailableError as error:
                rendered["source_sql"] = []
                click.echo(f"note: {error.message}; its owner runs `source_sql` of `ragstream capture` there", err=True)
            name = put_connector(entry, rendered)
            click.echo(f"connector {name} runs on {entry.connect_url}: {', '.join(tables)}", err=True)
        else:
            click.echo(
                as_json(render(entry, loaded.name, tables, topics, partitions=capture_checks.partitions(loaded)))
            )
