"""`ragstream reconcile`."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from glue_jobs.cli.main import CONFIG

if TYPE_CHECKING:
    from glue_jobs.operations.reconcile import Reconciled


@click.command()
@CONFIG
@click.option("--repair", is_flag=True, help="Write again what differs, and remove orphans (documents the lake lacks).")
@click.option("--force", is_flag=True, help="With --repair: remove orphans, however many there are.")
@click.option("--store", help="One store of the configuration; default: all.")
@click.option("--vectors/--no-vectors", default=True, help="Compare the values of vectors, or only that they exist.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def reconcile(config: str, *, repair: bool, force: bool, store: str | None, vectors: bool, as_json: bool) -> int:
    """Compare the stores of CONFIG with its lake, also while the pipeline runs; exit 1 when drift is left."""
    from glue_jobs.cli.lake import progress
    from glue_jobs.config.pipeline import load_config
    from glue_jobs.operations import checks
    from glue_jobs.operations.reconcile import Reconcile, differences
    from glue_jobs.runtime.failures import wrap_failures
    from glue_jobs.runtime.spark.session import open_session
    from glue_jobs.status import drift
    from schemas.errors import ConfigurationError

    loaded = load_config(config)
    chosen = [sink for sink in loaded.sinks if store in {None, sink.name}]
    if not chosen or loaded.embedding is None:
        raise ConfigurationError(
            f"{config}: there is no store{f' {store!r}' if store else ''} to compare with the lake.",
            condition="STORE_UNKNOWN",
            hint=f"It has {', '.join(sink.name for sink in loaded.sinks) or 'none'}.",
        )
    checks.require(loaded, "lake", *(f"sink {sink.name}" for sink in chosen))
    done: dict[str, Reconciled] = {}
    failures = wrap_failures("the comparison", "Nothing but repairs was written; run it again.")
    session = partial(open_session, f"ragstream reconcile {loaded.name}", checkpoint=loaded.checkpoint)
    with progress() as on_progress, failures, session() as spark:
        for sink in chosen:
            work = Reconcile(spark, loaded, sink, loaded.embedding, on_progress, vectors)
            done[sink.name] = work.run(repair=repair, force=force)
            remaining = {kind: n for kind, n in done[sink.name].left.items() if kind != "refused"}
            drift.record(loaded.checkpoint, sink.name, remaining)
    if as_json:
        click.echo(json.dumps({"stores": {name: _to_json(result) for name, result in done.items()}}))
    else:
        _print(done, repair=repair)
    return 1 if any(differences(result.left) for result in done.values()) else 0


def _to_json(result: Reconciled) -> dict[str, Any]:
    return asdict(result) | {"rows_read_ratio": round(result.rows_read / result.rows, 3) if result.rows else None}


def _print(done: dict[str, Reconciled], *, repair: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from glue_jobs.operations.reconcile import differences

    console = Console()
    kinds = list(next(iter(done.values())).drift)
    extra = ("repaired", "removed", "left") if repair else ()
    table = Table("store", "rows", "read", *kinds, *extra, "s", box=None)
    for name, result in done.items():
        repair_counts = (result.repaired, result.removed, differences(result.left)) if repair else ()
        cells = (result.rows, result.rows_read, *result.drift.values(), *repair_counts, round(result.seconds, 1))
        table.add_row(name, *map(str, cells))
    console.print(table)
    for name, result in done.items():
        for example in result.examples:
            console.print(f"{name}: {example['kind']} {example['table']} {example['document_id']}", highlight=False)
        for note in result.notes:
            console.print(f"{name}: {note}", highlight=False)
