"""`make converge`: histories of every recording, in every kind of store at once, with processes that are killed; the report.

Recordings share a pipeline: each is a source, whose tables have its name before theirs.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import click
import pytest

from converge import report
from converge.histories import Recorded
from converge.run import Outcome, Settings
from glue_jobs.cli.converge import progress
from glue_jobs.config.pipeline import PipelineConfig, load_config
from glue_jobs.operations.converge import OnDone, converge, recordings_of
from local_stack.servers.aws import Ministack
from local_stack.servers.opensearch import OpenSearch
from local_stack.standins.documentdb.server import DocumentDB
from tests.recorded import DMS_FIXTURES, FIXTURES, KEYS
from tests.warehouse_fixtures import warehouse_config

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/converge.md"
BEGIN = "## The last run\n"
STORES = {"lake": ["lake", "warehouse"]}
"""Stores of a lane, where it is not the one of its name."""
LONGEST_FIRST = ["lake", "pgvector", "opensearch", "fold", "documentdb"]
PORTIONS = {"documentdb": 4}
"""Runs of a lane one after the other, each in a store of its own: the stand-in has no index, and gets slower with what it has."""
AT_ONCE = 2
"""Lanes side by side: each waits for its server much of the time."""
TEMPLATES = {
    "items": ("{name}\n\n{body}", ["m", "amount"]), "items_full": ("{name}\n\n{body}", ["m", "amount"]),
    "STAFF": ("{NAME}\n\n{BODY}", ["AMOUNT"]), "kinds": ("{tx}\n\n{j}", ["e", "du"]), "order_lines": ("{sku}", ["qty"]),
    "parts": ("{note}\n\n{body}", ["n"]),
}  # fmt: skip


def names_in(event: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The object of an event that names its table, and the members that do; none of an event without a table."""
    if "data" in event:
        return event["data"]["metadata"], ["schema-name", "table-name"]
    value = event["value"]
    payload = value.get("payload", value) if isinstance(value, dict) else {}
    source = payload.get("source")
    if not isinstance(source, dict) or not source.get("table"):
        return {}, []
    schemas = {"postgresql": ["schema"], "oracle": ["schema"], "sqlserver": ["db", "schema"]}
    return source, [*schemas.get(source.get("connector", "postgresql"), ["db"]), "table"]


def renamed(path: Path, folder: Path) -> tuple[Path, set[str]]:
    """A recording whose tables have its name before theirs, and those tables."""
    lines, tables = [], set()
    for line in path.read_text().splitlines():
        event = json.loads(line)
        names, members = names_in(event)
        if members and names.get(members[0]) and names.get(members[-1]):
            tables.add(".".join(names[member] for member in members))
            names[members[0]] = f"{path.stem}_{names[members[0]]}"
        lines.append(json.dumps(event, separators=(",", ":")))
    copy = folder / path.name
    copy.write_text("\n".join(lines) + "\n")
    return copy, tables & KEYS.keys()


def configured(folder: Path, **parts: Any) -> tuple[str, list[str]]:
    """A pipeline of all recordings, in a file, and their events."""
    sources, tables, names, events = [], [], {}, []
    for path in sorted([*FIXTURES.glob("*.jsonl"), *DMS_FIXTURES.glob("*.jsonl")]):
        copy, recorded = renamed(path, folder)
        events.append(f"{path.stem}={copy}")
        form = ("kinesis", "dms") if path.parent == DMS_FIXTURES else ("kafka", "debezium")
        source = {"name": path.stem, "type": "files", "path": [str(copy)]}
        sources.append(source | dict(zip(("format", "envelope"), form, strict=True)))
        for table in sorted(recorded):
            short, name = table.rpartition(".")[2], f"{path.stem}_{table}"
            names[name] = f"{path.stem}_{short}".lower()
            document: dict[str, Any] = {}
            if short in TEMPLATES:
                template, metadata = TEMPLATES[short]
                document = {"document": {"template": template, "metadata": metadata, "chunk": {"max_tokens": 60}}}
            tables.append({"table": name, "keys": list(KEYS[table]), "source": path.stem} | document)
    parts["warehouse"]["names"] = names
    pipeline = {"name": "converge", "source": sources, "tables": tables, "lake": {"path": str(folder / "lake")}}
    written = folder / "pipeline.json"
    written.write_text(json.dumps(pipeline | {"checkpoint": str(folder / "checkpoint")} | parts))
    return str(written), events


@pytest.mark.timeout(3 * 3600)
def test_histories_of_every_recording_converge_in_every_store(  # noqa: PLR0917 - a server each
    request: pytest.FixtureRequest,
    tmp_path: Path,
    vectors_dsn: str,
    warehouse_dsn: str,
    aws: Ministack,
    opensearch: OpenSearch,
    search_index: str,
    documentdb: DocumentDB,
    document_database: str,
) -> None:
    uri = documentdb.endpoint["uri"]
    sinks = [
        {"type": "pgvector", "dsn": vectors_dsn, "table": "kb"},
        {"type": "opensearch", "url": opensearch.endpoint["url"], "index": search_index, "replicas": 0},
        {"type": "documentdb", "uri": uri, "database": document_database, "collection": "kb", "timeout_seconds": 300},
    ]
    model = {"type": "bedrock", "model": "amazon.titan-embed-text-v2:0", "dimensions": 512, "region": "eu-central-1"}
    parts = {"sinks": sinks, "embedding": model, "warehouse": warehouse_config(warehouse_dsn, aws)}
    path, events = configured(tmp_path, **parts)
    config = load_config(path)
    seed = request.config.getoption("--seed") or secrets.randbelow(10**9)
    settings = Settings(request.config.getoption("--histories"), seed, kills=True)
    click.echo(f"seed {seed}")
    recordings = recordings_of(config, events)
    events_in_all = sum(len(recorded.recording.events) for recorded in recordings.values())
    source = f"{len(recordings)} recordings ({events_in_all} events)"
    lanes = request.config.getoption("--lanes").split() or LONGEST_FIRST
    outcomes, began = list[Outcome](), time.monotonic()
    with progress(settings.histories) as on_done, ThreadPoolExecutor(AT_ONCE) as pool:
        running = [pool.submit(delivered, config, recordings, settings, lane, on_done) for lane in lanes]
        for done in as_completed(running):
            if done.exception() is None:
                outcomes.append(done.result())
                click.echo(report.as_markdown(outcomes[-1:]))
                for failure in outcomes[-1].smallest:
                    click.echo(report.as_test(failure, path, events))
                if request.config.getoption("--write-report"):
                    write(outcomes, settings, source, (time.monotonic() - began) / 60)
    for lane in running:
        lane.result()  # the others have ended, and said what they found
    assert {outcome.lane: outcome.failing for outcome in outcomes if outcome.failing} == {}
    assert lanes != LONGEST_FIRST or sum(outcome.deaths for outcome in outcomes) >= settings.histories // 100


def delivered(
    config: PipelineConfig, recordings: Mapping[str, Recorded], settings: Settings, lane: str, on_done: OnDone
) -> Outcome:
    """The histories in a lane; in portions, of seeds that follow each other."""
    portions, stores = PORTIONS.get(lane, 1), STORES.get(lane, [lane])
    size = settings.histories // portions
    parts = [replace(settings, histories=size, seed=settings.seed + number * size) for number in range(portions)]
    first, *others = (converge(config, recordings, part, stores, on_done=on_done)[0] for part in parts)
    return reduce(united, others, first)


def united(one: Outcome, other: Outcome) -> Outcome:
    """The outcome of two portions of a lane."""
    return Outcome(
        one.lane, one.histories + other.histories, one.deaths + other.deaths, one.failing + other.failing,
        (*one.smallest, *other.smallest), one.seconds + other.seconds,
    )  # fmt: skip


def write(outcomes: list[Outcome], settings: Settings, source: str, minutes: float) -> None:
    """Replace the report of the run before in docs/converge.md."""
    kills = sum(outcome.deaths for outcome in outcomes)
    text = (
        f"\n`make converge` on {dt.datetime.now(dt.UTC).date()}, {os.cpu_count()} cores, Python {platform.python_version()}: "
        f"{settings.histories:,} histories of {source}, seed {settings.seed}, {kills} processes killed by SIGKILL, "
        f"{minutes:.0f} minutes, {AT_ONCE} lanes at once. "
        "Every kind of store is a server of its own; Redshift and DocumentDB are stand-ins.\n\n"
    )
    head = DOCUMENT.read_text().partition(BEGIN)[0]
    DOCUMENT.write_text(head + BEGIN + text + report.as_markdown(sorted(outcomes, key=lambda o: o.lane)))
