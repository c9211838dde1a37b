"""`ragstream converge` on real stores: recorded histories end as the model says, killed processes go on, faults are found."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from delta import DeltaTable
from pyspark.sql import SparkSession

from converge.run import Settings, planned, run
from glue_jobs.cli.main import cli
from lake.layout import LakeLayout
from local_stack.servers.aws import Ministack
from local_stack.servers.postgres import VectorStore
from schemas.documents import DocumentWrite
from schemas.errors import ConfigurationError
from sinks.protocol import Sink
from tests.converging import OpenLake, OpenStore, histories_of
from tests.recorded import FIXTURES, KEYS
from tests.stores import Store, pgvector_store
from tests.warehouse_fixtures import BUCKET, warehouse_config
from warehouse import batches
from warehouse.config import RedshiftConfig

EVENTS = str(FIXTURES / "pg15_schemas.jsonl")
DOCUMENT = {"template": "{name}\n\n{body}", "metadata": ["m", "s"], "chunk": {"max_tokens": 60}}
TABLES = ("inv.items", "inv.items_full", "inv.order_lines", "inv.Mixed Case")


def configured(folder: Path, **parts: Any) -> str:
    """A pipeline for the recording, in a file."""
    document: dict[str, Any] = {
        "name": "desk",
        "source": {"type": "files", "format": "kafka", "envelope": "debezium", "path": [EVENTS]},
        "tables": [
            {"table": t, "keys": list(KEYS[t])} | ({"document": DOCUMENT} if "items" in t else {}) for t in TABLES
        ],
        "lake": {"path": str(folder / "lake")},
        "checkpoint": str(folder / "checkpoint"),
    }
    path = folder / "pipeline.json"
    path.write_text(json.dumps(document | parts))
    return str(path)


@pytest.fixture
def store(vectors: VectorStore, vectors_dsn: str) -> Iterator[Store]:
    made = pgvector_store(vectors, vectors_dsn)
    yield made
    made.close()


class Careless:
    """Says that a refused write was written, so that nobody plans it again."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    def write(self, writes: Sequence[DocumentWrite]) -> set[str]:
        self._sink.write(writes)
        return set()


class Forgetful(Careless):
    """Keeps no tombstone."""

    def write(self, writes: Sequence[DocumentWrite]) -> set[str]:
        stale = self._sink.write(writes)
        gone = [write.document_id for write in writes if not write.live and write.document_id not in stale]
        self._sink.remove({name: row.revision for name, row in self._sink.read(gone).items()})
        return stale


@pytest.mark.parametrize("fault", [Careless, Forgetful])
def test_a_store_that_guards_badly_is_found_and_the_history_shrunk(store: Store, fault: Any) -> None:
    recordings = histories_of("pg15_plain")
    histories = planned(recordings, Settings(60, seed=4))
    outcome = run(OpenStore(store, recordings, fault), recordings, histories)
    assert outcome.failing
    assert min(len(failure.history.deliveries) for failure in outcome.smallest) <= 3


def test_histories_end_as_their_source_in_lake_and_warehouse(
    spark: SparkSession, tmp_path: Path, warehouse_dsn: str, aws: Ministack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with rejects that are replayed and deaths at commits; half of the changes are folded by the driver, all by Spark."""
    recordings, settings = histories_of("pg15_schemas"), Settings(100, seed=secrets.randbelow(10**9))
    histories = planned(recordings, settings)
    monkeypatch.setattr(batches, "FEW_CHANGES", sum(len(history.deliveries) for history in histories) * 3 // 4)
    config = RedshiftConfig.model_validate(warehouse_config(warehouse_dsn, aws))
    opened = OpenLake(spark, str(tmp_path), recordings, config)
    outcome = run(opened, recordings, histories)
    assert (outcome.failing, outcome.smallest) == (0, ()), f"seed {settings.seed}"
    assert outcome.deaths
    assert aws.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="staged/converge/").get("Contents", []) == []
    DeltaTable.forPath(spark, LakeLayout(f"{tmp_path}/1").table("inv.items")).delete()
    with psycopg.connect(warehouse_dsn) as connection:
        connection.execute("DELETE FROM desk_1.items__rows")
    assert {failure.lane for failure in opened().failures(histories)} == {"tables", "warehouse"}


# The command and the plugin.


def test_the_command_prints_a_seed_and_refuses_what_it_cannot_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(tmp_path)
    arguments = ["converge", "--config", config, "--store", "fold", "--histories", "20", "--json"]
    assert cli.main([*arguments, "--events", EVENTS, "--seed", "3"], standalone_mode=False) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["seed"], printed["failing"], printed["stores"][0]["histories"]) == (3, 0, 20)
    for events, condition in (
        ("nowhere.jsonl", "EVENTS_UNREADABLE"),
        (str(FIXTURES / "mariadb1011_plain.jsonl"), "NO_EVENTS"),
    ):
        with pytest.raises(ConfigurationError) as raised:
            cli.main([*arguments, "--events", events], standalone_mode=False)
        assert raised.value.condition == condition
    with pytest.raises(ConfigurationError, match="no such store"):
        cli.main([*arguments, "--events", EVENTS, "--store", "elsewhere"], standalone_mode=False)


FAULTY = """
from transforms import fold

def test_own_events(ragstream_converge, monkeypatch):
    ragstream_converge({config!r}, [{events!r}], histories=60, stores=["fold"])
    monkeypatch.setattr(fold, "carried", lambda *_: fold.EMPTY)
    ragstream_converge({config!r}, [{events!r}], seed=2, stores=["fold"])
"""


def test_a_suite_of_ones_own_fails_with_the_smallest_history(tmp_path: Path) -> None:
    config = configured(tmp_path)
    (tmp_path / "test_own.py").write_text(FAULTY.format(config=config, events=EVENTS))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "test_own.py",
        "-q",
        "-p",
        "no:cacheprovider",
        "--converge-histories",
        "60",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "of 60 histories (seed 2)" in done.stdout
    assert "history='{" in done.stdout
