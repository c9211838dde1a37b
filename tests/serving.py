"""The service as its own process, and its clients."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from embeddings import open_embedder
from glue_jobs.config.pipeline import PipelineConfig, parse_config
from glue_jobs.config.values import Substitution
from sinks import open_sink
from tests.helpdesk import delete, put
from tests.servers import unique
from transforms.documents.planning import DocumentSpec

if TYPE_CHECKING:
    from retrieval.parts import Pipeline

EVENTS = {"Accept": "text/event-stream"}
PATIENCE = httpx.Timeout(60)


@dataclass
class Served:
    """A running service."""

    url: str
    process: subprocess.Popen[str]
    log: Path
    headers: dict[str, str] = field(default_factory=dict)

    def client(self, headers: Mapping[str, str] | None = None) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={**self.headers, **(headers or {})}, timeout=PATIENCE)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers={**self.headers, **headers}, timeout=PATIENCE)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers={**self.headers, **headers}, timeout=PATIENCE)

    def events(self, path: str, body: Any, **headers: str) -> list[tuple[str, Any]]:
        """All events of a stream."""
        with self.streaming(path, body, **headers) as (response, events):
            assert response.status_code == 200, response.read()
            return list(events)

    @contextmanager
    def streaming(
        self, path: str, body: Any, **headers: str
    ) -> Iterator[tuple[httpx.Response, Iterator[tuple[str, Any]]]]:
        """A stream while it is open."""
        with (
            self.client(EVENTS | headers) as client,
            client.stream("POST", path, json=body) as response,
        ):
            yield response, events_of(response)

    def metric(self, name: str, **labels: str) -> float:
        """A metric's value; 0 for one that was never counted."""
        having = "".join(f'(?=[^}}]*{label}="{re.escape(value)}")' for label, value in labels.items())
        pattern = rf"^{name}(?:\{{{having}[^}}]*\}})? (\S+)$" if labels else rf"^{name} (\S+)$"
        return sum(map(float, re.findall(pattern, self.get("/metrics").text, re.MULTILINE)))

    @property
    def threads(self) -> int:
        return int(re.findall(r"Threads:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[0])

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it, and return its status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


def events_of(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in response.iter_lines():
        kind, _, text = line.partition(": ")
        if kind == "event":
            name = text
        elif kind == "data":
            yield name, json.loads(text)


@contextmanager
def serving(document: Mapping[str, Any], folder: Path, command: str = "serve", **headers: str) -> Iterator[Served]:
    """Serve a configuration at a port of the system by a command, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / "served.json", folder / "served.log"
    file.write_text(json.dumps(document))
    program = [sys.executable, "-m", "glue_jobs", *command.split(), str(file), "--port", "0"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            program, stdout=subprocess.PIPE, stderr=stderr, text=True, env=os.environ | {"PYTHONPATH": str(Path.cwd())}
        ) as process,
    ):
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert " at http" in said, said + log.read_text()
            yield Served(said.rpartition(" ")[2].strip().removesuffix("/mcp"), process, log, headers)
        finally:
            process.kill()


NOTES = "public.notes"
DOCUMENT: dict[str, Any] = {
    "template": "{title}\n\n{body}",
    "metadata": ["tenant", "price"],
    "chunk": {"max_tokens": 200},
}


def pipeline(
    folder: Path, dsn: str, model: Mapping[str, Any], memory: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """A configuration over notes of tenants, each of which sees its own alone; any of its notes is relevant."""
    return {
        "name": "notes",
        "source": {"type": "files", "format": "kafka", "envelope": "debezium", "path": [str(folder / "none.jsonl")]},
        "tables": [{"table": NOTES, "keys": ["id"], "document": DOCUMENT}],
        "lake": {"path": str(folder / "lake")},
        "checkpoint": str(folder / "checkpoint"),
        "embedding": {"type": "bedrock", "model": "cohere.embed-v4:0", "dimensions": 512, **model},
        "sinks": [{"type": "pgvector", "dsn": dsn, "table": "notes"}],
        "access": {"tenant": "${claim:tenant}"},
        "retrieval": {"min_similarity": -1},
        "memory": {
            "type": "memorydb", "prefix": unique("notes"), "busy_timeout": "5s", "timeout_seconds": 2.0,
            "profile": {"plan": {"type": "text", "description": "what is paid for"}, "hubs": {"type": "integer"}}, **memory,
        },
        **more,
    }  # fmt: skip


def parsed(document: Mapping[str, Any]) -> PipelineConfig:
    return parse_config(json.dumps(document), "notes.json", Substitution({}, Path("nowhere")))


def note(number: int, tenant: str, body: str, price: Any = None) -> dict[str, Any]:
    return {"id": number, "tenant": tenant, "title": f"Note {number}", "body": body, "price": price}


PROBE = "How long is the warranty of a Moss probe?"
"""A question that has another answer for each tenant."""
NOTES_OF_TWO_TENANTS = (
    note(1, "acme", "The warranty of a Moss probe is three years."),
    note(2, "acme", "A Skua mast is painted every spring."),
    note(3, "globex", "The warranty of a Moss probe is nine years."),
)


class Notes:
    """Rows of notes in the store of a pipeline, each written as of a position of its own."""

    def __init__(self, config: Pipeline) -> None:
        assert config.embedding is not None
        self.embedder, self._at = open_embedder(config.embedding), 0
        self.sink = open_sink(config.sinks[0], self.embedder.fingerprint, self.embedder.dimensions)
        self.sink.prepare()
        self._specs = {t.table: DocumentSpec(t.table, t.document) for t in config.tables if t.document}

    def put(self, *rows: dict[str, Any]) -> None:
        self._at += 1
        put(self.sink, self.embedder, NOTES, rows, at=self._at, specs=self._specs)

    def delete(self, *rows: dict[str, Any]) -> None:
        self._at += 1
        delete(self.sink, self.embedder, NOTES, rows, at=self._at, specs=self._specs)


@contextmanager
def written(config: Pipeline, *rows: dict[str, Any]) -> Iterator[Notes]:
    """Notes whose store has these rows, open until the block ends."""
    notes = Notes(config)
    with closing(notes.sink):
        notes.put(*rows)
        yield notes
