"""Generations, the models that stores remember, golden questions, and what `--to` means."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr

from embeddings import BedrockEmbeddingConfig, open_embedder
from embeddings.registry import config_of, registry_entry
from evaluation.golden import Golden, read_golden
from glue_jobs.config.pipeline import PipelineConfig
from glue_jobs.operations.migrate.target import target_model
from schemas.errors import ConfigurationError
from sinks.versions import IndexVersions, first, from_json, to_json

TITAN = BedrockEmbeddingConfig(
    type="bedrock",
    model="amazon.titan-embed-text-v2:0",
    dimensions=512,
    access_key="who",
    secret_key=SecretStr("canary"),
)


def moved() -> IndexVersions:
    return first("old", 8).announced("new", 4, {"model": "new"})


def test_each_step_done_twice_is_done_once_and_survives_a_store() -> None:
    steps: list[Callable[[IndexVersions], IndexVersions]] = [
        lambda versions: versions.announced("new", 4, {"model": "new"}),
        lambda versions: versions.reached("new", "filling"),
        lambda versions: versions.reached("new", "filled"),
        lambda versions: versions.reached("new", "ready"),
        lambda versions: versions.switched("new"),
        lambda versions: versions.reached("old", "dropping"),
        lambda versions: versions.without(1),
    ]
    versions = first("old", 8)
    for step in steps:
        once = step(versions)
        assert once != versions
        assert step(once) == once
        versions = from_json(json.loads(json.dumps(to_json(once))))
        assert versions == once
    assert (versions.active_number, [(version.number, version.state) for version in versions.every]) == (
        2,
        [(2, "ready")],
    )


def test_a_number_is_never_used_again() -> None:
    again = moved().without(2).announced("new", 4, {})
    assert [version.number for version in again.every] == [1, 3]


def test_the_index_version_readers_use_is_written_last_and_never_dropped() -> None:
    ready = moved().reached("new", "ready")
    assert [version.number for version in ready.written] == [2, 1]
    switched = ready.switched("new")
    assert [version.number for version in switched.written] == [1, 2]
    assert switched.reached("new", "dropping") == switched
    assert moved().written == first("old", 8).written  # nobody writes what is being created


@pytest.mark.parametrize("state", ["creating", "filling", "filled"])
def test_readers_are_not_sent_to_an_index_version_that_lacks_something(state: Any) -> None:
    with pytest.raises(ConfigurationError, match="not ready"):
        moved().reached("new", state).switched("new")


def test_store_remembers_model_without_secrets_and_whoever_recalls_it_brings_their_own() -> None:
    other = TITAN.model_copy(update={"model": "cohere.embed-english-v3", "dimensions": 1024})
    entry = registry_entry(other)
    assert "canary" not in json.dumps(entry)
    assert "who" not in json.dumps(entry)
    index_version = (
        first(open_embedder(other).fingerprint, 1024).with_embedding(open_embedder(other).fingerprint, entry).active
    )
    assert config_of(index_version, TITAN) == other
    assert config_of(first(open_embedder(TITAN).fingerprint, 512).active, TITAN) is TITAN
    with pytest.raises(ConfigurationError, match="another model"):
        config_of(first("unknown", 8).active, TITAN)


class Configured:
    embedding = TITAN


def target(to: str, dimensions: int | None = None) -> Any:
    return target_model(cast("PipelineConfig", Configured()), to, dimensions)


def test_a_model_id_means_the_pipelines_own_connection_with_that_model(tmp_path: Path) -> None:
    model = target("cohere.embed-english-v3")
    assert (model.model, model.dimensions, model.secret_key) == ("cohere.embed-english-v3", 1024, TITAN.secret_key)
    assert target("amazon.titan-embed-text-v2:0", 256).dimensions == 256
    file = tmp_path / "other.yaml"
    file.write_text("embedding: {type: local, path: /models/x, model: x, dimensions: 384}")
    assert target(str(file)).dimensions == 384


@pytest.mark.parametrize(
    ("written", "message"),
    [("embedding: {type: local}", "embedding.local"), ("- 1", "keys and values"), ("a: [", "other.yaml")],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, written: str, message: str) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(written)
    with pytest.raises(ConfigurationError, match=message) as raised:
        target(str(file))
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "good"),
    [(None, None, True), (0.9, 0.9, True), (0.9, 0.86, True), (0.9, 0.8, False), (0.5, 1.0, True)],
)
def test_golden_questions_may_find_a_little_less_than_before(old: float | None, new: float | None, good: bool) -> None:  # noqa: FBT001
    assert Golden(10, 0.5, old, new).good == good


@pytest.mark.parametrize("line", ["{", "[]", '{"query": 1}', '{"query": "q", "expected": [{"table": "t"}]}', ""])
def test_a_golden_file_that_is_none_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_text(line)
    with pytest.raises(ConfigurationError, match=r"no question|cannot be read"):
        read_golden(str(file))


def test_golden_questions_name_rows_whatever_the_order_of_their_keys_columns(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_text('{"query": "q", "expected": [{"table": "t", "key": {"b": 1, "a": "x"}}]}\n\n{"query": "r"}\n')
    one, other = read_golden(str(file))
    assert one.expected == {("t", '{"a":"x","b":1}')}
    assert other.expected == frozenset()
