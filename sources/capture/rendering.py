"""The capture of a pipeline's tables, rendered from its configuration. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, assert_never

from pydantic import Field

from sources.capture.debezium import DebeziumCaptureConfig, connector_for, connector_settings, statements
from sources.capture.dms import DmsCaptureConfig, dms_endpoints, dms_statements, dms_task
from sources.capture.engines.protocol import Statements
from sources.capture.target import tables_named
from sources.registry.config import RegistryConfig

CaptureConfig = Annotated[DebeziumCaptureConfig | DmsCaptureConfig, Field(discriminator="type")]
"""Every way of capture a pipeline can name under `capture`."""


@dataclass(frozen=True)
class Details:
    """What a capture takes beside names of tables and topics."""

    partitions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names of partitions, by partitioned table; or names that the table gets."""
    registry: RegistryConfig | None = None
    """The schema registry of the source."""
    keys: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By table: the columns of its records' keys, where these are not the primary key's."""
    names: Mapping[str, str] = field(default_factory=dict)
    """By table: the name that it has in the database now."""


_NO_DETAILS = Details()


def render(
    config: CaptureConfig,
    pipeline: str,
    tables: Sequence[str],
    topics: Sequence[str] = (),
    *,
    details: Details = _NO_DETAILS,
    reveal: bool = False,
) -> dict[str, Any]:
    """Render the capture of `tables` (`schema.table`) as one JSON document.

    Debezium: `connector` {name, config}. DMS: `source_endpoint`, `target_endpoint`, `replication_task`, the bodies of their
    Create requests. Both: `source_sql`, to be run on the source once before, and where the engine needs them `administrator_sql`
    and, where it has no client here, `check_sql`. Secrets are withheld unless `reveal`, which is for the worker only.
    """
    named = tables_named(tables)
    parts = {table: tables_named(details.partitions.get(".".join(table), ())) for table in named}
    match config:
        case DebeziumCaptureConfig():
            also = {table: [name for name in names if "*" not in name.name] for table, names in parts.items()}
            keys = {
                name: details.keys[".".join(table)]
                for table, others in also.items()
                for name in (table, *others)
                if ".".join(table) in details.keys
            }
            connector = replace(
                connector_for(config, pipeline, named, topics),
                registry=details.registry, keys=keys, also=[name for others in also.values() for name in others],
            )  # fmt: skip
            settings = connector_settings(connector, reveal=reveal)
            existing = replace(connector, tables=tables_named([details.names.get(name, name) for name in tables]))
            return {"connector": {"name": connector.name, "config": settings}, **_sql(statements(existing))}
        case DmsCaptureConfig():
            endpoints = dms_endpoints(config, pipeline, reveal=reveal)
            return {
                "source_endpoint": endpoints["source"],
                "target_endpoint": endpoints["target"],
                "replication_task": dms_task(config, pipeline, parts),
                **_sql(dms_statements(config, parts)),
            }
        case _:
            assert_never(config)


def _sql(needed: Statements) -> dict[str, list[str]]:
    optional = {"administrator_sql": list(needed.administrator), "check_sql": list(needed.check)}
    return {"source_sql": list(needed.source), **{name: sql for name, sql in optional.items() if sql}}


def as_json(rendered: dict[str, Any]) -> str:
    """Write what was rendered for a person to read and a file to keep."""
    return json.dumps(rendered, indent=2, ensure_ascii=False)
