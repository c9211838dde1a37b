"""`ragstream mcp`."""

from __future__ import annotations

from typing import Any

import click

from glue_jobs.cli.ask import caller_of
from glue_jobs.cli.main import CONFIG, log_level
from glue_jobs.cli.serve import HOST, PORT, leave, overridden


@click.command()
@CONFIG
@click.option("--user", help="Who asks: the claim `sub`. Over HTTP that is of the request's key or token.")
@click.option(
    "--claim", "claims", multiple=True, metavar="NAME=VALUE",
    help="A claim of who asks, for the rules of `access`; repeat it for several.",
)  # fmt: skip
@click.option("--http", "over_http", is_flag=True, help="Serve many clients by streamable HTTP, as `serve` says.")
@HOST
@PORT
@log_level("warning")
def mcp(config: str, user: str | None, claims: tuple[str, ...], log_level: str, **listen: Any) -> None:
    """Serve CONFIG's assistant as tools of the Model Context Protocol, to one client on standard input and output."""
    from glue_jobs.config.pipeline import load_config
    from glue_jobs.runtime import logs
    from service.config import ServeConfig

    over_http = listen.pop("over_http")
    options = {name: value for name, value in listen.items() if value is not None}
    if options and not over_http:
        raise click.UsageError("--host and --port belong to --http")
    if over_http and (user is not None or claims):
        raise click.UsageError("over --http the caller is of each request's key or token: leave --user and --claim out")
    caller = caller_of(user, claims)
    loaded = load_config(config)
    served = overridden(loaded.serve or ServeConfig(), options)
    logs.set_up(log_level, loaded.redact)
    if over_http:
        from integrations.mcp import http

        http.serve(loaded, served, lambda address: click.echo(f"serving {loaded.name} at {address}"))
    else:
        from integrations.mcp import stdio

        stdio.serve(loaded, caller, served.limits)
    leave()
