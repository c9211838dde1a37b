"""What a process remembers of a registry, and how a source names one."""

from __future__ import annotations

import threading

import pytest
from pydantic import ValidationError

from schemas.errors import UnavailableError
from sources.files.config import FilesSourceConfig
from sources.registry.config import ConfluentRegistryConfig
from sources.registry.lookup import SchemaCache
from transforms.envelopes.registry import RegisteredSchema

CONFIG = ConfluentRegistryConfig(type="confluent", url="http://127.0.0.1:8081")
SCHEMA = RegisteredSchema("AVRO", '"long"')


def test_a_schema_is_asked_for_once_by_all_threads() -> None:
    cache, asked, answering = SchemaCache(), list[float](), threading.Event()

    def slowly(patience: float) -> RegisteredSchema:
        asked.append(patience)
        assert answering.wait(10.0)
        return SCHEMA

    threads = [threading.Thread(target=cache.get, args=((CONFIG, "7"), slowly)) for _ in range(8)]
    for thread in threads:
        thread.start()
    answering.set()
    for thread in threads:
        thread.join()
    assert len(asked) == 1
    assert cache.get((CONFIG, "7"), slowly) is SCHEMA


def test_a_missing_id_is_asked_for_again_and_many_without_patience() -> None:
    cache, forgetful, patience = SchemaCache(missing_seconds=60.0), SchemaCache(missing_seconds=0.0), list[float]()
    for number in range(20):
        assert cache.get((CONFIG, str(number)), patience.append) is None
        assert forgetful.get((CONFIG, str(number)), patience.append) is None
    assert min(patience[:2]) > 0
    assert patience[-2:] == [0, patience[0]], "ids that are forgotten again do not count among the many"
    assert cache.get((CONFIG, "0"), lambda _: SCHEMA) is None
    assert forgetful.get((CONFIG, "0"), lambda _: SCHEMA) is SCHEMA


def test_what_is_remembered_is_bounded_and_an_error_is_not_remembered() -> None:
    cache, asked = SchemaCache(most=3), list[str]()

    def of(name: str) -> RegisteredSchema:
        asked.append(name)
        return SCHEMA

    def away(_: float) -> RegisteredSchema:
        raise UnavailableError("away")

    with pytest.raises(UnavailableError):
        cache.get((CONFIG, "0"), away)
    for name in ("0", "1", "2", "3", "0"):
        cache.get((CONFIG, name), lambda _, name=name: of(name))  # type: ignore[misc]
    assert asked == ["0", "1", "2", "3", "0"]


def test_a_source_of_dms_has_no_registry() -> None:
    settings = {"type": "files", "format": "kafka", "path": ["x"], "registry": {"type": "glue"}}
    assert FilesSourceConfig.model_validate(settings | {"envelope": "debezium"}).registry is not None
    with pytest.raises(ValidationError, match="DMS"):
        FilesSourceConfig.model_validate(settings | {"envelope": "dms"})


def test_a_registry_of_another_machine_is_reached_by_https_alone() -> None:
    with pytest.raises(ValidationError, match="unencrypted"):
        ConfluentRegistryConfig(type="confluent", url="http://registry.example:8081")
