"""`ragstream epoch`."""

from __future__ import annotations

import contextlib
import datetime as dt

import click

from glue_jobs.cli.main import CONFIG


class _Moment(click.ParamType[dt.datetime]):
    """A time with its zone, in whole seconds: some logs have no finer commit times (MySQL's)."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> dt.datetime:
        """Read ISO 8601."""
        with contextlib.suppress(ValueError):
            moment = dt.datetime.fromisoformat(value)
            if moment.tzinfo is not None and not moment.microsecond:
                return moment
        return self.fail("write it with its zone and in whole seconds: 2026-11-24T10:00:00Z", param, ctx)


@click.command()
@CONFIG
@click.option("--source", required=True, help="The source whose tables were loaded once more.")
@click.option(
    "--at", required=True, type=_Moment(), help="When the epoch begins, as in `epochs`: 2026-11-24T10:00:00Z."
)
@click.option(
    "--empty", multiple=True, metavar="TABLE", help="A table that was loaded and has no rows; may be repeated."
)
@click.option("--plan", is_flag=True, help="Say what was loaded, and change nothing.")
def epoch(config: str, source: str, at: dt.datetime, empty: tuple[str, ...], *, plan: bool) -> None:
    """After tables of SOURCE were loaded once more: end every row of theirs that is older than AT, in the lake and the stores."""
    from glue_jobs.config.pipeline import load_config
    from glue_jobs.operations.epoch import end_older_rows, loaded_since

    loaded = load_config(config)
    chosen = loaded_since(loaded, source, at, empty)
    if not plan:
        end_older_rows(loaded, chosen)
    for table, rows in chosen.loaded.items():
        end = "older rows would end" if plan else "older rows have ended"
        click.echo(f"{table}: {rows} rows loaded since {at.isoformat()}; {end}")
