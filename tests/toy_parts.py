"""A toy of every kind of part, and what each needs in a copy of the tree: its files, a line at each listed place.

`CONTRIBUTING.md` has the lists. A line is put in by what stands around it, so that it survives changes beside it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOYS = Path(__file__).with_name("toys")
LISTS = ROOT / "CONTRIBUTING.md"


@dataclass(frozen=True)
class Line:
    """A line of the tree, changed once: what matches `around` becomes `text`."""

    place: str
    around: str
    text: str

    def put(self, tree: Path) -> None:
        file = tree / self.place
        changed, times = re.subn(self.around, self.text, file.read_text(), count=1, flags=re.DOTALL | re.MULTILINE)
        assert times == 1, f"{self.place} has nothing like {self.around!r}"
        file.write_text(changed)


@dataclass(frozen=True)
class Toy:
    """A part of one kind."""

    folder: str
    """What stands for it in place of NAME in the list."""
    files: tuple[str, ...] = ()
    """Its own, as in `tests/toys/`."""
    lines: tuple[Line, ...] = ()
    without: Mapping[str, str] | None = None
    """Listed places that the toy does not touch, and why."""

    @property
    def touched(self) -> set[str]:
        return {*self.files, *(line.place for line in self.lines)}


def arm(place: str, function: str, text: str) -> Line:
    """An arm of the `match` in a function, before the last one."""
    return Line(place, rf"(^def {function}\(.*?)(^        case _:$)", rf"\1{text}\2")


def opened(function: str, like: str, config: str, module: str, name: str) -> Line:
    """An arm that opens a store as another one is opened."""
    text = rf"        case {config}():\n            from {module} import {name}\n\n            return {name}\2\n"
    return Line(
        "sinks/__init__.py", rf"(^def {function}\(.*?return {like}(\(.*?\)).*?)(^        case _:$)", rf"\1{text}\3"
    )


def imported(place: str, name: str, module: str) -> Line:
    """An import, behind the first one."""
    return Line(place, r"^(from __future__ import annotations\n)", rf"\1from {module} import {name}\n")


def member(place: str, union: str, name: str, module: str) -> tuple[Line, Line]:
    """A configuration's class, imported into the union that its section is read by."""
    return imported(place, name, module), Line(place, rf"({union} = Annotated\[)", rf"\1{name} | ")


EVERY_PART = Toy(
    "toy",
    lines=(
        Line("pyproject.toml", r"^(all = \[\"ragstream\[)", r'toy = ["toyclient"]\n\1toy,'),
        Line("glue_jobs/runtime/extras.py", r"^(EXTRAS = \{\n)", r'\1    "toyclient": ("toy",),\n'),
        Line(
            "glue_jobs/config/json_schema.py",
            r"^(_DURATIONS = \(\n)",
            r'\1    ("ToyStoreConfig", "deadline"), ("ToyViewConfig", "deadline"),\n',
        ),
        Line(
            "docs/configuration.md",
            r"\Z",
            "\n### toys\n\n"
            + "".join(
                f"| `{key}` | text | required | |\n"
                for key in (
                    "toy_memory",
                    "toy_table",
                    "toy_view",
                    "toy_file",
                    "toy_key",
                    "toy_opinion",
                    "toy_taste",
                    "toy_word",
                )
            ),
        ),
        Line(
            "tests/unit/test_transport.py",
            r"^(PLAIN: dict\[.*?= \{\n)",
            r'\1    "toy": lambda h: (SinkConfig, {"type": "toy", "toy_table": "t", "dsn": f"host={h} sslmode=disable"}),\n',
        ),
    ),
    without={
        "glue_jobs/config/problems.py": "its keys never had other names",
        "job_configs/schema.json": "it is made by the command",
        "requirements/base.in": "a package is locked that an index has",
        "tests/integration/test_install.py": "no index has its package",
        "README.md": "words",
        "ARCHITECTURE.md": "words",
        "docs/aws.md": "words",
        "CHANGELOG.md": "words",
    },
)

STORE = Toy(
    "toy",
    files=("sinks/toy/config.py", "sinks/toy/writer.py", "sinks/toy/reader.py"),
    lines=(
        *member("sinks/__init__.py", "SinkConfig", "ToyStoreConfig", "sinks.toy.config"),
        opened("open_sink", "PgvectorSink", "ToyStoreConfig", "sinks.toy.writer", "ToySink"),
        opened("open_index", "PgvectorIndex", "ToyStoreConfig", "sinks.toy.reader", "ToyIndex"),
        Line(
            "tests/stores.py",
            r"\Z",
            "\n\ndef toy_store(server: VectorStore, dsn: str) -> Store:\n"
            "    from dataclasses import replace\n\n"
            "    from sinks.toy.config import ToyStoreConfig\n\n"
            "    config = ToyStoreConfig(type='toy', dsn=SecretStr(dsn), toy_table='kb')\n"
            "    return replace(pgvector_store(server, dsn), config=config)\n",
        ),
        Line("tests/contract/conftest.py", r"^(STORES = \[)", r'\1"in_toy", '),
        Line(
            "tests/contract/conftest.py",
            r"\Z",
            "\n\n@pytest.fixture\ndef in_toy(vectors: VectorStore, vectors_dsn: str) -> Store:\n"
            "    from tests.stores import toy_store\n\n"
            "    return toy_store(vectors, vectors_dsn)\n",
        ),
        Line("tests/contract/test_index_contract.py", r"^(NAMED_BY = \{)", r'\1"toy": "toy_table", '),
        Line("tests/contract/test_sink_faults.py", r"^(RECHUNKINGS = \{)", r'\1"in_toy": 60, '),
    ),
    without={
        "sinks/toy/client.py": "the store inside has one",
        "sinks/toy/schema.py": "the store inside has one",
        "sinks/toy/rows.py": "the store inside has one",
        "sinks/toy/meta.py": "the store inside has one",
        "sinks/toy/filtering.py": "the store inside has one",
        "sinks/toy/audit.py": "the store inside has one",
        "local_stack/": "its server is pgvector's",
        "tests/servers.py": "its server is pgvector's",
        "local_stack/demo/store_readers.py": "the demo shows the real stores",
        "local_stack/demo/stores.py": "the demo shows the real stores",
        "tests/integration/test_search.py": "it searches a whole helpdesk",
        "benchmarks/stores.py": "there is nothing to measure",
        "benchmarks/bulk_paths.py": "there is nothing to measure",
        "converge/scratch.py": "histories reach the real stores",
        "tests/e2e/every_recording.py": "histories reach the real stores",
    },
)

READER = Toy(
    "toyview",
    files=("sinks/toyview/config.py", "sinks/toyview/reader.py"),
    lines=(
        *member("sinks/__init__.py", "SinkConfig", "ToyViewConfig", "sinks.toyview.config"),
        arm(
            "sinks/__init__.py",
            "open_sink",
            "        case ToyViewConfig():\n            raise NotImplementedError('another pipeline fills this store')\n",
        ),
        opened("open_index", "PgvectorIndex", "ToyViewConfig", "sinks.toyview.reader", "ToyViewIndex"),
    ),
    without={
        "tests/contract/test_index_contract.py": "its index is the toy store's",
        "tests/integration/test_search.py": "it searches a whole helpdesk",
    },
)

EMBEDDER = Toy(
    "toy",
    files=("embeddings/toy/config.py", "embeddings/toy/embedder.py"),
    lines=(
        Line("embeddings/bedrock/codecs.py", r"^(CODECS: .*?= \{\n)", r'\1    "toy.embed": TitanTextV2(),\n'),
        *member("embeddings/__init__.py", "EmbeddingConfig", "ToyEmbeddingConfig", "embeddings.toy.config"),
        arm(
            "embeddings/__init__.py",
            "open_embedder",
            "        case ToyEmbeddingConfig():\n"
            "            from embeddings.toy.embedder import ToyEmbedder\n\n"
            "            return ToyEmbedder(config)\n",
        ),
        Line("embeddings/registry.py", r"^(_SECRETS = \()", r'\1"toy_key", '),
        Line("embeddings/prices.py", r"^(PRICES: .* = \{\n)", r'\1    "toy-words": Price(0.5),\n'),
        Line("retrieval/ranking/fusion.py", r"^(RELEVANCE = \{)", r'\1"toy-words": MINILM, '),
        Line("tests/contract/test_embedder_contract.py", r"(params=\[\*FAMILIES, )", r'\1"toy", '),
        Line(
            "tests/contract/test_embedder_contract.py",
            r"^(def embedder\(.*?\n)",
            r'\1    if request.param == "toy":\n'
            r'        return opened({"type": "toy", "model": "toy-words", "dimensions": 16, "toy_key": "k"})\n',
        ),
    ),
    without={
        "embeddings/sagemaker/codecs.py": "it is in no container",
        "embeddings/sagemaker/config.py": "it is in no container",
        "glue_jobs/operations/migrate/target.py": "a toy is moved to by a file",
        "local_stack/models/": "it answers inside the process",
    },
)

TEXT_MODEL = Toy(
    "toy",
    files=("generation/toy/config.py", "generation/toy/generator.py"),
    lines=(
        imported("generation/__init__.py", "ToyGenerationConfig", "generation.toy.config"),
        Line("generation/__init__.py", r"^(type TextModelConfig = (?:Annotated\[)?)", r"\1ToyGenerationConfig | "),
        arm(
            "generation/__init__.py",
            "open_generator",
            "        case ToyGenerationConfig():\n"
            "            from generation.toy.generator import ToyGenerator\n\n"
            "            return ToyGenerator(config)\n",
        ),
        Line("tests/contract/test_generator_contract.py", r"(params=\[)(\*KINDS\])", r'\1"toy", \2'),
        Line(
            "tests/contract/test_generator_contract.py",
            r"^(def generator\(.*?\n)",
            r'\1    if request.param == "toy":\n'
            r'        toy = {"type": "toy", "toy_opinion": "A kite is red"}\n'
            r"        return open_generator(TypeAdapter(TextModelConfig).validate_python(toy))\n",
        ),
    ),
    without={"local_stack/models/": "it answers inside the process"},
)

RERANKER = Toy(
    "toy",
    files=("reranking/toy/config.py", "reranking/toy/reranker.py"),
    lines=(
        *member("reranking/__init__.py", "RerankingConfig", "ToyRerankingConfig", "reranking.toy.config"),
        arm(
            "reranking/__init__.py",
            "open_reranker",
            "        case ToyRerankingConfig():\n"
            "            from reranking.toy.reranker import ToyReranker\n\n"
            "            return ToyReranker(config)\n",
        ),
        Line("tests/contract/test_reranker_contract.py", r"(params=\[)(\*KINDS\])", r'\1"toy", \2'),
        Line(
            "tests/contract/test_reranker_contract.py",
            r"^(def reranker\(.*?\n)",
            r'\1    if request.param == "toy":\n'
            r'        toy = {"type": "toy", "toy_taste": "kite"}\n'
            r"        return open_reranker(TypeAdapter(RerankingConfig).validate_python(toy))\n",
        ),
    ),
    without={"local_stack/models/": "it answers inside the process"},
)

_NONE = "        case ToySourceConfig():\n            return None\n"
_INSIDE = "        case ToySourceConfig():\n            return {function}(config.inside{arguments})\n"
SOURCE = Toy(
    "toy",
    files=("sources/toy/config.py", "sources/toy/source.py"),
    lines=(
        *(
            imported(place, "ToySourceConfig", "sources.toy.config")
            for place in (
                "sources/__init__.py",
                "sources/feeds.py",
                "sources/positions.py",
                "sources/retained.py",
                "glue_jobs/continuous/query.py",
                "glue_jobs/continuous/start_positions.py",
                "glue_jobs/continuous/backfills.py",
            )
        ),
        Line("sources/__init__.py", r"^(SourceConfig = Annotated\[)", r"\1ToySourceConfig | "),
        arm(
            "sources/__init__.py",
            "check",
            "        case ToySourceConfig():\n"
            "            from sources.toy import source as toy\n\n"
            "            toy.check(config)\n",
        ),
        arm(
            "sources/__init__.py",
            "read_stream",
            "        case ToySourceConfig():\n"
            "            from sources.toy import source as toy\n\n"
            "            return toy.read_stream(spark, config, starts=starts)\n",
        ),
        arm("sources/__init__.py", "caught_up_probe", _NONE),
        arm("sources/feeds.py", "open_feed", "        case ToySourceConfig():\n            raise _no_feed(config)\n"),
        arm("sources/feeds.py", "refreshed", "        case ToySourceConfig():\n            raise _no_feed(config)\n"),
        arm(
            "sources/positions.py", "positions_in", "        case ToySourceConfig():\n            return dict(offset)\n"
        ),
        arm("sources/positions.py", "ends", _INSIDE.format(function="ends", arguments=", read")),
        arm("sources/positions.py", "records_after", _NONE),
        arm("sources/positions.py", "is_read", _INSIDE.format(function="is_read", arguments=", place")),
        arm("sources/retained.py", "holds", _INSIDE.format(function="holds", arguments="")),
        Line(
            "glue_jobs/continuous/query.py",
            r"(^def has_readers\(.*?isinstance\(source, )FilesSourceConfig\)",
            r"\1FilesSourceConfig | ToySourceConfig)",
        ),
        arm(
            "glue_jobs/continuous/start_positions.py",
            "_of_micro_batches",
            "        case ToySourceConfig():\n            identity = None\n",
        ),
        Line(
            "glue_jobs/continuous/backfills.py",
            r"isinstance\(source, FilesSourceConfig\)",
            "isinstance(source, FilesSourceConfig | ToySourceConfig)",
        ),
        Line("tests/contract/test_source_contract.py", r"^(KINDS = \()", r'\1"toy", '),
        Line(
            "tests/contract/test_source_contract.py",
            r"^(def _config\()",
            "class Toys(Files):\n"
            "    def __init__(self, request: pytest.FixtureRequest) -> None:\n"
            "        super().__init__(request)\n"
            '        members = {"type": "toy", "envelope": "toy", "toy_file": str(self.path)}\n'
            "        self.config = _config(**members)\n"
            '        self.broken = _config(**members | {"toy_file": "nowhere"})\n\n\n'
            r"\1",
        ),
        Line("tests/contract/test_source_contract.py", r'(\{"files": Files, )', r'\1"toy": Toys, '),
    ),
    without={
        "sources/loss.py": "Spark's source of files loses nothing",
        "glue_jobs/status/landed.py": "Spark keeps where it began",
        "glue_jobs/operations/capture_checks.py": "no capture feeds it",
        "glue_jobs/operations/converge.py": "its events have Kafka's form",
    },
)

ENVELOPE = Toy(
    "toy",
    files=("transforms/envelopes/toy.py",),
    lines=(
        Line(
            "transforms/envelopes/decode.py",
            r"^(from transforms\.envelopes import )",
            r"from transforms.envelopes import toy\n\1",
        ),
        Line("transforms/envelopes/decode.py", r"^(_DECODE = \{)", r'\1"toy": toy.decode, '),
        Line("transforms/envelopes/decode.py", r"^(_EVENT = \{)", r'\1"toy": toy.read_event, '),
        Line("schemas/records.py", r"^(Envelope = Literal\[)", r'\1"toy", '),
    ),
    without={"tests/cases/": "nobody sends toys"},
)

ENGINE = Toy(
    "toydb",
    files=("transforms/positions/toydb.py", "sources/capture/engines/toydb.py"),
    lines=(
        Line(
            "transforms/positions/__init__.py",
            r"^(from transforms\.positions import )",
            r"from transforms.positions import toydb\n\1",
        ),
        Line(
            "transforms/positions/__init__.py",
            r"^(_POSITIONS: .*?= \{\n)",
            r'\1    "toydb": toydb.source_position,\n',
        ),
        Line(
            "transforms/values/types.py",
            r"^(_BY_NAME: .*?= \{\n)",
            r'\1    "io.toydb.Date": _is("date", date_from_days),\n',
        ),
        *(
            Line(place, r'database: Literal\["postgresql"', 'database: Literal["toydb", "postgresql"')
            for place in ("sources/capture/debezium.py", "sources/capture/dms.py")
        ),
        imported("sources/capture/engines/__init__.py", "ToyDB", "sources.capture.engines.toydb"),
        Line("sources/capture/engines/__init__.py", r"^(ENGINES: .*?= \{\n)", r'\1    "toydb": ToyDB(),\n'),
    ),
    without={
        "transforms/values/times.py": "its dates are those of others",
        "converge/recording.py": "its events stay as they were recorded",
        "transforms/envelopes/placeholders.py": "its log leaves nothing out",
        "sources/capture/source.py": "it has no server to be asked",
        "local_stack/": "it has no server",
        "tests/unit/test_decode_debezium.py": "its order is looked at here",
        "sources/capture/dms_engines.py": "DMS captures no toys",
        "transforms/positions/dms.py": "DMS captures no toys",
        "tests/unit/test_decode_dms.py": "DMS knows no toys",
        "tools/matrix.py": "no test is marked with it",
        "docs/limits.md": "words",
    },
)

SERVER = Toy(
    "toy",
    files=("local_stack/standins/toy/server.py",),
    lines=(
        imported("local_stack/stack.py", "Toy", "local_stack.standins.toy.server"),
        Line("local_stack/stack.py", r"^(_FACTORIES: .*?= \{\n)", r'\1    "toy": lambda _, folder: Toy(folder),\n'),
        Line("local_stack/cli.py", r'("Also: )', r"\1toy, "),
        imported("tests/servers.py", "Toy", "local_stack.standins.toy.server"),
        Line("tests/servers.py", r"^(postgres = _server\()", r"toy = _server(Toy)\n\1"),
        Line(
            "tests/integration/test_local_stack.py",
            r"\Z",
            "\n\ndef test_a_toy_is_killed_and_comes_back(toy: Service) -> None:\n"
            "    toy.kill()\n"
            "    assert not toy.status.up\n"
            "    toy.start()\n"
            "    assert toy.status.up\n",
        ),
    ),
    without={
        "local_stack/servers/": "it is one of ours",
        "pom/": "Python is there",
        "requirements/": "Python is there",
        "Makefile": "Python is there",
        "local_stack/cache.py": "Python is there",
    },
)

MEMORY = Toy(
    "toy",
    files=("memory/toy/config.py", "memory/toy/store.py"),
    lines=(
        *member("memory/__init__.py", "MemoryConfig", "ToyMemoryConfig", "memory.toy.config"),
        arm(
            "memory/__init__.py",
            "open_store",
            "        case ToyMemoryConfig():\n"
            "            from memory.toy.store import ToyMemoryStore\n\n"
            "            return ToyMemoryStore(config)\n",
        ),
        Line(
            "tests/memories.py",
            r"\Z",
            "\n\ndef toy_memory(server: Service, file: str) -> Memory:\n"
            "    from contextlib import nullcontext\n"
            "    from pathlib import Path\n\n"
            "    return Memory(server, {'type': 'toy', 'toy_memory': file}, Path(file).read_text, nullcontext)\n",
        ),
        Line("tests/contract/conftest.py", r"^(MEMORIES = \[)", r'\1"toy_as_memory", '),
        Line(
            "tests/contract/conftest.py",
            r"\Z",
            "\n\n@pytest.fixture\ndef toy_as_memory(vectors: VectorStore, tmp_path_factory: pytest.TempPathFactory) -> Memory:\n"
            "    from tests.memories import toy_memory\n\n"
            "    return toy_memory(vectors, str(tmp_path_factory.mktemp('memory') / 'toy'))\n",
        ),
    ),
    without={
        "memory/toy/client.py": "SQLite needs none",
        "local_stack/": "it has no server",
        "tests/servers.py": "it has no server",
        "benchmarks/memory.py": "nobody measures toys",
    },
)

CALLERS = Toy(
    "toy",
    files=("service/callers/toy/config.py", "service/callers/toy/callers.py"),
    lines=(
        *member("service/callers/__init__.py", "CallersConfig", "ToyCallersConfig", "service.callers.toy.config"),
        arm(
            "service/callers/__init__.py",
            "open_callers",
            "        case ToyCallersConfig():\n"
            "            from service.callers.toy.callers import ToyCallers\n\n"
            "            return ToyCallers(config)\n",
        ),
        Line("tests/contract/test_callers_contract.py", r'(params=\["none", )', r'\1"toy", '),
        Line(
            "tests/contract/test_callers_contract.py",
            r"\Z",
            "\n\n@pytest.fixture\ndef toy_kind() -> Kind:\n"
            "    said = {'authorization': 'Bearer please-ada-7'}\n"
            "    return Kind({'type': 'toy', 'toy_word': 'please'}, lambda: said, 'key')\n",
        ),
    ),
    without={
        "service/http/messages.py": "it is a key",
        "service/callers/protocol.py": "it is a key",
        "integrations/mcp/discovery.py": "no authorization server is behind it",
        "docs/serving.md": "words",
    },
)

TOYS_BY_LIST: Mapping[str, Toy] = {
    "Every part": EVERY_PART,
    "A vector store": STORE,
    "A store's reader": READER,
    "An embedding model": EMBEDDER,
    "A text model": TEXT_MODEL,
    "A reranking model": RERANKER,
    "A memory of conversations": MEMORY,
    "A way of signing in": CALLERS,
    "A source": SOURCE,
    "An envelope": ENVELOPE,
    "A database engine": ENGINE,
    "A local server": SERVER,
}

NAMES: Mapping[str, Sequence[str]] = {
    "A vector store": ("PgvectorConfig", "OpenSearchConfig", "DocumentDBConfig"),
    "A source": ("KafkaSourceConfig", "KinesisSourceConfig", "FilesSourceConfig"),
    "An embedding model": ("BedrockEmbeddingConfig", "LocalEmbeddingConfig"),
    "A memory of conversations": ("DynamoDBMemoryConfig", "DocumentDBMemoryConfig", "MemoryDBConfig"),
    "A text model": ("BedrockGenerationConfig", "BedrockGenerator"),
    "A reranking model": ("BedrockRerankingConfig", "BedrockReranker"),
}
"""What a module calls that decides by the kind of a part."""


def listed() -> dict[str, set[str]]:
    """The places of each list, for its toy."""
    places: dict[str, set[str]] = {}
    for name, text in re.findall(r"^\*\*(.+?)\*\*(.*?)(?=^\*\*|^## )", LISTS.read_text(), re.DOTALL | re.MULTILINE):
        rows = re.findall(r"^\| (`.+?) \| ", text, re.MULTILINE)
        if rows:
            folder = TOYS_BY_LIST[name].folder if name in TOYS_BY_LIST else "NAME"
            first = re.findall(r"`([^`]+)`", text.splitlines()[0])
            own = first if first and first[0].endswith("/") else []
            files = [own[0] + file for file in own[1:]]
            cells = [place for row in rows for place in re.findall(r"`([^`]+)`", row)]
            places[name] = {place.replace("NAME", folder) for place in [*files, *cells]}
    return places


def tree(folder: Path, places: Mapping[str, set[str]]) -> Path:
    """A copy of the product and its tests with all toys in it, by lines at the listed places alone."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("benchmarks/", "tools/", "tests/e2e/")):
            _copy(ROOT / name, folder / name)
    for name, toy in TOYS_BY_LIST.items():
        for file in toy.files:
            if covers(places[name], file):
                _copy(TOYS / file, folder / file)
        for line in toy.lines:
            if covers(places[name], line.place):
                line.put(folder)
    return folder


def covers(places: Iterable[str], place: str) -> bool:
    """Whether a place, or a folder that it is in, is among the listed ones."""
    return any(place == name or (name.endswith("/") and place.startswith(name)) for name in places)


def deciding(name: str) -> Iterator[str]:
    """Modules of the product, outside the parts' own folders, that name a part of a kind."""
    words = re.compile(rf"\b(?:{'|'.join(NAMES[name])})\b")
    listing = subprocess.run(["git", "ls-files", "-z", "*.py"], cwd=ROOT, check=True, capture_output=True).stdout
    for file in filter(None, listing.decode().split("\0")):
        elsewhere = re.match(r"tests/|benchmarks/|(?:sinks|embeddings|generation|memory|reranking|sources)/\w+/", file)
        if not elsewhere and (ROOT / file).is_file() and words.search((ROOT / file).read_text()):
            yield file


def _copy(source: Path, target: Path) -> None:
    """With what is compiled of it, which is valid for a file of the same time and size."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
    for compiled in source.parent.glob(f"__pycache__/{source.stem}.*.pyc") if source.suffix == ".py" else ():
        (target.parent / "__pycache__").mkdir(exist_ok=True)
        shutil.copy2(compiled, target.parent / "__pycache__")
