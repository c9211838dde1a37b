"""CONTRIBUTING.md's lists of places are whole: a toy of every kind of part works by the lines at those places alone.

Everything happens in a copy of the tree, in processes of its own, through the commands and a configuration file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.toy_parts import NAMES, TOYS_BY_LIST, covers, deciding, listed, tree

TOYS = [
    {"toy": "public.toys", "op": "u", "at": 2, "row": {"id": 1, "title": "a red kite"}},
    {"toy": "public.toys", "op": "c", "at": 1, "row": {"id": 1, "title": "a blue kite"}},
    {"toy": "public.toys", "op": "c", "at": 3, "row": {"id": 2, "title": "a wooden train"}},
]
"""The newest change of the first row comes first."""
CONTRACTS = (
    "tests/contract/test_sink_contract.py::test_a_shrunk_document_leaves_no_orphan_chunks[in_toy]",
    "tests/contract/test_index_contract.py::test_a_store_that_does_not_exist_is_a_wrong_configuration[in_toy]",
    "tests/contract/test_embedder_contract.py::test_vectors_are_float32_of_the_size_promised_and_in_order[toy]",
    "tests/contract/test_generator_contract.py::test_check_passes_and_a_copy_answers_too[toy]",
    "tests/contract/test_reranker_contract.py::test_each_text_has_a_score_in_order[toy]",
    "tests/contract/test_source_contract.py::test_check_refuses_what_is_not_there[toy]",
    "tests/contract/test_memory_contract.py::test_eight_requests_on_one_session_never_interleave[toy_as_memory]",
    "tests/contract/test_memory_model.py::test_any_sequence_of_requests_leaves_what_the_model_says[toy_as_memory]",
    "tests/contract/test_callers_contract.py::test_a_caller_is_known_by_user_and_claims[toy]",
    "tests/integration/test_local_stack.py::test_a_toy_is_killed_and_comes_back",
    "tests/unit/test_config.py::test_the_schema_file_is_what_the_models_say",
    "tests/unit/test_docs.py::test_every_key_of_the_configuration_is_explained",
    "tests/unit/test_transport.py::test_every_part_that_names_a_server_is_held_to_the_rule",
)
"""A test of each suite that the toys are put into."""
BEFORE = """
import contextlib, io, json, sys
from glue_jobs.config.json_schema import rendered
from glue_jobs.cli.main import main
def command(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(arguments))
        except SystemExit as ended:
            return [ended.code, out.getvalue(), err.getvalue()]
config, view, packages = sys.argv[1:4]
results = {"up": command("stack", "up", "--parts", "toy"), "lacking": command("check", config)}
sys.path.append(packages)
results |= {"check": command("check", config), "capture": command("capture", config), "schema": rendered()}
print(json.dumps(results))
"""
AFTER = (
    BEFORE.partition("results =")[0]
    + """
sys.path.append(packages)
results = {
    "search": command("search", config, "red kite", "--json"),
    "view": command("search", view, "steam made 2024-10-04", "--json"),
    "ask": command("ask", config, "red kite", "--json"),
    "turn": command("ask", config, "red kite", "--session", "s", "--user", "u", "--json"),
    "forget": command("forget", config, "--user", "u"),
}
from embeddings.bedrock.codecs import codec_for
from embeddings.registry import registry_entry
from glue_jobs.config.pipeline import load_config
from glue_jobs.continuous.start_positions import for_readers
from embeddings.prices import price_of
from glue_jobs.status.landed import readings, unlanded
from sources import feeds, caught_up_probe, positions, retained
from sources.feeds import SourcePositions
loaded = load_config(config)
source = loaded.source("toys")
def refused(function, *arguments):
    try:
        function(*arguments)
    except NotImplementedError:
        return True
ends = positions.ends(source, {})
results["places"] = {
    "not remembered": "toy_key" not in registry_entry(loaded.embedding), "price": price_of(loaded.embedding.model).input,
    "family": sorted(codec_for("toy.embed-v1").dimensions), "not landed": unlanded(readings(loaded)),
    "without a feed": refused(feeds.open_feed, source, "c") and refused(feeds.refreshed, source, "c", SourcePositions(None, {})),
    "read": [positions.is_read(source, place) for place in ends], "kept": [retained.holds(source)(p, 0) for p in ends],
    "goes on": list(for_readers(source, f"{loaded.checkpoint}/index_toys", ["toy"])[0].stores["toy"]) == list(ends),
    "idle": caught_up_probe(source),
}
print(json.dumps(results))
"""
)
"""Commands, and what `status`, `reconcile`, `migrate` and readers ask of parts where a command would take a server more."""


def engine_event(position: int, title: str) -> dict[str, Any]:
    """Debezium's event of a toy database, with a type that only this has."""
    fields = [
        {"type": "int32", "optional": False, "field": "id"},
        {"type": "string", "optional": True, "field": "title"},
        {"type": "int32", "optional": True, "name": "io.toydb.Date", "field": "made"},
    ]
    row = {"type": "struct", "optional": True, "fields": fields}
    source = {
        "connector": "toydb",
        "name": "t",
        "db": "t",
        "schema": "public",
        "table": "engines",
        "toy_position": position,
    }
    payload = {
        "before": None,
        "after": {"id": 7, "title": title, "made": 20_000},
        "source": source,
        "op": "u",
        "ts_ms": 1,
    }
    block = {
        "type": "struct",
        "fields": [row | {"field": "before"}, row | {"field": "after"}],
        "name": "t.public.engines.Envelope",
    }
    return {"schema": block, "payload": payload}


def lines(path: Path, topic: str, values: list[dict[str, Any]]) -> str:
    heads: list[dict[str, Any]] = [
        {"topic": topic, "partition": 0, "offset": n, "timestamp": 1, "key": None, "headers": []}
        for n in range(len(values))
    ]
    path.write_text(
        "".join(json.dumps(head | {"value": value}) + "\n" for head, value in zip(heads, values, strict=True))
    )
    return str(path)


def configuration(folder: Path, dsn: str) -> dict[str, Any]:
    document = {"template": "{title}"}
    return {
        "name": "toys",
        "source": [
            {"type": "toy", "name": "toys", "envelope": "toy", "toy_file": lines(folder / "toys.jsonl", "toys", TOYS)},
            {"type": "files", "name": "engines", "format": "kafka", "envelope": "debezium",
             "path": [lines(folder / "engines.jsonl", "t.public.engines", [engine_event(9, "steam"), engine_event(8, "wind")])]},
        ],
        "capture": {"type": "debezium", "database": "toydb", "source": "engines", "dsn": "toydb://u:p@127.0.0.1:1/d"},
        "tables": [
            {"table": "public.toys", "source": "toys", "keys": ["id"], "document": document},
            {"table": "public.engines", "source": "engines", "keys": ["id"], "document": {"template": "{title} made {made}"}},
        ],
        "lake": {"path": str(folder / "lake")},
        "checkpoint": str(folder / "checkpoint"),
        "embedding": {"type": "toy", "model": "toy-words", "dimensions": 16, "toy_key": "${env:TOY_URL}"},
        "generation": {"type": "toy", "toy_opinion": "A kite is red"},
        "reranking": {"type": "toy", "toy_taste": "red"},
        "sinks": [{"type": "toy", "dsn": dsn, "toy_table": "toys", "deadline": "5s"}],
        "memory": {"type": "toy", "toy_memory": str(folder / "memory"), "ttl": "1d"},
        "serve": {"callers": {"type": "toy", "toy_word": "please"}},
    }  # fmt: skip


@pytest.mark.parametrize("name", TOYS_BY_LIST)
def test_each_listed_place_is_touched_by_a_toy_or_excused(name: str) -> None:
    toy, places = TOYS_BY_LIST[name], listed()[name]
    excused = toy.without or {}
    assert [place for place in toy.touched if not covers(places, place)] == [], "a place that is not listed"
    assert [
        place for place in places - excused.keys() if not any(covers([place], touched) for touched in toy.touched)
    ] == []
    assert excused.keys() <= places, "a place that is listed no more"


@pytest.mark.parametrize("name", NAMES)
def test_where_the_kind_of_a_part_decides_is_listed(name: str) -> None:
    places = listed()[name] | listed()["Every part"]
    assert [module for module in deciding(name) if not covers(places, module)] == []


def test_toys_of_every_kind_work_by_the_listed_places_alone(tmp_path: Path, vectors_dsn: str) -> None:
    copy, packages = tree(tmp_path / "tree", listed()), tmp_path / "installed"
    packages.mkdir()
    (packages / "toyclient.py").touch()
    config, view = tmp_path / "toys.json", tmp_path / "view.json"
    document = configuration(tmp_path, vectors_dsn)
    config.write_text(json.dumps(document))
    seen = {"type": "toyview", "toy_view": f"toys {vectors_dsn}", "deadline": "5s"}
    view.write_text(json.dumps(document | {"sinks": [seen]}))

    def python(*arguments: str | Path, path: tuple[Path, ...] = (copy, packages)) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=copy, env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))},
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
        return done.stdout

    try:
        before = json.loads(python("-c", BEFORE, config, view, packages, path=(copy,)))
        (copy / "job_configs/schema.json").write_text(before["schema"])
        with ThreadPoolExecutor(1) as pool:
            contracts = pool.submit(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CONTRACTS)
            python("-m", "glue_jobs", "run", config, "--jobs", "index,land", "--available-now")
            assert f"{len(CONTRACTS)} passed" in contracts.result()
        after = json.loads(python("-c", AFTER, config, view, packages))
    finally:
        python("-m", "glue_jobs", "stack", "down", "--purge")
    assert (before["up"][0], before["lacking"][0], before["check"][0]) == (0, 2, 0), before
    assert 'sink toy: the package toyclient is not installed: pip install "ragstream[toy]"' in before["lacking"][2]
    assert [
        f"ok     {part}" in before["check"][1]
        for part in ("source toys", "embedding", "sink toy", "generation", "reranking", "serve")
    ] == [True] * 6
    assert "relevance" not in before["check"][1]
    assert json.loads(before["capture"][1])["connector"]["config"]["connector.class"] == "io.toydb.Connector"
    red, steam, answer = (json.loads(after[name][1]) for name in ("search", "view", "ask"))
    assert [hit["chunk_text"] for hit in red["results"]][:1] == ["a red kite"]
    assert [hit["chunk_text"] for hit in steam["results"]][:1] == ["steam made 2024-10-04"]
    assert (answer["answer"], answer["answerer"]) == ("A kite is red [1].", "generative (toy-text)")
    turn, receipt = (json.loads(after[name][1]) for name in ("turn", "forget"))
    assert (turn["turn"], turn["answer"], receipt["removed"]["messages"]) == (1, "A kite is red [1].", 2)
    assert after["places"] == {
        "not remembered": True, "price": 0.5, "family": [256, 512, 1024], "not landed": [], "without a feed": True,
        "read": [True], "kept": [True], "goes on": True, "idle": None,
    }  # fmt: skip
    project = tomllib.loads((copy / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert project["toy"] == ["toyclient"]
    assert "toy" in project["all"][0]
