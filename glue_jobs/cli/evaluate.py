"""`ragstream evaluate`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glue_jobs.cli.main import CONFIG
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from evaluation.evaluate import OnProgress
    from glue_jobs.config.pipeline import PipelineConfig


@click.command()
@CONFIG
@click.argument("golden", type=click.Path(), required=False)
@click.option(
    "--calibrate", is_flag=True, help="Fit thresholds and weights to the questions, and keep them in the store."
)
@click.option("--report", type=click.Path(), help="Write a picture: one HTML file.")
@click.option(
    "--answers/--no-answers", default=True, show_default=True, help="Ask each question, too; a text model costs."
)
@click.option(
    "--draft", type=click.IntRange(min=1), help="Only propose so many questions from the store's rows, one a line."
)
@click.option("--store", help="Name of the store; default: the pipeline's first.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def evaluate(
    config: str, golden: str | None, report: str | None, draft: int | None, store: str | None, **flags: bool
) -> None:
    """Measure search and answers on GOLDEN, a JSONL file of labelled questions."""
    from evaluation import html, table
    from evaluation.evaluate import evaluate as evaluated
    from evaluation.evaluate import questions_of
    from glue_jobs.config.pipeline import load_config

    loaded = load_config(config)
    if draft is not None:
        _propose(loaded, draft, store)
        return
    if golden is None:
        raise click.UsageError("name a file of labelled questions; `--draft 50` proposes some")
    questions, left_out = questions_of(golden)
    if left_out:
        click.echo(f"{left_out} drafts are left out: nobody looked at them", err=True)
    with _progress(2 * len(questions) if flags["answers"] else len(questions)) as on_progress:
        evaluation = evaluated(
            loaded, questions, store, on_progress, keep=flags["calibrate"], with_answers=flags["answers"]
        )
    if report is not None:
        _write(report, html.page(evaluation))
    if flags["as_json"]:
        click.echo(json.dumps(evaluation, ensure_ascii=False))
    else:
        table.show(evaluation)


def _propose(config: PipelineConfig, count: int, store: str | None) -> None:
    from evaluation.draft import drafts
    from generation import open_generator
    from retrieval import ExtractiveConfig
    from retrieval.commands import opened

    worded = config.generation is not None and not isinstance(config.generation, ExtractiveConfig)
    generator = open_generator(config.generation) if worded else None  # type: ignore[arg-type] # it is no extractive one
    with opened(config, store) as index:
        for proposed in drafts(index.searcher(), count, generator):
            click.echo(json.dumps(proposed, ensure_ascii=False))


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--report {path}: it cannot be written: {error.strerror}") from None


@contextmanager
def _progress(total: int) -> Iterator[OnProgress]:
    """A bar on a terminal's standard error; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal) as bar:
        task = bar.add_task("questions", total=total)
        yield lambda what: bar.update(task, advance=1, description=what)
