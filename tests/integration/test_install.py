"""What `pip install` of the wheel gives, with each extra alone, against the live servers.

Each environment is new and empty, but for links to those packages of this test's own environment that the wheel wants: `uv` then
installs the wheel without an index, which it refuses where one is lacking or of another version. So nothing is fetched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import psycopg
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from embeddings import open_embedder
from glue_jobs.config.pipeline import parse_config
from glue_jobs.config.values import substitution
from local_stack.demo.helpdesk import rows
from local_stack.models.service import ModelService
from local_stack.servers.aws import Ministack
from local_stack.servers.kafka import Broker
from local_stack.servers.memorydb import MemoryDB
from local_stack.servers.opensearch import OpenSearch
from local_stack.servers.postgres import SourceDatabase, VectorStore
from local_stack.standins.documentdb.server import DocumentDB
from local_stack.standins.redshift.server import Redshift
from sinks import open_sink
from tests.helpdesk import put
from tests.key_server import AUDIENCE, ISSUER, issuing
from tests.servers import create_stream, new_database, new_document_database, new_index, unique
from tests.warehouse_fixtures import warehouse_config

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
PACKAGES = SETTINGS["tool"]["setuptools"]["packages"]["find"]["include"]
EXTRAS = PROJECT["optional-dependencies"]
SERVES: dict[str, set[str]] = {
    "lake": {"lake"}, "kafka": {"source kafka"}, "kinesis": {"source kinesis"}, "bedrock": {"embedding", "generation"},
    "sagemaker": {"reranking"},
    "documentdb": {"sink documentdb"}, "opensearch": {"sink opensearch"}, "pgvector": {"sink pgvector"},
    "facts": {"facts", "warehouse"}, "redshift": {"warehouse"}, "capture": {"capture kafka"},
    "aws": set(), "registry": set(), "spark": set(), "onnx": set(), "evaluate": set(),
    "dynamodb": set(), "memorydb": {"memory"},
    "langchain": set(), "mcp": set(), "serve": {"serve"}, "pytest": set(),
}  # fmt: skip
"""The parts of `everything` that an extra alone is enough for."""
COMMANDS = {
    "adopt": ["pgvector"], "ask": ["why?"], "evaluate": [str(ROOT / "local_stack/demo/helpdesk/questions.jsonl")],
    "epoch": ["--source", "kafka", "--at", "2026-11-24T10:00:00Z"],
    "explain": ["--source", "kafka", "--event", str(ROOT / "local_stack/demo/helpdesk/questions.jsonl")],
    "mcp": [], "migrate": ["--collect"], "rebuild": ["pgvector"], "reconcile": [], "replay": [],
    "run": [], "search": ["why?"], "serve": [], "status": [], "table": ["public.articles"], "sessions": [],
    "profile": ["--user", "ada"], "forget": ["--user", "ada"],
}  # fmt: skip
"""Commands that more is needed for than the wheel, with arguments behind the configuration."""


RUN_COMMANDS = """
import contextlib, io, json, sys
from glue_jobs.cli.main import main
ends = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main(arguments)
        except SystemExit as ended:
            ends.append([ended.code, err.getvalue()])
print(json.dumps(ends))
"""
"""Runs commands one after the other, and prints the status and the words that each ended with."""


@cache
def installed() -> dict[str, Distribution]:
    return {canonicalize_name(distribution.name): distribution for distribution in distributions()}


def wanted(requirements: Iterable[str]) -> list[Distribution]:
    """Requirements with what they require in turn."""
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        need = waiting.pop()
        for extra in {"", *need.extras}:
            if (name := canonicalize_name(need.name), extra) in seen:
                continue
            seen.add((name, extra))
            needs = map(Requirement, installed()[name].requires or () if name != "ragstream" else ())
            waiting += [
                required for required in needs if required.marker is None or required.marker.evaluate({"extra": extra})
            ]
            if name == "ragstream" and extra:
                waiting += map(Requirement, EXTRAS[extra])
    return [installed()[name] for name in {name for name, _ in seen} if name != "ragstream"]


@dataclass(frozen=True)
class Environment:
    folder: Path

    def run(self, *arguments: str, status: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.started("ragstream", *arguments, status=status, **variables)

    def python(self, program: str, *arguments: str) -> str:
        return self.started("python", "-c", program, *arguments).stdout

    def started(
        self, name: str, *arguments: str, status: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        command, full_environment = [str(self.folder / "bin" / name), *arguments], os.environ | variables
        done = subprocess.run(
            command, cwd=self.folder, env=full_environment, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stdout + done.stderr
        assert done.returncode == status, done.stdout + done.stderr
        return done


def tracked() -> list[str]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    return [name for name in listing.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`make wheel` of the files that git knows, as they stand, where an earlier build left a module that is gone since."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "source" / name)
    gone = folder / "source/build/lib/schemas/gone.py"
    gone.parent.mkdir(parents=True)
    gone.touch()
    # Not those of a `make` above.
    environment = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL"}}
    command = ("make", "-C", folder / "source", "wheel", f"VENV={sys.prefix}", f"DIST={folder}")
    subprocess.run(command, check=True, env=environment, capture_output=True)
    (built,) = folder.glob("ragstream-*.whl")
    return built


@pytest.fixture
def environment(wheel: Path, tmp_path: Path) -> Callable[..., Environment]:
    def create(*extras: str) -> Environment:
        folder = tmp_path / "environment"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        chosen = wanted([*PROJECT["dependencies"], *(requirement for extra in extras for requirement in EXTRAS[extra])])
        links = {
            distribution: {file.parts for file in distribution.files or () if file.parts[0] != ".."}
            for distribution in chosen
        }
        tops = Counter(top for files in links.values() for top in {parts[0] for parts in files})
        for distribution, files in links.items():
            for parts in {file[: 1 if tops[file[0]] == 1 else 2] for file in files}:  # several share a namespace
                place, target = packages.joinpath(*parts), Path(str(distribution.locate_file(""))).joinpath(*parts)
                place.parent.mkdir(exist_ok=True)
                if parts[0].endswith(".dist-info"):
                    shutil.copytree(target, place)  # uv takes no link for it
                else:
                    place.symlink_to(target)
        subprocess.run(
            [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--offline", "--no-index", "--python",
             folder / "bin" / "python", f"{wheel}[{','.join(extras)}]" if extras else wheel],
            check=True,
        )  # fmt: skip
        return Environment(folder)

    return create


@pytest.fixture(scope="module")
def everything(  # noqa: PLR0917 - a server each
    tmp_path_factory: pytest.TempPathFactory,
    postgres: SourceDatabase,
    kafka: Broker,
    aws: Ministack,
    vectors: VectorStore,
    opensearch: OpenSearch,
    documentdb: DocumentDB,
    redshift: Redshift,
    memorydb: MemoryDB,
    instant_model: ModelService,
) -> Iterator[dict[str, Any]]:
    """A configuration with a part of every type, on live servers."""
    folder, topic = tmp_path_factory.mktemp("everything"), unique("topic")
    kafka.create_topic(topic)
    with ExitStack() as stack:
        databases = [
            stack.enter_context(contextmanager(new_database)(server)) for server in (postgres, vectors, redshift)
        ]
        index = stack.enter_context(contextmanager(new_index)(opensearch))
        documents = stack.enter_context(contextmanager(new_document_database)(documentdb))
        with psycopg.connect(databases[0]) as source:
            source.execute("CREATE TABLE articles (id bigint PRIMARY KEY, title text)")
        yield {
            "name": "everything",
            "source": [
                {"type": "kafka", "envelope": "debezium", "topics": [topic],
                 "bootstrap_servers": kafka.endpoint["bootstrap_servers"]},
                {"type": "kinesis", "envelope": "dms", "stream": create_stream(aws, 1), **aws.endpoint},
            ],
            "capture": {"type": "debezium", "source": "kafka", "dsn": databases[0]},
            "tables": [
                {"table": "public.articles", "source": "kafka", "keys": ["id"], "document": {"template": "{title}"}}
            ],
            "lake": {"path": str(folder / "lake")},
            "checkpoint": str(folder / "checkpoint"),
            "embedding": {"type": "bedrock", "model": "cohere.embed-v4:0", "dimensions": 512, **instant_model.endpoint},
            "generation": {"type": "bedrock", "model": "amazon.nova-lite-v1:0", **instant_model.endpoint},
            "reranking": {"type": "sagemaker", "endpoint": "rerank-1", "model": "a-reranker", **instant_model.endpoint},
            "sinks": [
                {"type": "pgvector", "dsn": databases[1], "table": "helpdesk"},
                {"type": "opensearch", "url": opensearch.endpoint["url"], "index": index, "replicas": 0},
                {"type": "documentdb", "uri": documentdb.endpoint["uri"], "database": documents, "collection": "kb"},
            ],
            "warehouse": (warehouse := warehouse_config(databases[2], aws)),
            "facts": {
                "user": warehouse["user"], "password": warehouse["password"],
                "queries": [{"name": "n", "description": "how many", "sql": "SELECT COUNT(*) AS n FROM articles"}],
            },
            "memory": {"type": "memorydb", "prefix": topic, **memorydb.endpoint},
            "serve": {"callers": {
                "type": "jwt", "issuer": ISSUER, "audience": [AUDIENCE],
                "jwks_url": f"{stack.enter_context(issuing()).url}/jwks.json",
            }},
        }  # fmt: skip
    kafka.delete_topic(topic)


def named(folder: Path, config: dict[str, Any]) -> str:
    file = folder / "everything.json"
    file.write_text(json.dumps(config))
    return str(file)


def missing(text: str) -> dict[str, str]:
    """The extra that is named for each part, or for the command (an empty name), in one line."""
    line = r'^(?:error|  ([a-z ]+)): the package \w+ is not installed: pip install "ragstream\[(\w+)\]"$'
    return dict(re.findall(line, text, re.MULTILINE))


def test_the_wheel_has_the_product_and_nothing_of_an_earlier_build(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    product = {name.partition("/")[0] for name in packed}
    assert product == {pattern.rstrip("*") for pattern in PACKAGES}
    assert packed == {name for name in tracked() if name.partition("/")[0] in product}


def test_the_wheel_alone_helps_renders_and_names_what_is_missing(
    environment: Callable[..., Environment], everything: dict[str, Any], tmp_path: Path
) -> None:
    alone, config = environment(), named(tmp_path, everything)
    listed = re.findall(r"^  ([a-z]+)  ", alone.run("--help").stdout, re.MULTILINE)
    assert {*COMMANDS, "capture", "check", "converge", "stack"} == set(listed)
    program = "for name in sys.argv[1:]: cli.main([name, '--help'], standalone_mode=False)"
    helped = alone.python(f"import sys\nfrom glue_jobs.cli.main import cli\n{program}", *({*listed} - {"stack"}))
    assert helped.count("Usage: ") == len(listed) - 1
    refused = alone.run("stack", "up", status=2).stderr
    assert refused.startswith("error: the package local_stack is not installed: it is no part of the wheel")
    rendered = json.loads(alone.run("capture", config).stdout)
    assert rendered["connector"]["config"]["table.include.list"] == r"public\.articles"
    checked = alone.run("check", config, status=2)
    assert missing(checked.stderr) == {part: extra for extra, parts in SERVES.items() for part in parts}
    commands = [[command, config, *arguments] for command, arguments in COMMANDS.items()]
    for status, refused in json.loads(alone.python(RUN_COMMANDS, json.dumps(commands))):
        parts = missing(refused)
        assert status == 2
        assert parts, refused
        assert set(parts.values()) <= set(EXTRAS)
        # One line, or one more for each part that it needs.
        assert len(refused.splitlines()) == (1 if "" in parts else 1 + len(parts))


# Extras that serve no part by themselves are installed by `make test-long` alone.
@pytest.mark.parametrize(
    "extra", [pytest.param(extra, marks=() if SERVES.get(extra, {"all"}) else pytest.mark.long) for extra in EXTRAS]
)
def test_an_extra_is_enough_for_its_parts(
    environment: Callable[..., Environment], everything: dict[str, Any], tmp_path: Path, extra: str
) -> None:
    checked = environment(extra).run("check", named(tmp_path, everything), status=0 if extra == "all" else 2)
    verdicts = {part: how for how, part in re.findall(r"^(ok|wrong|note) +([a-z ]+)$", checked.stdout, re.MULTILINE)}
    served = SERVES.get(extra, verdicts)  # by `all`, everything
    assert {part: verdicts[part] for part in served} == dict.fromkeys(served, "ok")
    wanting = {part: other for other, parts in SERVES.items() for part in parts if verdicts[part] != "ok"}
    assert missing(checked.stderr) == wanting


@pytest.mark.parametrize("extra", ["mcp", "langchain"])
def test_an_integration_needs_its_own_extra_alone(
    environment: Callable[..., Environment], everything: dict[str, Any], tmp_path: Path, extra: str
) -> None:
    if extra == "langchain":
        imported = "from integrations.langchain import *; print(RagstreamRetriever.__name__)"
        assert environment("langchain").python(imported) == "RagstreamRetriever\n"
        return
    opening = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    asked = [{"id": 1, "method": "initialize", "params": opening}, {"id": 2, "method": "tools/list"}]
    command = environment("mcp").folder / "bin/ragstream"
    with subprocess.Popen(
        [command, "mcp", named(tmp_path, everything), "--user", "ada"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.writelines(json.dumps({"jsonrpc": "2.0", **request}) + "\n" for request in asked)
        server.stdin.flush()
        results = {line["id"]: line["result"] for line in (json.loads(server.stdout.readline()) for _ in asked)}
        server.stdin.close()
    assert server.returncode == 0
    assert [tool["name"] for tool in results[2]["tools"]] == ["search", "ask", "freshness"]


def test_search_and_answers_need_neither_spark_nor_arrow_nor_java(
    environment: Callable[..., Environment], everything: dict[str, Any], tmp_path: Path
) -> None:
    """The instant model's vectors have no meaning, so that any row is relevant here."""
    settings = {
        "sinks": everything["sinks"][:1],
        "retrieval": {"min_similarity": -1.0},
        "generation": {"type": "extractive"},
        "facts": None,
    }
    config = parse_config(json.dumps(everything | settings), "searched", substitution())
    assert config.embedding is not None
    embedder = open_embedder(config.embedding)
    with closing(open_sink(config.sinks[0], embedder.fingerprint, embedder.dimensions)) as sink:
        sink.prepare()
        put(sink, embedder, "public.articles", rows("articles")[:20])
    reading, file = environment("pgvector", "bedrock"), named(tmp_path, everything | settings)
    answer_of_search = json.loads(reading.run("search", file, "passkeys", "--json", PATH="").stdout)
    assert len(answer_of_search["results"]) == 10
    answer = json.loads(reading.run("ask", file, "How do I add a passkey?", "--json", PATH="").stdout)
    assert answer["citations"]
    there = (
        "from importlib.util import find_spec; print(*filter(find_spec, ('pyspark', 'pyarrow', 'deltalake', 'pandas')))"
    )
    assert reading.python(there).strip() == ""
