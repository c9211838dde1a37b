"""`ragstream explain`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glue_jobs.cli.main import CONFIG

if TYPE_CHECKING:
    from glue_jobs.operations.explain import Explained
    from schemas.records import Record


@click.command()
@CONFIG
@click.option(
    "--event", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with one event as it is in the stream, or with recorded events, one a line.",
)  # fmt: skip
@click.option("--source", help="The source it is of; needed where there are several.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object in place of text.")
def explain(config: str, event: Path, source: str | None, *, as_json: bool) -> None:
    """Say step by step what the records of a file would do in the lake and each store, and why; writes nothing."""
    from glue_jobs.config.pipeline import load_config
    from glue_jobs.operations.explain import explain as explained
    from schemas.errors import ConfigurationError
    from transforms.values import exact_json

    loaded = load_config(config)
    names = [configured.name for configured in loaded.sources]
    if source not in names and (source or len(names) > 1):
        raise ConfigurationError(
            f"{config}: `--source` names none of {', '.join(names)}.", condition="SOURCE_UNKNOWN",
            hint="Name the source that the event is of.",
        )  # fmt: skip
    results = explained(loaded, source or names[0], records_in(event.name, event.read_bytes()))
    if as_json:
        click.echo(exact_json.dumps(json.loads(json.dumps([asdict(result) for result in results], default=str))))
    else:
        _print(results)


def records_in(name: str, content: bytes) -> list[Record]:
    """The records of a file: recorded events, one a line, of Kafka or Kinesis; else one event as it is in the stream."""
    from schemas.records import Record
    from sources.files.recorded import MALFORMED_HEADER, parse_line

    lines = [line for line in content.splitlines() if line.strip()]
    for form in ("kafka", "kinesis"):
        parsed = [parse_line(line, form, name=name, start=at) for at, line in enumerate(lines)]
        if parsed and not any(key == MALFORMED_HEADER for record in parsed for key, _ in record.headers):
            return parsed
    try:
        json.loads(content)
    except ValueError:
        return [Record(name, "0", str(at), None, line) for at, line in enumerate(lines)]
    return [Record(name, "0", "0", None, content.strip())]


def _print(results: list[Explained]) -> None:
    from rich.console import Console
    from rich.markup import escape

    def line(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    console = Console()
    for result in results:
        line(f"[bold]{escape(f'{result.stream}/{result.partition} at {result.position}')}[/]")
        for step in result.steps:
            line(f"  [bold cyan]{escape(step.part)}[/]: {escape(step.outcome)}")
            for reason in step.why:
                line(f"    {escape(reason)}")
            for name, value in step.detail.items():
                if value not in (None, {}, []):
                    shown = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
                    line(f"    [dim]{escape(f'{name}: {shown}')}[/]")
