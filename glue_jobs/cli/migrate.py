"""`ragstream migrate`."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import click

from glue_jobs.cli.main import CONFIG

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from glue_jobs.config.pipeline import PipelineConfig
    from glue_jobs.operations.migrate.plan import MigrationPlan


@click.command()
@CONFIG
@click.option("--to", "target", help="The model: an id of the configured type, or a YAML file with an `embedding`.")
@click.option("--dimensions", type=click.IntRange(min=1), help="Of its vectors, where the model offers several.")
@click.option("--plan", "only_plan", is_flag=True, help="Only estimate texts, tokens, dollars and time.")
@click.option("--golden", type=click.Path(), help="A JSONL file of questions that the new model must answer as well.")
@click.option("--back", is_flag=True, help="Roll back to the previous model; before the switch, cancel the migration.")
@click.option("--collect", is_flag=True, help="Drop inactive index versions; a rollback is impossible afterwards.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of sentences.")
def migrate(  # noqa: PLR0913 - one an option
    config: str,
    *,
    target: str | None,
    dimensions: int | None,
    only_plan: bool,
    golden: str | None,
    back: bool,
    collect: bool,
    as_json: bool,
) -> None:
    """Move the stores of CONFIG to another embedding model without downtime; run again, it resumes."""
    from glue_jobs.config.pipeline import load_config

    if sum((target is not None, back, collect)) != 1:
        raise click.UsageError("give one of --to MODEL, --back and --collect")
    loaded = load_config(config)
    _refuse(loaded, config)
    if target is not None:
        result = _move(loaded, target, dimensions, golden, only_plan=only_plan)
    else:
        result = _back(loaded) if back else _collect(loaded)
    click.echo(json.dumps(result) if as_json else "\n".join(_sentences(result)))


def _refuse(config: PipelineConfig, name: str) -> None:
    from glue_jobs.continuous.backfills import Backfills
    from glue_jobs.operations import checks
    from schemas.errors import ConfigurationError

    if config.embedding is None or not config.sinks:
        raise ConfigurationError(
            f"{name}: there is no vector store to move.",
            condition="NO_STORE",
            hint="A pipeline that fills one has an `embedding` and a sink.",
        )
    checks.require(config, "lake", *(f"sink {sink.name}" for sink in config.sinks))
    if lacking := sorted(Backfills(config.checkpoint).read()):
        raise ConfigurationError(
            f"sink {lacking[0]}: it is being backfilled from the lake", condition="STORE_BACKFILLING",
            hint="wait until `ragstream status` calls it `backfilling` no more, then migrate",
        )  # fmt: skip


def _move(
    config: PipelineConfig, target: str, dimensions: int | None, golden: str | None, *, only_plan: bool
) -> dict[str, Any]:
    from embeddings import open_embedder
    from evaluation.golden import read_golden
    from glue_jobs.cli.lake import progress
    from glue_jobs.operations.migrate import plan as migration_plan
    from glue_jobs.operations.migrate.steps import Migration
    from glue_jobs.operations.migrate.target import target_model
    from glue_jobs.runtime.failures import wrap_failures

    to = target_model(config, target, dimensions)
    questions = read_golden(golden) if golden else []
    open_embedder(to).check()
    migration, plan, moved = Migration(config, to, on_step=_print_step), None, {}
    failures = wrap_failures("the migration", "Readers have an answer wherever it stopped; run it again to go on.")
    with failures, progress() as on_progress, ExitStack() as stack:
        spark = cache(partial(_session, config, stack))
        if only_plan or not migration.is_begun():
            plan = migration_plan.plan(spark(), config, to, on_progress)
        if plan is not None and not only_plan:
            click.echo(_plan_sentence(plan), err=True)
        if not only_plan:
            moved = migration.move(spark, questions, on_progress)
    stores = {} if only_plan else {"stores": {name: asdict(counts) for name, counts in moved.items()}}
    return {"model": to.model, "plan": asdict(plan) if plan else None, **stores}


def _print_step(store: str, step: str) -> None:
    click.echo(f"{time.strftime('%T')} {store}: {step}", err=True)


def _session(config: PipelineConfig, stack: ExitStack) -> SparkSession:
    """Open a session that ends with the stack."""
    from glue_jobs.runtime.spark.session import open_session

    return stack.enter_context(open_session(f"ragstream migrate {config.name}", checkpoint=config.checkpoint))


def _back(config: PipelineConfig) -> dict[str, Any]:
    from glue_jobs.operations.migrate.after import cancel, rollback_target
    from glue_jobs.operations.migrate.steps import Migration

    targets = {sink.name: rollback_target(config, sink) for sink in config.sinks}
    if any(target is None for target in targets.values()):
        return {"cancelled": cancel(config, [sink for sink in config.sinks if targets[sink.name] is None])}
    (to, *_) = targets.values()
    assert to is not None  # noqa: S101 - as above
    backfilled = Migration(config, to).back()
    return {"model": to.model, "back": {name: asdict(target) for name, target in backfilled.items()}}


def _collect(config: PipelineConfig) -> dict[str, Any]:
    from glue_jobs.operations.migrate.after import collect, refuse_collect

    for sink in config.sinks:
        refuse_collect(config, sink)
    return {"collected": collect(config, config.sinks)}


def _plan_sentence(plan: MigrationPlan) -> str:
    usd = "at a price that is not known here" if plan.usd is None else f"${plan.usd:.4f}"
    duration = (
        "" if plan.seconds is None else f", about {plan.seconds:.0f} s at {plan.texts_per_second or 0:.1f} texts/s"
    )
    return (
        f"{plan.texts} texts, {plan.cached} of them embedded before; the others: {plan.tokens} tokens, {usd}{duration}"
    )


def _sentences(result: dict[str, Any]) -> list[str]:
    from glue_jobs.operations.migrate.plan import MigrationPlan

    if "cancelled" in result:
        return [f"{name}: migration cancelled, readers never used the new model" for name in result["cancelled"]]
    if "collected" in result:
        return [f"{n}: {len(dropped)} index versions dropped" for n, dropped in result["collected"].items()]
    if "back" in result:
        return [f"{name}: readers use {result['model']} again" for name in result["back"]]
    if "stores" not in result:
        return [_plan_sentence(MigrationPlan(**result["plan"]))]
    sentences = [_moved_sentence(name, counts, result["model"]) for name, counts in result["stores"].items()]
    return [
        *sentences,
        "Set `embedding` to it and start the jobs again, then `--collect`; until then `--back` goes back.",
    ]


def _moved_sentence(name: str, moved: dict[str, Any], model: str) -> str:
    if moved["checked"] is None:
        return f"{name}: readers use {model} already"
    filled, backfilled, checked = moved["filled"] or {}, moved["backfilled"], moved["checked"]
    golden = checked["golden"]
    golden_text = "no golden questions" if golden is None else f"{golden['overlap']:.0%} overlap with the old answers"
    unmeasured = (
        ""
        if checked["is_measured"]
        else ("; `ask` abstains until `ragstream evaluate CONFIG GOLDEN.jsonl --calibrate` has measured the model")
    )
    return (
        f"{name}: readers use {model} (index version {moved['index_version']}); {filled.get('written', 0)} documents filled, "
        f"{backfilled['brought']} backfilled, {checked['recall']:.0%} of {checked['probes']} own texts found, "
        f"{golden_text}{unmeasured}"
    )
