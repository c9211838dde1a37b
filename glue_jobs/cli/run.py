"""`ragstream check` and `ragstream run`."""

from __future__ import annotations

import click

from glue_jobs.cli.main import CONFIG, log_level
from glue_jobs.runtime.jobs import JOBS, listed
from schemas.errors import PipelineError, UnavailableError


@click.command()
@CONFIG
def check(config: str) -> None:
    """Validate CONFIG, connect to every part it names, and say what is wrong and how to mend it."""
    from glue_jobs.config.pipeline import load_config
    from glue_jobs.operations import capture_checks, checks
    from glue_jobs.operations.migrate.stores import migration_note, outdated_note
    from glue_jobs.status import table_notes
    from glue_jobs.status.outdated import chunk_notes
    from retrieval.commands import unmeasured
    from retrieval.facts.notes import left_out

    loaded = load_config(config)
    checks_of_parts = checks.parts(loaded)
    results = checks.run(checks_of_parts)
    unreachable = {name: error for name, error in results.items() if _is_unreachable_capture(name, error)}
    for name, error in results.items():
        click.echo(f"{'note ' if name in unreachable else 'ok   ' if error is None else 'wrong'}  {name}")
    checks.refuse({name: error for name, error in results.items() if name not in unreachable})
    compared = {name.removeprefix("capture ") for name in results.keys() - unreachable if name.startswith("capture ")}
    notes = [*capture_checks.notes(loaded), *table_notes.notes(loaded, compared), *chunk_notes(loaded)]
    for text in [*map(str, unreachable.values()), *notes]:
        click.echo(f"note   {text}")
    for sink in loaded.sinks if loaded.embedding is not None else ():
        for note in filter(None, (migration_note(loaded, sink), outdated_note(loaded, sink, config))):
            click.echo(f"note   sink {sink.name}: {note}")
    for warning in (*unmeasured(loaded), *left_out(loaded)):
        click.echo(f"note   {warning}")


def _is_unreachable_capture(name: str, error: PipelineError | None) -> bool:
    """Whether a captured database does not answer: no job needs it, and it may be unreachable from here."""
    return name.startswith("capture ") and isinstance(error, UnavailableError)


def _jobs(_context: click.Context, _parameter: click.Parameter, value: str) -> list[str]:
    chosen = listed(value)
    unknown = [job for job in chosen if job not in JOBS]
    if unknown or not chosen:
        raise click.BadParameter(f"{', '.join(unknown) or 'nothing'} is no job; jobs are {', '.join(JOBS)}")
    return [job for job in JOBS if job in chosen]


@click.command()
@CONFIG
@click.option(
    "--jobs", callback=_jobs, default=",".join(JOBS), show_default=True, help="The jobs to run, comma-separated."
)
@click.option(
    "--tables",
    default="",
    help="Only these tables, comma-separated, from the earliest offsets: for tables that were added later. It keeps offsets"
    " of its own, so it can run beside a live pipeline.",
)
@click.option("--available-now", is_flag=True, help="Drain what is there through every job, then end.")
@click.option("--accept-rejects", is_flag=True, help="Land however many rejects there are; else `rejects` has limits.")
@log_level("info")
def run(
    config: str, jobs: list[str], tables: str, *, available_now: bool, accept_rejects: bool, log_level: str
) -> None:
    """Run the pipeline's jobs in one driver, until it is stopped (Ctrl-C ends after the batches in flight)."""
    from glue_jobs.runtime.spark.script import Options, plans_of, run_pipeline

    options = Options(config, available_now, log_level, tables=listed(tables), accept_rejects=accept_rejects)
    run_pipeline(options, plans_of(jobs))
