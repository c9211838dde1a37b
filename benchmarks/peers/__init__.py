"""The systems under the workload: how each is started, and how its target is read."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from glue_jobs.config.pipeline import PipelineConfig
from local_stack.processes import MARK
from transforms.context import key_text
from transforms.documents.planning import document_id

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VENVS = ("flink", "cocoindex", "pathway")
"""Peers with a virtual environment of their own, which `make peers` installs."""
FETCH_INTERVAL_MS = 250
"""Pause between two reads of a shard of Kinesis: the product's own default."""
CONTINUOUS = "continuous" if "continuous" in PipelineConfig.model_fields else "real_time"

_RUN = (sys.executable, "-m", "glue_jobs", "run")


@dataclass(frozen=True)
class Peer:
    """One system. `target` selects id, nonce, status, txt, vec; `create` makes its target table where it cannot itself."""

    name: str
    target: str
    create: tuple[str, ...] = ()
    whole_rows: bool = False
    schemas: tuple[str, ...] = ()
    """The parts of a record (key, value) that contain their schema."""
    copied_key: bool = False
    """Whether the source has a copy of its key, `aid`."""
    primary_key: str = "id"
    """The column of `target` by which its table finds a row."""
    row_name: Callable[[int], Any] = int
    """The value of that column for an id."""

    def command(self, environment: Mapping[str, str]) -> list[str]:
        """The command that runs it until it is stopped; a rival in an environment of its own is its file here.

        `ragstream` is two drivers: one indexes, and one does all else. `ragstream-plain` is the same with `foreachBatch`
        micro-batches over the source's own stream. `ragstream-one` is one driver for all jobs.
        """
        if self.name in VENVS:
            return [str(python_of(self.name)), "-P", str(HERE / f"{self.name}.py")]
        if self.name == "spark":
            return [sys.executable, "-m", "benchmarks.peers.plain_spark"]
        config = Path(environment["WORK_DIR"]) / "pipeline.yaml"
        plain = {CONTINUOUS: False} if self.name == "ragstream-plain" else {}
        config.write_text(yaml.safe_dump(pipeline(environment) | plain))
        return [*_RUN, str(config)] if self.name == "ragstream-one" else two_drivers(config)


def python_of(name: str) -> Path:
    """The interpreter of a peer's own environment."""
    return ROOT / f".venv/{name}/bin/python"


def two_drivers(config: Path) -> list[str]:
    """The command of a driver for `index`, and one under `nice` for all other jobs, in the group `lake`."""
    others = shlex.join([*_RUN, str(config), "--jobs", "land,merge,load"])
    index = shlex.join([*_RUN, str(config), "--jobs", "index"])
    return ["sh", "-c", f'{MARK}="${MARK}/lake" nice {others} & exec {index}']


def pipeline(environment: Mapping[str, str]) -> dict[str, Any]:
    """Our configuration for the workload."""
    folder = Path(environment["WORK_DIR"])
    source: dict[str, Any] = {
        "type": "kafka", "envelope": "debezium", "bootstrap_servers": environment["BOOTSTRAP"],
        "topics": [environment["TOPIC"]],
    }  # fmt: skip
    if "STREAM" in environment:
        source = {
            "type": "kinesis", "envelope": "dms", "stream": environment["STREAM"], "region": environment["AWS_REGION"],
            "endpoint_url": environment["AWS_ENDPOINT_URL"], "access_key": environment["AWS_ACCESS_KEY_ID"],
            "secret_key": environment["AWS_SECRET_ACCESS_KEY"], "fetch_interval_ms": FETCH_INTERVAL_MS,
        }  # fmt: skip
    document = {"template": "{title}\n\n{body}", "metadata": ["status", "nonce"]}
    embedding = {
        "type": "bedrock", "model": "cohere.embed-v4:0", "dimensions": 512, "endpoint_url": environment["MODEL_URL"],
        "access_key": "local", "secret_key": "local",
    }  # fmt: skip
    return {
        "name": "bench",
        "source": source,
        "tables": [{"table": "public.articles", "keys": ["id"], "document": document}],
        "lake": {"path": str(folder / "lake"), "land_every": "5s", "merge_every": "30s"},
        "embedding": embedding,
        "sinks": [{"type": "pgvector", "dsn": environment["TARGET_DSN"], "table": "bench"}],
        "checkpoint": str(folder / "checkpoint"),
    }


_PGVECTOR = "CREATE EXTENSION IF NOT EXISTS vector"
_FLINK_TABLE = (
    _PGVECTOR,
    """CREATE TABLE flink_articles (id bigint PRIMARY KEY, status text, nonce bigint, txt text,
                                    vec_text text, vec vector(384))""",
    "CREATE INDEX ON flink_articles USING hnsw (vec vector_cosine_ops)",
    """CREATE FUNCTION cast_vec() RETURNS trigger LANGUAGE plpgsql AS
       'BEGIN new.vec := new.vec_text::vector; RETURN new; END'""",
    """CREATE TRIGGER cast_vec BEFORE INSERT OR UPDATE ON flink_articles
       FOR EACH ROW EXECUTE FUNCTION cast_vec()""",
)
_PATHWAY_TABLE = (
    _PGVECTOR,
    "CREATE TABLE pathway_articles (aid bigint PRIMARY KEY, status text, nonce bigint, txt text, vec vector(384))",
    "CREATE INDEX ON pathway_articles USING hnsw (vec vector_cosine_ops)",
)
_OURS = (
    "SELECT document_id, (key->>'id')::bigint AS id, (metadata->>'nonce')::bigint AS nonce, "
    "metadata->>'status' AS status, chunk_text AS txt, embedding AS vec FROM bench"
)


def _document(number: int) -> str:
    return document_id("public.articles", key_text(["id"], {"id": number}) or "")


PEERS = {
    peer.name: peer
    for peer in (
        *(
            Peer(name, _OURS, schemas=("value",), primary_key="document_id", row_name=_document)
            for name in ("ragstream", "ragstream-plain", "ragstream-one")
        ),
        Peer(
            "flink",
            "SELECT id, nonce, status, txt, vec FROM flink_articles",
            _FLINK_TABLE,
            whole_rows=True,
        ),
        Peer("spark", "SELECT id, nonce, status, txt, vec FROM plain_articles"),
        Peer("cocoindex", "SELECT id, nonce, status, txt, vec FROM coco_articles", (_PGVECTOR,)),
        Peer(
            "pathway",
            "SELECT aid AS id, aid, nonce, status, txt, vec FROM pathway_articles",
            _PATHWAY_TABLE,
            whole_rows=True,
            schemas=("key", "value"),
            copied_key=True,
            primary_key="aid",
        ),
    )
}
