"""`ragstream status`."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from glue_jobs.cli.main import CONFIG

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console


@click.command()
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def status(config: str, *, as_json: bool) -> None:
    """Show lag and freshness by table and store, rejects, pending columns, model calls and cache hits."""
    from glue_jobs.config.pipeline import load_config
    from glue_jobs.status.report import status as collect

    report = collect(load_config(config))
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print(report, config)


def _print(report: dict[str, Any], config: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from glue_jobs.status.outdated import Outdated

    console = Console()
    tables = Table("table", "changes", "rejects", "pending", "lag s", "fresh p50 s", "fresh p99 s", box=None)
    for name, row in report["tables"].items():
        fresh = row["freshness_seconds"]
        cells = (row["changes"], row["rejects"], row["pending"], row["lag_seconds"], fresh["p50"], fresh["p99"])
        tables.add_row(name, *map(_text, cells))
    console.print(tables)
    _print_table_notes(console, report)
    stores = Table("store", "documents", "chunks", "refused", "lag s", "drift", "", box=None)
    for name, row in report["stores"].items():
        cells = (row["documents"], row["chunks"], row["refused"], row["lag_seconds"], row["drift"], _store_state(row))
        stores.add_row(name, *map(_text, cells))
    if report["stores"]:
        console.print(stores)
    for name, row in report["stores"].items():
        if row["outdated"]:
            _print_sentence(console, f"{name}: {Outdated(**row['outdated']).sentence(config, name)}")
    model = report["embedding"]
    console.print(
        f"model: {model['requests']} requests, {model['texts']} texts, {model['tokens']} tokens, "
        f"{model['cache_hits']} cache hits, ${model['spend_usd']:.4f}",
        highlight=False,
    )
    for name, row in report["budgets"].items():
        _print_sentence(console, _budget(name, row))
    for name, row in report["queries"].items():
        if row["error"]:
            console.print(f"[red]{name}[/]: {row['error']}", highlight=False)


def _print_table_notes(console: Console, report: dict[str, Any]) -> None:
    """Print a sentence for each problem of a table or stream."""
    from glue_jobs.status.table_notes import of_status
    from lake.landing.unconfigured import LeftOut

    for name, row in report["tables"].items():
        for sentence in of_status(name, row):
            _print_sentence(console, sentence)
    for stream in report["unconfigured"]:
        _print_sentence(console, LeftOut(stream["stream"], stream["read"], Counter(stream["tables"])).sentence)


def _store_state(row: dict[str, Any]) -> str:
    """Say whether a store is being filled, behind or in error, and name its inactive index versions."""
    inactive = [f"{state}: {model}" for model, state in (row["model"] or {"others": {}})["others"].items()]
    backfilling = row["backfilling"]
    since = f"backfilling since {time.strftime('%F %T', time.localtime(backfilling['since']))}" if backfilling else ""
    behind = "behind" if row["behind"] else ""
    return "; ".join(filter(None, (row["filling"], since, behind, row.get("error", ""), *inactive)))


def _budget(name: str, row: Mapping[str, Any]) -> str:
    """Say what was spent of a budget, and what the next request waits for."""
    if row["error"]:
        return f"{name}.budget: {row['error']}"
    waiting = f", waiting {row['seconds']:g} s for {row['waiting_for']}" if row["waiting_for"] else ""
    return f"{name}.budget: ${row['dollars_today']:.4f} today{waiting}"


def _print_sentence(console: Console, sentence: str) -> None:
    """Print a sentence unwrapped and without markup."""
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _text(value: object) -> str:
    return "-" if value is None else str(value)
