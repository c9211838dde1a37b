"""The documents say what is true: their examples load, their links lead somewhere, every key is explained."""

from __future__ import annotations

import json
import re
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
