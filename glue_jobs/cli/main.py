"""The `ragstream` command. Every part is imported by the command that needs it, so that `--help` is quick."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import click

from glue_jobs.runtime.extras import not_installed
from schemas.errors import PipelineError, StoppedError

CONFIG = click.argument("config", type=click.Path())


def log_level[F: Callable[..., Any]](default: str) -> Callable[[F], F]:
    """The option `--log-level`."""
    levels = click.Choice(["debug", "info", "warning", "error"])
    return click.option("--log-level", default=default, type=levels, show_default=True)


_COMMANDS = {
    "adopt": ("glue_jobs.cli.adopt:adopt", "Make this pipeline the owner of a store or the warehouse."),
    "ask": ("glue_jobs.cli.ask:ask", "Answer a question from the documents, with citations."),
    "capture": (
        "glue_jobs.cli.capture:capture",
        "Render the capture's configuration; --apply sends it to Kafka Connect.",
    ),
    "check": ("glue_jobs.cli.run:check", "Validate a configuration and connect to every part it names."),
    "converge": (
        "glue_jobs.cli.converge:converge",
        "Put recorded events into histories of every kind, and each store through them.",
    ),
    "epoch": ("glue_jobs.cli.epoch:epoch", "End older rows of tables that were loaded once more."),
    "evaluate": (
        "glue_jobs.cli.evaluate:evaluate",
        "Measure search and answers on labelled questions; --calibrate keeps what follows.",
    ),
    "explain": ("glue_jobs.cli.explain:explain", "Say what an event would do in each store, and why; writes nothing."),
    "forget": ("glue_jobs.cli.memory:forget", "Delete all that is kept of a user, with a receipt."),
    "mcp": ("glue_jobs.cli.mcp:mcp", "Serve the assistant as tools of the Model Context Protocol."),
    "migrate": ("glue_jobs.cli.migrate:migrate", "Move the stores to another embedding model without downtime."),
    "profile": ("glue_jobs.cli.memory:profile", "Show or change a user's profile."),
    "rebuild": ("glue_jobs.cli.lake:rebuild", "Write a store from the lake alone."),
    "reconcile": ("glue_jobs.cli.reconcile:reconcile", "Compare the stores with the lake; --repair repairs them."),
    "replay": ("glue_jobs.cli.lake:replay", "Process rejects again, after their cause was mended."),
    "run": ("glue_jobs.cli.run:run", "Run the pipeline's jobs in one driver."),
    "search": ("glue_jobs.cli.ask:search", "Show what retrieval finds, without an answer."),
    "serve": ("glue_jobs.cli.serve:serve", "Serve the assistant over HTTP, with its page."),
    "sessions": ("glue_jobs.cli.memory:sessions", "List a user's conversations, show or delete one."),
    "stack": ("local_stack.cli:stack", "Start and stop the local servers, in a checkout of the source."),
    "status": ("glue_jobs.cli.status:status", "Show lag, freshness, rejects and model calls."),
    "table": ("glue_jobs.cli.lake:table", "Print a table's current rows from the lake, one JSON object a line."),
}
"""By command: its module and function, and its line of the help."""


class _Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every command."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(_COMMANDS.items())])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ragstream", prog_name="ragstream")
def cli() -> None:
    """Committed rows become cited answers: change data capture to a lake and vector stores, on AWS Glue and Spark.

    Exit status: 0 done · 1 drift, or something of a user, remains · 2 the configuration or a part is wrong, nothing was
    written · 3 the job stopped and says what was lost or refused.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its status; a PipelineError is printed without a traceback."""
    try:
        status: Any = cli.main(arguments, prog_name="ragstream", standalone_mode=False)
    except PipelineError as error:
        click.echo(f"error: {error}{spark_log_hint(error)}", err=True)
        sys.exit(error.exit_status)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except ModuleNotFoundError as error:
        missing = not_installed(error)
        if missing is None:
            raise
        click.echo(f"error: {missing}", err=True)
        sys.exit(missing.exit_status)
    sys.exit(status if isinstance(status, int) else 0)


def spark_log_hint(error: PipelineError) -> str:
    """Name the file with the JVM's output, after a failure with exit status 3."""
    jvm = sys.modules.get("glue_jobs.runtime.spark.jvm")
    path = jvm.log_file() if jvm and error.exit_status == StoppedError.exit_status else None
    return f"\nSpark's own lines are in {path}." if path else ""
