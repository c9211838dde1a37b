"""Checks of a capture for `ragstream check`: its tables and settings against the database, Kafka Connect or DMS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from glue_jobs.config.pipeline import PipelineConfig, is_configured
from lake.layout import LakeLayout
from schemas.errors import ConfigurationError, UnavailableError
from sources.capture.connect_worker import connector_settings
from sources.capture.debezium import DebeziumCaptureConfig, topic_name, topic_prefix, with_brokers
from sources.capture.dms import DmsCaptureConfig, task_identifier
from sources.capture.dms_task import (
    described_target,
    described_task,
    is_running,
    region_of,
    target_differences,
    task_differences,
)
from sources.capture.engines import ENGINES
from sources.capture.findings import Findings, connector_differences
from sources.capture.names import KnownTable, record_keys
from sources.capture.rendering import CaptureConfig, Details, render
from sources.capture.source import as_recorded, compared
from sources.capture.target import tables_named
from sources.registry.config import ConfluentRegistryConfig
from sources.registry.confluent import compatibility


def check(config: PipelineConfig, capture: CaptureConfig) -> None:
    """Compare with the captured database and the connector; raise one ConfigurationError with every problem.

    Raises UnavailableError when the database does not answer.
    """
    wrong = _findings(config, capture).wrong
    if wrong:
        raise ConfigurationError("\n".join(wrong), condition="CAPTURE_WRONG")


def notes(config: PipelineConfig) -> list[str]:
    """Notes on the captured databases that answer, and on streams with records of tables that are not configured."""
    from lake.landing.unconfigured import left_out

    texts: list[str] = []
    for capture in config.capture:
        try:
            texts += _findings(config, capture).notes
        except UnavailableError:
            continue  # its check reports it
    streams = left_out(LakeLayout(config.lake.path), partial(is_configured, config))
    return [*(f"capture: {text}" for text in texts), *(stream.sentence for stream in streams)]


def completed(config: PipelineConfig, capture: CaptureConfig) -> CaptureConfig:
    """The capture with the brokers of the source that it feeds, where that has some, unless it names its own."""
    source = config.source(capture.source)
    servers = getattr(source, "bootstrap_servers", None)
    if isinstance(capture, DebeziumCaptureConfig) and servers:
        return with_brokers(capture, servers, getattr(source, "options", {}))
    return capture


def tables_and_topics(config: PipelineConfig, capture: CaptureConfig) -> tuple[list[str], list[str]]:
    """The tables of a capture and their topics."""
    source = config.source(capture.source)
    topics = getattr(source, "topics", None) or []
    return [table.table for table in config.tables_of(source.name)], list(topics)


def rendered(
    config: PipelineConfig, capture: CaptureConfig, known: Mapping[str, KnownTable], *, reveal: bool = False
) -> dict[str, Any]:
    """Render a completed capture; `known` are the tables of its database, as far as that answers."""
    source = config.source(capture.source)
    names, topics = tables_and_topics(config, capture)
    tables = as_recorded(capture, config.tables_of(source.name), known, source.registry)
    now = {table: existing.name for table, existing in known.items() if existing.name}
    details = Details(_partitions(config), source.registry, record_keys(tables, known), now)
    return render(capture, config.name, names, topics, details=details, reveal=reveal)


def _partitions(config: PipelineConfig) -> dict[str, tuple[str, ...]]:
    """By table: the names of its partitions, or that it gets."""
    return {table.table: table.partitions for table in config.tables if table.partitions}


def _findings(config: PipelineConfig, capture: CaptureConfig) -> Findings:
    capture, source = completed(config, capture), config.source(capture.source)
    database = compared(capture, config.name, config.tables_of(source.name), source.registry)
    result = database.findings
    for table in database.tables:
        if existing := database.known.get(table.table):
            result.wrong.extend(table.unknown_columns(existing.columns))
    try:
        if isinstance(capture, DebeziumCaptureConfig):
            result.notes.extend(_unread_topics(config, capture, database.known))
            _compare_connector(config, capture, database.known, result)
            result.notes.extend(_refused_schemas(config, capture, database.known))
        else:
            _compare_task(config, capture, result)
    except UnavailableError as error:
        result.notes.append(error.message)
    return result


def _unread_topics(
    config: PipelineConfig, capture: DebeziumCaptureConfig, known: Mapping[str, KnownTable]
) -> Iterator[str]:
    """Notes on topics that the capture writes and the source does not read; a router may have renamed them."""
    _, topics = tables_and_topics(config, capture)
    for topic, table in _topics_written(config, capture, known):
        if topics and topic not in topics:
            yield f"`topics` of the source lacks {topic}, to which the connector sends {table}"


def _topics_written(
    config: PipelineConfig, capture: DebeziumCaptureConfig, known: Mapping[str, KnownTable]
) -> Iterator[tuple[str, str]]:
    """The topics of a connector, each with the name that its table has now."""
    tables, topics = tables_and_topics(config, capture)
    prefix = topic_prefix(capture, config.name, tables_named(tables), topics)
    named = tables_named([(known[table].name if table in known else "") or table for table in tables])
    yield from ((topic_name(prefix, parts), ".".join(parts)) for parts in named)


def _refused_schemas(
    config: PipelineConfig, capture: DebeziumCaptureConfig, known: Mapping[str, KnownTable]
) -> Iterator[str]:
    """A note on subjects of Confluent's registry that refuse schemas which a table may come to have."""
    registry = config.source(capture.source).registry
    if not isinstance(registry, ConfluentRegistryConfig) or capture.converter == "worker":
        return
    topics = [topic for topic, _ in _topics_written(config, capture, known)]
    subjects = [f"{topic}-{part}" for topic in topics for part in ("key", "value")]
    try:
        levels = {subject: compatibility(registry, subject) for subject in subjects}
    except ConfigurationError:
        return  # the check of the source reports it
    for level in sorted(set(levels.values()) - {"NONE"}):
        of_level = ", ".join(subject for subject in subjects if levels[subject] == level)
        yield (
            f"the schema registry's level of compatibility is {level} for {of_level}. It may refuse a column of another type, and"
            " one that is NOT NULL and comes or goes: the connector fails then, and goes on, with nothing lost, once the"
            ' subject\'s level is NONE: PUT /config/SUBJECT {"compatibility": "NONE"}'
        )


def _compare_connector(
    config: PipelineConfig, capture: DebeziumCaptureConfig, known: Mapping[str, KnownTable], result: Findings
) -> None:
    """Compare the connector on the Connect worker, if one is configured; UnavailableError when it does not answer."""
    if not capture.connect_url:
        return
    connector = rendered(config, capture, known)["connector"]
    settings = connector_settings(capture, connector["name"])
    if settings is None:
        result.notes.append(f"the worker has no connector {connector['name']}: `ragstream capture --apply` makes it")
        return
    names = [name for table in config.tables_of(config.source(capture.source).name) for name in table.names]
    listed = [ENGINES[capture.database].listed(table) for table in tables_named(names)]
    differs = connector_differences(settings, connector["config"], listed)
    if differs:
        result.wrong.append(
            f"the connector {connector['name']} is not as this pipeline needs it: {'; '.join(differs)}. "
            f"Run: ragstream capture --apply"
        )


def _compare_task(config: PipelineConfig, capture: DmsCaptureConfig, result: Findings) -> None:
    """Compare the DMS task, if the replication instance's ARN names a Region; UnavailableError when AWS does not answer."""
    region = region_of(capture)
    if region is None:
        return
    import boto3

    name, client = task_identifier(capture, config.name), boto3.client("dms", region_name=region)
    task = described_task(capture, config.name, client)
    if task is None:
        result.notes.append(f"there is no task {name} in {region}: nothing is captured until it is created and started")
        return
    parts, (tables, _) = _partitions(config), tables_and_topics(config, capture)
    expected = rendered(config, capture, {})
    names = tables_named([part for table in tables for part in parts.get(table, (table,))])
    before_image = config.source(capture.source).before_image
    differs = list(task_differences(task, expected["replication_task"], names, before_image))
    if target := described_target(task, client):
        differs += target_differences(target, expected["target_endpoint"])
    if differs:
        result.wrong.append(
            f"the task {name} is not as this pipeline needs it: {'; '.join(differs)}. See: ragstream capture"
        )
    if not is_running(task):
        result.notes.append(f"the task {name} is {task.get('Status', 'not running')}: no change comes from it")
