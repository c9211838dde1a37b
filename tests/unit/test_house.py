"""The rules of the house, as tests: what a reviewer would otherwise have to remember."""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from glue_jobs.runtime.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = (
    "schemas", "transforms", "embeddings", "generation", "reranking", "sources", "lake", "sinks", "memory", "indexing",
    "retrieval", "evaluation", "warehouse", "reader", "service", "integrations", "converge",
    "glue_jobs",
)  # fmt: skip
JOBS = ("land_changes", "merge_tables", "index_documents", "load_warehouse")
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50
MAX_JOB_LINES = 80
MAX_SUPPRESSIONS_PER_1000_LINES = 4
XML_NAMESPACE = 'xmlns="http://maven.apache.org/POM/4.0.0"'


@cache
def tracked() -> tuple[Path, ...]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    return tuple(path for name in listing.decode().split("\0") if name and (path := ROOT / name).is_file())


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def modules(*packages: str) -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py" and named(path).split("/")[0] in packages]


def text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")


def pins(name: str) -> dict[str, str]:
    lines = re.findall(
        r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text(ROOT / f"requirements/{name}.txt"), re.MULTILINE
    )
    return {canonicalize_name(package): version for package, version in lines}


LOCKS = ("build", "base", "service", "local", "models", "ministack", "glue", "dev", "pure", "flink")


# Pinned files


def test_every_jar_that_a_pom_names_is_listed_with_its_hash() -> None:
    for pom in sorted((ROOT / "pom").glob("*.xml")):
        listed = text(pom.with_suffix(".sha256"))
        assert re.fullmatch(r"([0-9a-f]{64}  \S+\n)+", listed)
        named_jars = re.findall(r"<dependency>\s*<groupId>[^<]+</groupId>\s*<artifactId>([^<]+)<", text(pom))
        assert named_jars
        assert not [name for name in named_jars if f"  {name}-" not in listed], pom


@pytest.mark.parametrize("change", ["none", "altered", "missing", "added"])
def test_a_download_that_is_not_what_is_listed_is_refused(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "jars"
    folder.mkdir()
    for name in ("a-1.jar", "b-1.jar"):
        (folder / name).write_bytes(name.encode())
    hashes = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.iterdir())]
    (tmp_path / "list.sha256").write_text("".join(hashes))
    match change:
        case "altered":
            (folder / "a-1.jar").write_bytes(b"other")
        case "missing":
            (folder / "b-1.jar").unlink()
        case "added":
            (folder / "c-1.jar").touch()
        case _:
            pass
    done = subprocess.run([ROOT / "pom/verify.sh", tmp_path / "list.sha256", folder], capture_output=True, check=False)
    assert (done.returncode == 0) == (change == "none")
    assert (b"make lock-jars" in done.stderr) == (change != "none")


def test_pinned_files_name_packages_and_never_an_address() -> None:
    pinned = [path for path in tracked() if re.match(r"(requirements/|pom/|Makefile|\.ci/)", named(path))]
    assert len(pinned) > len(LOCKS)
    assert [named(path) for path in pinned if "://" in text(path).replace(XML_NAMESPACE, "")] == []


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_is_locked_with_hashes(name: str) -> None:
    lines = text(ROOT / f"requirements/{name}.in").splitlines()
    wanted = [Requirement(line) for line in lines if line.strip() and line[0] not in "#-"]
    locked = pins(name)
    assert [
        str(need) for need in wanted if not need.specifier.contains(locked.get(canonicalize_name(need.name), "0"))
    ] == []
    entries = re.split(r"\n(?=\S)", text(ROOT / f"requirements/{name}.txt").strip())
    assert [entry for entry in entries if "==" in entry and "--hash=sha256:" not in entry] == []


def test_one_environment_has_one_version_of_a_package() -> None:
    versions: dict[str, set[str]] = {}
    for name in ("build", "base", "service", "local", "models", "dev"):
        for package, version in pins(name).items():
            versions.setdefault(package, set()).add(version)
    assert {package: pinned for package, pinned in versions.items() if len(pinned) > 1} == {}


def test_what_glue_has_is_tested_in_its_version() -> None:
    glue = pins("glue")
    ours = [pins(name).items() for name in ("build", "base", "service", "local", "models", "dev", "pure")]
    differing = {name for versions in ours for name, version in versions if name in glue and version != glue[name]}
    assert differing == set()


def test_make_says_what_there_is_to_make() -> None:
    help_text = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert [
        name
        for name in ("setup", "test", "demo", "lint", "format", "wheel", "lock", "clean")
        if f"make {name} " not in help_text
    ] == []


# Files


def test_no_tracked_file_holds_a_path_of_one_machine() -> None:
    home = re.compile(r"(?<![\w./$}-])/(?:root|home/[a-z]\w*|Users/\w+)/")
    here = f"{ROOT}/"
    assert [named(path) for path in tracked() if here in text(path) or home.search(text(path))] == []


def test_a_module_is_named_for_what_is_in_it() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    assert [named(path) for path in tracked() if path.suffix == ".py" and path.stem in empty] == []


def test_no_file_is_too_large_to_review() -> None:
    limit = 1024 * 1024
    assert [named(path) for path in tracked() if path.stat().st_size > limit and path.suffix != ".jsonl"] == []


# Code


@pytest.mark.parametrize("job", JOBS)
def test_a_job_reads_in_one_screen(job: str) -> None:
    assert len(text(ROOT / f"glue_jobs/{job}.py").splitlines()) < MAX_JOB_LINES


def test_modules_and_functions_stay_small() -> None:
    code = {named(path): text(path) for path in modules(*PRODUCT, "local_stack")}
    long_modules = {
        name: size for name, source in code.items() if (size := len(source.splitlines())) > MAX_MODULE_LINES
    }
    long_functions = {
        (name, node.name): size
        for name, source in code.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (size := body_lines(node)) > MAX_FUNCTION_LINES
    }
    assert (long_modules, long_functions) == ({}, {})


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    documented = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_suppressions_are_few_and_name_their_rule() -> None:
    suppressions, lines, bare = 0, 0, []
    for path in modules(*PRODUCT, "local_stack"):
        for line in text(path).splitlines():
            lines += 1
            if re.search(r"#\s*(noqa|type:\s*ignore)", line):
                suppressions += 1
                if not re.search(r"#\s*(noqa:\s*[A-Z]+\d|type:\s*ignore\[)", line):
                    bare.append((named(path), line.strip()))
    assert bare == []
    assert suppressions <= MAX_SUPPRESSIONS_PER_1000_LINES * lines / 1000


def test_glue_is_imported_in_one_file_and_foreach_batch_called_in_one() -> None:
    sources = {named(path): text(path) for path in modules(*PRODUCT)}
    glue = [
        name for name, source in sources.items() if re.search(r"^\s*(?:from|import) awsglue\b", source, re.MULTILINE)
    ]
    foreach_batch = [name for name, source in sources.items() if re.search(r"\.foreachBatch\(", source)]
    assert (len(glue), len(foreach_batch)) == (1, 1), (glue, foreach_batch)


# Tests

MAX_WORDS = 12
SEAMS = {
    "tests/e2e/breakpoints.py": "where a driver is stopped: the steps of a write and of a merge",
    "tests/integration/documentdb/test_faults.py": "a second writer with less patience; which vectors a writer has just kept",
    "tests/integration/documentdb/test_readers.py": "between two looks of a sweep",
    "tests/integration/test_class_archive.py": "the virtual machine of a session",
    "tests/integration/test_kafka_feed.py": "a client that is stuck, and how long it may be",
    "tests/integration/test_kinesis_fan_out.py": "the subscriptions of this process",
    "tests/integration/test_kinesis_feed.py": "the bytes that are read ahead",
    "tests/integration/test_lake_on_s3.py": "the leases that this process has",
    "tests/integration/test_merge_race.py": "between a merge's reading and its write",
    "tests/integration/test_reader.py": "the processes that were started",
    "tests/integration/test_search.py": "a session of a reader that is in the middle of a query",
    "tests/integration/test_store_writer.py": "in the middle of a write; what is remembered, and for how many bytes",
    "tests/integration/test_ticks.py": "the seconds that a stop waits for a tick",
    "tests/unit/test_peer_vectors.py": "a clock",
    "tests/unit/test_decode_columns.py": "the tables by type, of which every line is tried",
    "tests/unit/test_feeds.py": "a client's answers that no server gives on demand",
    "tests/unit/test_lake_landed_files.py": "the bytes of a file",
    "tests/unit/test_opensearch_schema.py": "how a bulk request is cut",
    "tests/unit/test_reader_pipeline.py": "how long nothing may come",
    "tests/unit/test_reader_query.py": "a reader's answer, and when it was asked",
    "tests/unit/test_reader_process.py": "the program that a reader starts with",
    "tests/unit/test_sources_files.py": "the bytes of a split",
}
"""Where tests reach a private of the product, and what for: behaviour at a moment, or of a size, that no call brings about."""


def test_a_tests_name_has_at_most_a_dozen_words() -> None:
    names = [name for path in modules("tests") for name in re.findall(r"^ *def (test_\w+)", text(path), re.MULTILINE)]
    assert len(names) > 800
    assert [name for name in names if len(name.split("_")) - 1 > MAX_WORDS] == []


WAITS = re.compile(r"time\.sleep\(|while .*monotonic\(\)|monotonic\(\)[^\n]* <|< [^\n]*monotonic\(\)")
PACED = {
    "tests/e2e/engines_run.py": (2, "a duration is its subject"),
    "tests/e2e/long_run.py": (6, "a duration is its subject"),
    "tests/e2e/test_killed_in_mid_write.py": (1, "how long a server is away"),
    "tests/e2e/under_load.py": (1, "how long nothing may come"),
    "tests/reading.py": (1, "a store that is slow"),
    "tests/unit/test_feeds.py": (1, "a fetch that takes its time"),
    "tests/unit/test_reader_pipeline.py": (2, "records that come one by one; how long nothing may come"),
    "tests/waiting.py": (1, "the one wait"),
}
"""Where tests let time pass, how often and why; everywhere else they wait for a condition, and ask for no speed."""


def test_tests_wait_by_the_one_eventually() -> None:
    waits = {named(path): len(matches) for path in modules("tests") if (matches := WAITS.findall(text(path)))}
    assert {file: number for file, number in waits.items() if number > PACED.get(file, (0, ""))[0]} == {}
    assert PACED.keys() <= waits.keys(), "a file that waits no more is taken off the list"


def test_privates_of_the_product_are_reached_in_named_seams_alone() -> None:
    reached = {named(path): names for path in modules("tests") if (names := privates(ast.parse(text(path))))}
    assert {file: names for file, names in reached.items() if file not in SEAMS} == {}
    assert SEAMS.keys() <= reached.keys(), "a seam that nobody uses is taken off the list"


PUBLIC = {"_replace", "_asdict", "_fields", "_UNKNOWN_PARTITION"}
"""Of named tuples, and of librdkafka's errors."""


def privates(tree: ast.AST) -> set[str]:
    """Names with an underscore that a test module asks the product for, beside those it defines itself."""
    nodes = list(ast.walk(tree))
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)} | PUBLIC
    own |= {node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    reached: set[str] = set()
    for node in nodes:
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                own.add(name)
            case ast.Attribute(attr=name):
                reached.add(name)
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] in PRODUCT:
                reached |= {alias.name for alias in names}
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[_, ast.Constant(value=str(name)), *_]):
                reached.add(name)
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[ast.Constant(value=str(name)), *_]):
                reached.add(name.rpartition(".")[2])
    return {name for name in reached - own if re.match("_[a-zA-Z]", name)}


# The wheel


@cache
def owners_of_packages() -> Mapping[str, list[str]]:
    return packages_distributions()


def test_every_package_the_product_imports_is_declared() -> None:
    project = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {canonicalize_name(Requirement(line).name) for lines in lists for line in lines}
    owners = owners_of_packages()
    typing_only = {
        "mypy_boto3_bedrock_runtime",
        "mypy_boto3_dynamodb",
        "mypy_boto3_kinesis",
        "mypy_boto3_secretsmanager",
    }
    with_it = {"botocore": "boto3", "h11": "uvicorn", "pydantic_core": "pydantic", "py4j": "pyspark"}
    undeclared = {
        (named(path), name)
        for path in modules(*PRODUCT)
        for name in imported(path) - sys.stdlib_module_names - {*PRODUCT, "local_stack", "awsglue"} - typing_only
        if declared.isdisjoint(map(canonicalize_name, [with_it.get(name, name), *owners.get(name, [])]))
    }
    assert undeclared == set()


def test_package_that_is_missing_is_said_with_the_extra_that_installs_it() -> None:
    project = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]
    extras = {extra: {canonicalize_name(Requirement(line).name) for line in lines}
              for extra, lines in project["optional-dependencies"].items()}  # fmt: skip
    with_it = {
        "botocore": "boto3",
        "h11": "uvicorn",
        "bson": "pymongo",
        "delta": "delta-spark",
        "google": "protobuf",
        "py4j": "pyspark",
    }
    owners = owners_of_packages()
    distributions = {package: {canonicalize_name(n) for n in [with_it.get(package, package), *owners.get(package, [])]}
                     for package in EXTRAS}  # fmt: skip
    assert {(package, extra) for package, names in EXTRAS.items() for extra in names
            if extras[extra].isdisjoint(distributions[package])} == set()  # fmt: skip
    always = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    needed = {name for path in modules(*PRODUCT) for name in imported(path) if name in owners}
    third_party = {name for name in needed if always.isdisjoint(map(canonicalize_name, owners[name]))}
    typing_only = {name for name in third_party if name.startswith("mypy_boto3_")}
    ours = {*PRODUCT, "local_stack", "awsglue", "pydantic_core"}
    assert third_party - typing_only - ours - EXTRAS.keys() == set()


def imported(path: Path) -> set[str]:
    packages: set[str] = set()
    for node in ast.walk(ast.parse(text(path))):
        if isinstance(node, ast.Import):
            packages.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            packages.add((node.module or "").split(".")[0])
    return packages
