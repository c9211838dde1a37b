"""`ragstream adopt`."""

from __future__ import annotations

import click

from glue_jobs.cli.main import CONFIG


@click.command()
@CONFIG
@click.argument("part")
def adopt(config: str, part: str) -> None:
    """Make this pipeline the owner of PART, a store or `warehouse`: after a new lake, or when the other pipeline has ended."""
    from glue_jobs.config.pipeline import load_config
    from glue_jobs.operations.ownership import adopt as adopt_part

    loaded = load_config(config)
    previous_owner = adopt_part(loaded, part)
    before = (
        f"was pipeline {previous_owner.pipeline}'s (lake {previous_owner.lake})" if previous_owner else "was nobody's"
    )
    click.echo(f"{part} {before} and is pipeline {loaded.name}'s now")
    if part != "warehouse":
        click.echo(f"`ragstream reconcile CONFIG --store {part}` shows how it differs from this lake")
