"""`ragstream converge`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from converge.run import Outcome
    from glue_jobs.operations.converge import OnDone


@click.command()
@click.option(
    "--config", required=True, type=click.Path(), help="The pipeline; its own stores and lake stay as they are."
)
@click.option(
    "--events", multiple=True, required=True, help="FILE of recorded events, one a line, or SOURCE=FILE; repeatable."
)
@click.option("--histories", default=1000, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.option("--seed", type=int, help="Makes the same histories again; default: a fresh one, which is printed.")
@click.option(
    "--store", "stores", multiple=True, help="Only this: fold, lake, warehouse, or a sink's name; repeatable."
)
@click.option("--kill", is_flag=True, help="Kill processes by SIGKILL; else deaths are simulated in one process.")
@click.option("--history", help="One history, as a failing run printed it, in place of those of a seed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def converge(
    config: str, events: tuple[str, ...], histories: int, seed: int | None, stores: tuple[str, ...], history: str | None,
    **flags: bool,
) -> int:  # fmt: skip
    """Put recorded events into histories of every kind, and each configured store through them.

    Shuffled, repeated, cut, killed, replayed: every store must end with the rows that the events mean in their source's own
    order. A history that ends otherwise is made as small as it gets and printed as a test; the exit status is 1 then.
    """
    from converge import report
    from glue_jobs.config.pipeline import load_config
    from glue_jobs.operations.converge import converge as converged
    from glue_jobs.operations.converge import recordings_of, settings_of

    loaded = load_config(config)
    recordings = recordings_of(loaded, events)
    settings, chosen = settings_of(histories, seed, history, kills=flags["kill"])
    with progress(settings.histories) as on_done:
        outcomes = converged(loaded, recordings, settings, stores, chosen, on_done)
    if flags["as_json"]:
        click.echo(json.dumps(report.as_object(outcomes, settings.seed, config, events)))
    else:
        _show(outcomes, settings.seed, config, events)
    return int(any(outcome.failing for outcome in outcomes))


def _show(outcomes: list[Outcome], seed: int, config: str, events: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    from converge import report

    table = Table("store", "histories", "deaths", "ended otherwise", "seconds")
    for o in outcomes:
        table.add_row(o.lane, f"{o.histories:,}", str(o.deaths), str(o.failing), f"{o.seconds:.0f}")
    Console().print(table)
    click.echo(f"seed {seed}: --seed {seed} makes the same histories again")
    for outcome in outcomes:
        for failure in outcome.smallest:
            click.echo(f"\n{report.as_test(failure, str(Path(config)), events)}")


@contextmanager
def progress(histories: int) -> Iterator[OnDone]:
    """On standard error a bar a store, with the time it took; where that is no terminal, a line for each tenth."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TaskID, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TimeElapsedColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}
        through: Counter[str] = Counter()

        def on_done(lane: str, done: int) -> None:
            if lane not in tasks:
                tasks[lane] = bar.add_task(lane, total=histories)
            bar.update(tasks[lane], advance=done)
            before, through[lane] = through[lane], through[lane] + done
            if not console.is_terminal and before * 10 // histories < through[lane] * 10 // histories:
                console.print(f"{lane}: {through[lane]:,} of {histories:,}", highlight=False)

        yield on_done
