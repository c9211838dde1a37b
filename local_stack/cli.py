"""`ragstream stack up|down|status`. What the servers need is imported when a command runs: `--help` needs none of it."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from local_stack.service import ServiceStatus
    from local_stack.stack import Stack

_MIB = 1024 * 1024
_parts = click.option(
    "--parts",
    default="",
    help="Comma-separated; left out: postgres,vectors,kafka,connect,aws,model. "
    "Also: documentdb, glue, instant-model, kinesis, mariadb, memorydb, mysql (once `make test-mysql` ran), opensearch, "
    "redshift, schema-registry.",
)


@click.group(help="The local servers: PostgreSQL, Kafka, Connect, an AWS endpoint and the models, as child processes.")
def stack() -> None:
    """Group of the three commands."""


@stack.command()
@_parts
def up(parts: str) -> None:
    """Start the parts that are not up; endpoints are in .ragstream/stack.json."""
    console = Console()
    began = time.monotonic()

    def ready(status: ServiceStatus, seconds: float) -> None:
        where = ", ".join(map(str, status.ports))
        console.print(
            f"[green]up[/]  {status.name:<9} port {where:<13} pid {status.pid:<8} {seconds:5.1f} s", highlight=False
        )

    local = _stack()
    with console.status("starting") if console.is_terminal else nullcontext():
        local.up(_split(parts), ready)
    total = sum(status.resident_bytes for status in local.status()) // _MIB
    console.print(
        f"{time.monotonic() - began:.1f} s, {total} MiB resident; endpoints in {_shown(local.endpoints_file)}",
        highlight=False,
    )


@stack.command()
@_parts
@click.option("--purge", is_flag=True, help="Delete the data of the parts as well.")
def down(parts: str, *, purge: bool) -> None:
    """End the parts, and what a crash left of them."""
    ended = _stack().down(_split(parts), remove_data=purge)
    Console().print(f"down: {', '.join(ended)}" if ended else "nothing was up", highlight=False)


@stack.command()
def status() -> None:
    """Show the parts, their ports and their memory."""
    table = Table("part", "state", "pid", "ports", "resident MiB", box=None)
    for part in _stack().status():
        state = "[green]up[/]" if part.up else "[red]down[/]"
        memory = str(part.resident_bytes // _MIB) if part.up else ""
        table.add_row(part.name, state, str(part.pid or ""), ", ".join(map(str, part.ports)), memory)
    Console().print(table if table.row_count else "no part was started here; `ragstream stack up` starts them")


def _stack() -> Stack:
    """Open the working directory's stack."""
    try:
        from local_stack.stack import Stack
    except ModuleNotFoundError as error:
        message = f"the package {error.name} is not installed: run `make setup` in this checkout"
        raise ConfigurationError(message, condition="PACKAGE_MISSING") from error
    return Stack()


def _split(parts: str) -> list[str]:
    return [part.strip() for part in parts.split(",") if part.strip()]


def _shown(path: Path) -> str:
    """Shorten the path where it lies under the working directory."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
