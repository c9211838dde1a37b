"""What is wrong is said once, with where and how to mend it, before anything is written: exit 2. What was lost: exit 3."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from local_stack.models.service import ModelService
from local_stack.servers.kafka import Broker
from local_stack.stack import Stack
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.writer import PgvectorSink
from tests.e2e.pipeline import VIEW, Pipeline, embedding, running

SECRET = "geheim-9c1e"
UNREACHABLE = "127.0.0.1:1"

type Case = tuple[Callable[[dict[str, Any]], object], tuple[str, ...]]

CASES: dict[str, Case] = {
    "unknown key": (lambda d: d["lake"].update(pth="x"), ("lake.pth",)),
    "wrong type": (lambda d: d["lake"].update(land_every="soon"), ("lake.land_every", "5s")),
    "missing secret": (lambda d: d["sinks"][0].update(dsn="${secret:nowhere_to_be_found}"), ("nowhere_to_be_found",)),
    "keyless table": (lambda d: d["tables"][0].update(keys=[]), ("keys",)),
    "broker away": (
        lambda d: d.update(source={"type": "kafka", "envelope": "debezium", "bootstrap_servers": UNREACHABLE, "topics": ["t"]}),
        (UNREACHABLE,),
    ),
    "store away": (
        lambda d: d["sinks"][0].update(dsn=f"postgresql://me:{SECRET}@{UNREACHABLE}/db"),
        ("sink pgvector", "dsn"),
    ),
    "model away": (lambda d: d["embedding"].update(endpoint_url=f"http://{UNREACHABLE}"), ("embedding",)),
    "wrong dimensions": (lambda d: d["embedding"].update(dimensions=256), ("512", "256", "dimensions")),
    "other model": (lambda d: d["embedding"].update(model="cohere.embed-v4:0"), ("another model",)),
    "no such file": (lambda d: d["source"].update(path=["away.jsonl"]), ("away.jsonl",)),
}  # fmt: skip
AT_ONCE = (
    ("unknown key", "wrong type", "keyless table"),
    ("missing secret",),
    ("broker away", "store away", "model away"),
    ("wrong dimensions", "no such file"),
    ("other model",),
)
"""What one configuration has of it: all of that is said."""


def configuration(folder: Path, dsn: str, model_url: str) -> dict[str, Any]:
    events = folder / "events.jsonl"
    events.touch()
    return {
        "name": "bad",
        "source": {"type": "files", "format": "kafka", "envelope": "debezium", "path": [str(events)]},
        "tables": [{"table": "public.t", "keys": ["id"], "document": {"template": "{body}"}}],
        "lake": {"path": str(folder / "lake")},
        "checkpoint": str(folder / "checkpoint"),
        "embedding": embedding(model_url),
        "sinks": [{"type": "pgvector", "dsn": dsn, "table": VIEW}],
    }


@pytest.mark.timeout(400)
def test_what_is_wrong_is_said_before_anything_is_written(
    tmp_path: Path, local_stack: Stack, vectors_dsn: str, instant_model: ModelService
) -> None:
    good = configuration(tmp_path, vectors_dsn, instant_model.endpoint["endpoint_url"])
    filled = Pipeline(tmp_path / "filled", good, mark=str(local_stack.directory))
    fill(filled, vectors_dsn)
    checked = filled.command("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr

    def wrong_in(names: tuple[str, ...]) -> str:
        document, wanted = json.loads(json.dumps(good)), list[str]()
        for break_it, words in (CASES[name] for name in names):
            break_it(document)
            wanted += words
        folder = tmp_path / names[0].replace(" ", "-")
        document |= {
            "lake": document["lake"] | {"path": str(folder / "lake")},
            "checkpoint": str(folder / "checkpoint"),
        }
        return problem(Pipeline(folder, document, mark=str(local_stack.directory)), wanted)

    with ThreadPoolExecutor(2) as pool:
        problems = [
            f"{names}: {answer}" for names, answer in zip(AT_ONCE, pool.map(wrong_in, AT_ONCE), strict=True) if answer
        ]
    assert not problems, "\n\n".join(problems)
    assert {name for names in AT_ONCE for name in names} == CASES.keys()
    malformed = Pipeline(tmp_path / "malformed", good, mark=str(local_stack.directory))
    malformed.path.write_text("name: [bad\nsource: {")
    assert not problem(malformed, ("pipeline.yaml",))


def fill(pipeline: Pipeline, dsn: str) -> None:
    """Make the store as the good configuration's model fills it."""
    from embeddings import open_embedder

    embedding_config = pipeline.config.embedding
    assert embedding_config is not None
    embedder = open_embedder(embedding_config)
    sink = PgvectorSink(
        PgvectorConfig(type="pgvector", dsn=SecretStr(dsn), table=VIEW), embedder.fingerprint, embedder.dimensions
    )
    sink.prepare()
    sink.close()


def problem(pipeline: Pipeline, wanted: Sequence[str]) -> str:
    """What is amiss with how `run` refuses a configuration; empty when nothing is."""
    ran = pipeline.start()
    status = ran.wait(150)
    text = ran.log.read_text()
    amiss = [] if status == 2 else [f"exit {status}"]
    amiss += ["a traceback"] if "Traceback" in text else []
    amiss += [f"no word of {word}" for word in wanted if word not in text]
    amiss += ["the password"] if SECRET in text else []
    amiss += ["a table was made"] if list(pipeline.folder.rglob("_delta_log")) else []
    return f"{', '.join(amiss)}: {text[-1500:]}" if amiss else ""


@pytest.mark.timeout(400)
def test_a_topic_made_again_stops_the_job_which_says_what_was_lost(
    tmp_path: Path, local_stack: Stack, kafka: Broker, new_topic: Callable[..., str]
) -> None:
    topic = new_topic(2)
    pipeline = Pipeline(tmp_path / "p", lake_only(tmp_path, kafka, topic), mark=str(local_stack.directory))
    with running(pipeline):
        produce(kafka, topic, 5)
        assert pipeline.drain("--jobs", "land").process.returncode == 0
        assert sum(pipeline.landed().values()) == 5
        kafka.delete_topic(topic)
        kafka.create_topic(topic, 2)
        produce(kafka, topic, 3)
        again = pipeline.start("--jobs", "land")
        assert again.wait() == 3
        log = again.log.read_text()
        assert f"topic {topic} was made again" in log
        assert "ragstream run" in log
        assert "Traceback" not in log
        assert sum(pipeline.landed().values()) == 5


def lake_only(folder: Path, kafka: Broker, topic: str) -> dict[str, Any]:
    servers = kafka.endpoint["bootstrap_servers"]
    return {
        "name": "gone",
        "source": {"type": "kafka", "envelope": "debezium", "bootstrap_servers": servers, "topics": [topic]},
        "tables": [{"table": "public.t", "keys": ["id"]}],
        "lake": {"path": str(folder / "lake"), "land_every": "1s"},
        "checkpoint": str(folder / "checkpoint"),
    }


def produce(kafka: Broker, topic: str, count: int) -> None:
    """Changes of rows, as Debezium tells them."""
    producer = kafka.producer()
    for number in range(count):
        source = {"schema": "public", "table": "t", "sequence": f'["{number}","{number}"]', "ts_us": 1}
        value = {"op": "c", "before": None, "after": {"id": number, "body": "x"}, "source": source}
        producer.produce(topic, json.dumps(value).encode())
    assert producer.flush(30) == 0
