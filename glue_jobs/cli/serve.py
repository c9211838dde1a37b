"""`ragstream serve`."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import click

from glue_jobs.cli.main import CONFIG, log_level

if TYPE_CHECKING:
    from service.config import ServeConfig

HOST = click.option("--host", help="The address to listen at; default: `serve.host`.")
PORT = click.option(
    "--port", type=click.IntRange(0, 65535), help="The port to listen at, 0 for any; default: `serve.port`."
)


@click.command()
@CONFIG
@HOST
@PORT
@log_level("info")
def serve(config: str, host: str | None, port: int | None, log_level: str) -> None:
    """Serve CONFIG's assistant over HTTP, with its page at /, until SIGTERM or Ctrl-C."""
    from glue_jobs.config.pipeline import load_config
    from glue_jobs.runtime import logs
    from service.config import ServeConfig
    from service.http.server import serve as serve_pipeline
    from service.page import routes

    loaded = load_config(config)
    options = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    served = overridden(loaded.serve or ServeConfig(), options)
    logs.set_up(log_level, loaded.redact)
    serve_pipeline(loaded, served, routes(), lambda address: click.echo(f"serving {loaded.name} at {address}"))
    leave()


def overridden(config: ServeConfig, options: dict[str, Any]) -> ServeConfig:
    """The section with what the command line says in place of it; raises UsageError where the two do not fit."""
    from pydantic import ValidationError

    try:
        return type(config).model_validate(config.model_dump() | options)
    except ValidationError as error:
        raise click.UsageError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def leave() -> None:
    """End the process although a thread may still wait for a model that does not answer."""
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
