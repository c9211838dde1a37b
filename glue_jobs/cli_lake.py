"""`ragstream table`."""

from __future__ import annotations

import click

from glue_jobs.cli import CONFIG


@click.command()
@CONFIG
@click.argument("table")
def table(config: str, table: str) -> None:
    """Print the current rows of TABLE from the lake of CONFIG, one JSON object a line, as fresh as `changes`."""
    from glue_jobs.config import decode_context, load_config
    from lake.current import current_rows
    from lake.layout import LakeLayout
    from schemas.errors import ConfigurationError
    from transforms import exact_json

    loaded = load_config(config)
    found = next((t for t in loaded.tables if t.table == table), None)
    if found is None:
        raise ConfigurationError(
            f"{config}: table {table!r} is not configured.",
            condition="TABLE_UNKNOWN",
            hint=f"It has {', '.join(t.table for t in loaded.tables)}.",
        )
    contexts = {source.name: decode_context(loaded, source.name) for source in loaded.sources}
    for row in current_rows(LakeLayout(loaded.lake.path), found, contexts):
        click.echo(exact_json.dumps(row))
