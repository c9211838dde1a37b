"""`ragstream table`, `ragstream rebuild` and `ragstream replay`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import click

from glue_jobs.cli.main import CONFIG

if TYPE_CHECKING:
    from rich.progress import TaskID


@click.command()
@CONFIG
@click.argument("table")
def table(config: str, table: str) -> None:
    """Print the current rows of TABLE from the lake of CONFIG, one JSON object a line, as fresh as `changes`."""
    from glue_jobs.config.pipeline import decode_contexts, load_config
    from lake.history.current import current_rows
    from lake.layout import LakeLayout
    from transforms.values import exact_json

    loaded = load_config(config)
    table_config = loaded.table(table)
    for row in current_rows(LakeLayout(loaded.lake.path), table_config, decode_contexts(loaded)):
        click.echo(exact_json.dumps(row))


@click.command()
@CONFIG
@click.argument("store")
@click.option(
    "--plan", "only_plan", is_flag=True, help="Only count documents and chunks, and estimate tokens and dollars."
)
def rebuild(config: str, store: str, *, only_plan: bool) -> None:
    """Write what STORE lacks from the lake of CONFIG alone, also while the pipeline runs."""
    from glue_jobs.config.pipeline import load_config
    from glue_jobs.operations import checks, rebuild_plan
    from glue_jobs.operations.rebuild import Rebuild
    from glue_jobs.runtime.failures import wrap_failures
    from glue_jobs.runtime.spark.session import open_session
    from schemas.errors import ConfigurationError

    loaded = load_config(config)
    chosen = next((sink for sink in loaded.sinks if sink.name == store), None)
    if chosen is None or loaded.embedding is None:
        raise ConfigurationError(
            f"{config}: there is no store {store!r}, or no embedding to fill it with.",
            condition="STORE_UNKNOWN",
            hint=f"It has {', '.join(sink.name for sink in loaded.sinks) or 'none'}.",
        )
    checks.require(loaded, "lake", f"sink {store}")
    failures = wrap_failures(f"the rebuild of {store}", "What was written stays; run it again to go on.")
    session = partial(open_session, f"ragstream rebuild {loaded.name}", checkpoint=loaded.checkpoint)
    with progress() as on_progress, failures, session() as spark:
        if only_plan:
            plans = rebuild_plan.plan(spark, loaded, chosen, loaded.embedding, on_progress)
            for table_name, planned in plans.items():
                click.echo(f"{table_name}: {planned.sentence}")
            return
        rebuilt = Rebuild(spark, loaded, chosen, loaded.embedding, on_progress).run()
    if rebuilt.refused:
        click.echo(f"{rebuilt.refused} documents are not searchable: the model or the store refuses them", err=True)
    click.echo(
        f"{rebuilt.rows} rows, {rebuilt.written} documents written, {rebuilt.from_cache} vectors from the cache, "
        f"{rebuilt.texts_sent} texts sent to the model"
    )


@click.command()
@CONFIG
@click.option("--stage", type=click.Choice(["decode", "embed", "store"]), help="Only rejects of this stage.")
@click.option("--condition", help="Only rejects of this condition, such as NO_KEY.")
@click.option("--table", help="Only rejects that name this table.")
def replay(config: str, stage: str | None, condition: str | None, table: str | None) -> None:
    """Process the rejects of CONFIG again, after their cause was mended: into the lake, then into the stores.

    Those that are none any more count no longer in `ragstream status`.
    """
    from glue_jobs.config.pipeline import load_config
    from glue_jobs.operations.replay_rejects import replay as replay_rejects
    from glue_jobs.storage import lake_mark
    from lake.landing.replay import Choice

    loaded = load_config(config)
    lake_mark.check(loaded)
    counts = replay_rejects(loaded, Choice(stage, condition, table))
    for name in sorted(counts):
        summary = ", ".join(f"{number} {outcome}" for outcome, number in counts[name].items() if number)
        click.echo(f"{name or 'of no known table'}: {summary or 'nothing to do'}")
    if without := sum(outcomes["without bytes"] for outcomes in counts.values()):
        names = ",".join(sorted(loaded.ruled))
        click.echo(
            f"{without} rejects have no bytes, since `columns` has rules for their table: read them from the stream again by "
            f"`ragstream run {config} --tables {names} --available-now`, then replay once more"
        )
    if not counts:
        click.echo("no rejects that can be replayed")


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, str, int, int], None]]:
    """Show a progress bar on stderr for each table and step; yields the callback that updates them."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def on_progress(table: str, step: str, done: int, total: int) -> None:
            name = f"{table}: {step}"
            if name not in tasks:
                tasks[name] = bar.add_task(name)
            bar.update(tasks[name], completed=done, total=total)

        yield on_progress
