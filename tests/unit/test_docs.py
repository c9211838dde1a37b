"""The documents say what is true: their examples load, their links lead somewhere, every key is explained."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from glue_jobs.config.pipeline import parse_config
from glue_jobs.config.values import Substitution

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_the_first_configuration_of_the_readme_loads() -> None:
    example = (ROOT / "README.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    database = "postgresql://writer:swordfish99@127.0.0.1:5432/shop"
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
        "CONNECT_URL": "http://127.0.0.1:8083",
        "SOURCE": database,
        "VECTORS": database,
    }
    config = parse_config(example, "README.md", Substitution(environment, Path("nowhere")))
    assert (config.name, [table.table for table in config.tables]) == ("shop", ["public.products"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_between_documents_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


def test_every_key_of_the_configuration_is_explained() -> None:
    schema = json.loads((ROOT / "job_configs/schema.json").read_text())
    explained = set(re.findall(r"^\| `(\w+)` \| ", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE))
    keys = {key for part in (schema, *schema["$defs"].values()) for key in part.get("properties", {})}
    assert (keys - explained, explained - keys) == (set(), set())


@pytest.mark.parametrize("record", sorted(ROOT.glob("docs/adr/0*.md")), ids=lambda path: path.stem)
def test_a_decision_has_a_status_a_date_and_at_most_a_page(record: Path) -> None:
    lines = record.read_text().splitlines()
    assert re.fullmatch(rf"# {record.name[:4]} \S.*", lines[0])
    status = re.fullmatch(r"Status: (?:accepted|superseded by \[\d{4}\]\((\d{4}[a-z0-9-]+\.md)\))", lines[2])
    assert status
    assert status[1] is None or (record.parent / status[1]).exists()
    assert re.fullmatch(r"Date: \d{4}-\d{2}-\d{2}", lines[3])
    assert len(lines) <= 60
    assert [line for line in lines if len(line) > 130] == []


def test_the_list_of_decisions_has_each_with_its_status_and_date() -> None:
    listed = re.findall(
        r"^\| \[\d{4}\]\((\S+)\) \| .+ \| (.+) \| (.+) \|$", (ROOT / "docs/adr/README.md").read_text(), re.MULTILINE
    )
    records = [(path.name, path.read_text().splitlines()) for path in sorted(ROOT.glob("docs/adr/0*.md"))]
    assert listed == [
        (name, lines[2].removeprefix("Status: "), lines[3].removeprefix("Date: ")) for name, lines in records
    ]


def test_every_invariant_is_defined_and_held_by_tests_that_exist() -> None:
    architecture = (ROOT / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| (I\d+) \| (.+) \| (.+) \|$", architecture, re.MULTILINE)
    assert [number for number, _, _ in rows] == [f"I{number}" for number in range(1, 16)]
    sources = [path.read_text() for path in ROOT.glob("tests/**/*.py")]
    tests = {name for source in sources for name in re.findall(r"^def (test_\w+)\(", source, re.MULTILINE)}
    named = {number: re.findall(r"`(test_\w+)`", held_by) for number, _, held_by in rows}
    missing = {number: [name for name in names if name not in tests] for number, names in named.items()}
    assert {number: names for number, names in missing.items() if names} == {}
    assert [number for number, names in named.items() if not names] == []


def test_every_invariant_that_code_or_a_document_cites_is_defined() -> None:
    defined = set(re.findall(r"^\| (I\d+) \| ", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE))
    listing = subprocess.run(
        ["git", "ls-files", "-z", "*.py", "*.md"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    files = [path for name in listing.decode().split("\0") if name and (path := ROOT / name).is_file()]
    cited = {(path.name, number) for path in files for number in re.findall(r"\bI\d{1,2}\b", path.read_text())}
    assert [citation for citation in sorted(cited) if citation[1] not in defined] == []


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_and_folder_that_a_document_names_is_there(name: str) -> None:
    spans = re.findall(r"`([^`\n]+)`", (ROOT / name).read_text())
    paths = [
        span for span in spans if re.fullmatch(r"[a-z_]+(/[\w.-]+)*/?", span) and "/" in span and "NAME" not in span
    ]
    assert [path for path in paths if (ROOT / path.partition("/")[0]).is_dir() and not (ROOT / path).exists()] == []


def test_where_to_look_names_files_and_what_is_in_them() -> None:
    section = (ROOT / "ARCHITECTURE.md").read_text().partition("## Where to look\n")[2].partition("\n## ")[0]
    _, *entries = re.findall(r"^\| (.+) \| (.+) \|$", section, re.MULTILINE)
    assert len(entries) >= 12
    for question, answer in entries:
        paths = {path: list(ROOT.glob(path)) for path in re.findall(r"`([\w.*-]+/[\w./*-]+)`", answer)}
        assert paths, question
        assert [path for path, files in paths.items() if not files] == []
        for path, name in re.findall(r"`([\w./*-]+)` \(`(\w+)`\)", answer):
            assert all(re.search(rf"\b{name}\b", file.read_text()) for file in paths[path]), (path, name)


JAVA = "openjdk-17-jdk-headless"
PACKAGES = {
    "git": "git", "java": JAVA, "javac": JAVA, "jcmd": JAVA, "make": "make", "mvn": "maven", "node": "nodejs", "npm": "npm",
    "openssl": "openssl",
}  # fmt: skip
"""Debian's package of each program that is called and that not every Debian has."""
LIBRARIES = {"chromium", "libgomp1", "locales"}
"""The browser that shows the page, what llama.cpp is linked with, and what English order is compiled from."""
ESSENTIAL = {"sha256sum", "shasum", "sleep", "sh"}


def test_the_readme_names_the_package_of_every_program_that_is_called() -> None:
    listing = subprocess.run(["git", "ls-files", "-z", "*.py"], cwd=ROOT, check=True, capture_output=True).stdout
    files = [ROOT / name for name in listing.decode().split("\0") if name and not name.startswith("benchmarks/peers/")]
    called = {program for path in files if path.is_file() for program in programs(ast.parse(path.read_text()))}
    called |= set(re.findall(r"command -v (\w+)", (ROOT / "Makefile").read_text()))
    assert called - ESSENTIAL == PACKAGES.keys()
    installed = re.search(r"`apt-get install ([^`]+)`", (ROOT / "README.md").read_text())
    assert installed
    assert set(installed[1].split()) == set(PACKAGES.values()) | LIBRARIES


def programs(tree: ast.AST) -> Iterator[str]:
    """Names that are looked up on the PATH, or begin a command."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not call.args:
            continue
        first, function = call.args[0], ast.unparse(call.func).rpartition(".")[2]
        if function in {"run", "Popen"} and isinstance(first, ast.List | ast.Tuple) and first.elts:
            first = first.elts[0]
        elif function not in {"program", "which"}:
            continue
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and " " not in first.value:
            yield first.value
