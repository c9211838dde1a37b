"""Fixtures of the integration lane."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.models.service import ModelService
from local_stack.servers.aws import Ministack
from local_stack.servers.connect import request_json
from tests.desk_facts import loaded_warehouse, reading_user
from tests.lake_to_store import Lake
from warehouse.config import RedshiftConfig


@pytest.fixture
def ticket_warehouse(warehouse_dsn: str, aws: Ministack) -> RedshiftConfig:
    """A loaded table of tickets (`tests.desk_facts`)."""
    return loaded_warehouse(warehouse_dsn, aws)


@pytest.fixture
def facts_login(warehouse_dsn: str, ticket_warehouse: RedshiftConfig) -> Iterator[dict[str, str]]:  # noqa: ARG001 - it has the schema
    """A user who can read it, and nothing else."""
    with reading_user(warehouse_dsn) as login:
        yield login


@pytest.fixture
def lake(tmp_path: Path, vectors_dsn: str, instant_model: ModelService) -> Iterator[Lake]:
    """An empty lake, a database for its stores, and a model that was asked nothing yet."""
    url = instant_model.endpoint["endpoint_url"]
    request_json(url, "POST", "/reset", {})
    lake = Lake(tmp_path, vectors_dsn, url)
    yield lake
    lake.faults()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A pipeline of one recorded change."""
    row = {"id": 1, "title": "x"}
    source = {"version": "3.5", "connector": "postgresql", "name": "h", "db": "d", "schema": "public", "table": "t"}
    source |= {"ts_ms": 1, "lsn": 7, "sequence": '["5","7"]', "snapshot": "false"}  # type: ignore[dict-item]
    value = {"before": None, "after": row, "source": source, "op": "c", "ts_ms": 1}
    event = {"topic": "h.public.t", "key": {"id": 1}, "value": value, "partition": 0, "offset": 0}
    (tmp_path / "events.jsonl").write_text(json.dumps(event | {"timestamp": 1, "headers": []}) + "\n")
    config = tmp_path / "pipeline.yaml"
    config.write_text(
        f"name: glued\nsource: {{type: files, format: kafka, envelope: debezium, path: [{tmp_path}/events.jsonl]}}\n"
        f"tables: [{{table: public.t, keys: [id]}}]\nlake: {{path: {tmp_path}/lake}}\ncheckpoint: {tmp_path}/checkpoints\n"
    )
    return config


@pytest.fixture(scope="module")
def stub_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Java classes that stand where Glue's are."""
    classes = tmp_path_factory.mktemp("glue")
    subprocess.run(["javac", "-d", classes, *Path(__file__).with_name("glue_stubs").rglob("*.java")], check=True)
    return classes
